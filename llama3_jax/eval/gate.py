"""The gate of long-context pre-training: train until it opens (3.4.2)."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable

from absl import logging
from ml_collections import ConfigDict

from llama3_jax import config as configs
from llama3_jax.base import files
from llama3_jax.base import processes
from llama3_jax.base.errors import UserError
from llama3_jax.data import texts
from llama3_jax.data.config import DataConfig
from llama3_jax.eval import needle
from llama3_jax.model import llama
from llama3_jax.tasks import needle as haystacks
from llama3_jax.text import store
from llama3_jax.train import belongs
from llama3_jax.train import models
from llama3_jax.train import pretraining
from llama3_jax.train import sources


@dataclasses.dataclass(frozen=True)
class GateConfig:
  """The `gate` part of a config: the conditions that end the stage (3.4.2)."""

  length: int = 256  # tokens of a row before the extension
  sources: tuple[str, ...] = ('general', 'math', 'code', 'multilingual')
  tolerance: float = 0.01  # of the short-context loss, relative
  perfect: float = 1.0  # least recall at any length, over its depths
  more_steps: int = 50  # of each further attempt
  attempts: int = 2  # further ones, after train.steps


def extend(
  config: ConfigDict,
  folder: pathlib.Path,
  parts: pretraining.Parts,
  train_to: Callable[[int], llama.Params],
) -> tuple[llama.Params, dict]:
  """Trains the stage until the gate opens; measures recall and loss before and after.

  Args:
    config: ConfigDict with seed, init_from, train, data (DataConfig), needle
      (NeedleConfig) and gate (GateConfig).
    train_to: train_to(steps) -> parameters, resuming from the last save.

  Returns (parameters, {'needle': {'lengths', 'depths', 'samples', 'before', 'after'},
  'gate': {'pass', 'why', 'short_before', 'short_after', 'attempts'}}); before is the
  model of init_from with its own RoPE.
  """
  n = configs.fill(needle.NeedleConfig(), config.needle, 'needle')
  g = configs.fill(GateConfig(), config.gate, 'gate')
  if not n.lengths:
    return train_to(config.train.steps), {}
  tokenizer = store.load(n.tokenizer)
  belongs.compare(tokenizer, parts.sources, 'needle.tokenizer')
  short_loss, sentences = _short_loss(config, g, parts), _hay(n.documents)

  def examine(params, model):
    grid = needle.grid(
      *(params, model, tokenizer, sentences, n.lengths, n.depths, n.samples),
      *(config.seed, n.facts),
    )
    return {'recall': grid['recall'], 'short': short_loss(params, model)}

  path = folder / 'before.json'
  if not path.exists():
    if not config.init_from:
      raise UserError(
        'init_from is empty: a longer context is learnt after the shorter'
      )
    processes.write_json(path, examine(*models.load(config.init_from)))
  before = files.read_json(path)

  def judge(params):
    measures = examine(params, parts.model)
    passed, why = needle.gate(
      measures['short'], before['short'], measures['recall'], g.tolerance, g.perfect
    )
    return {'pass': passed, 'why': why, **measures}

  steps = config.train.steps
  params, judged = train(
    folder / 'gate.json', steps, g.more_steps, g.attempts, train_to, judge
  )
  return params, _report(n, before, judged)


def train(
  path: pathlib.Path,
  steps: int,
  more_steps: int,
  attempts: int,
  train_to: Callable[[int], llama.Params],
  judge: Callable[[llama.Params], dict],
) -> tuple[llama.Params, list[dict]]:
  """Train to `steps`; while the gate stays shut, `more_steps` more, `attempts` times.

  judge(params) -> dict with 'pass': bool and 'why': str. Each judgement is written to
  `path` (JSON) at once, so that a stopped run resumes its current attempt.
  Returns (parameters, [judgement with 'steps', ...]).
  """
  judged = files.read_json(path) if path.exists() else []
  done = lambda: judged and (judged[-1]['pass'] or len(judged) > attempts)
  target = steps + more_steps * max(len(judged) - 1, 0)
  while not done():
    target = steps + more_steps * len(judged)
    params = train_to(target)
    judged.append({'steps': target, **judge(params)})
    processes.write_json(path, judged)
    verdict = 'opens' if judged[-1]['pass'] else 'stays shut'
    logging.info('gate %s at step %d: %s', verdict, target, judged[-1]['why'])
  return train_to(target), judged


def _hay(documents):
  """Sentences in which needles are hidden, of the folder `needle.documents`."""
  categories = texts.categories(documents, 'needle.documents')
  if 'general' not in categories:
    raise UserError(f'needle.documents={documents}: no category general there')
  paths = categories['general']
  pages = (page for path in paths for page in texts.read(path, 'needle.documents'))
  return haystacks.sentences(page['text'] for page in pages)


def _short_loss(config, g, parts):
  """short_loss(params, model): held-out loss at the initial length (3.4.2)."""
  t, data = config.train, configs.fill(DataConfig(), config.data, 'data')
  mix = {n: w for n, w in data.mix.items() if n in g.sources}
  data = dataclasses.replace(data, mix=mix, changes=())
  limit = parts.model.vocab_size
  held = sources.of_split(data, 'heldout', limit, config.init_from)
  batch = t.batch * max(t.length // g.length, 1)

  def measure(params, model):
    own = functools.partial(parts.loss, config=model)
    losses = sources.evaluator(data, held, batch, g.length, own)(params)
    if 'eval_loss' not in losses:
      raise UserError('gate.sources: none of them holds documents out (data.root)')
    return losses['eval_loss']

  return measure


def _report(n, before, judged):
  last = judged[-1]
  return {
    'needle': {
      'lengths': list(n.lengths),
      'depths': list(n.depths),
      'samples': n.samples,
      'before': before['recall'],
      'after': last['recall'],
    },
    'gate': {
      'pass': last['pass'],
      'why': last['why'],
      'short_before': before['short'],
      'short_after': last['short'],
      'attempts': [
        {'steps': j['steps'], 'pass': j['pass'], 'why': j['why']} for j in judged
      ],
    },
  }
