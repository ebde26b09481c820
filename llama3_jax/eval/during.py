"""Questions that a model is asked while it is trained, at every evaluation (5.1)."""

from collections.abc import Callable
from collections.abc import Mapping

from ml_collections import ConfigDict

from llama3_jax import config as configs
from llama3_jax.base.errors import UserError
from llama3_jax.config import ModelConfig
from llama3_jax.eval import run
from llama3_jax.eval import suites
from llama3_jax.eval import table
from llama3_jax.generate.settings import Settings
from llama3_jax.text.tokenizer import Tokenizer
from llama3_jax.train import belongs
from llama3_jax.train import pretraining
from llama3_jax.train.config import AskConfig


def beside(
  evaluate: Callable[[object], Mapping[str, float]],
  ask: AskConfig,
  model: ModelConfig,
  tokenizer: Tokenizer,
  seed: int = 0,
) -> Callable[[object], dict[str, float]]:
  """evaluate(params) that also asks: 'task/NAME' is the score, 0 to 1, of the same
  questions every time.

  The engine, its pages and its copy of the parameters are given back after each call.
  Raises a UserError at once where a task cannot be asked.
  """
  if not ask.tasks:
    return evaluate
  names = suites.filled(ask.tasks, ask.data)
  shown = table.shorts(names)
  settings = Settings(temperature=0.0, max_new=ask.max_new)
  how = run.How(ask.shots, ask.turns, settings, ask.batch, ask.longest_answer)
  for name in names:
    if not how.asked(tokenizer, name, ask.examples, seed).examples:
      raise UserError(f'ask.tasks: {name} has no questions')

  def look(params):
    found = run.tasks(params, model, tokenizer, names, ask.examples, seed, how)
    scores = {f'task/{shown[name]}': found[name]['score'] for name in names}
    return {**evaluate(params), **scores}

  return look


def of_parts(config: ConfigDict, parts: pretraining.Parts) -> Callable:
  """The evaluation during a stage of pre-training, with the questions of config.ask."""
  ask = configs.fill(AskConfig(shots=-2), config.ask, 'ask')
  if not ask.tasks:
    return parts.during
  if parts.during is not parts.evaluate:  # the layers are in the order of a pipeline
    raise UserError('ask.tasks needs mesh.stage=1: evaluate a save instead')
  vocabulary = belongs.of_shards(parts.sources)
  return beside(parts.during, ask, parts.model, vocabulary, config.seed)
