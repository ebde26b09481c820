"""Texts that a model writes while it is trained, beside its held-out loss."""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence

from llama3_jax.config import ModelConfig
from llama3_jax.data import shards
from llama3_jax.generate import engine
from llama3_jax.generate.settings import Settings
from llama3_jax.text.library import Library
from llama3_jax.text.tokenizer import Tokenizer


def beside(
  evaluate: Callable[[object], Mapping[str, float]],
  prompts: Sequence[str],
  model: ModelConfig,
  tokenizer: Tokenizer | Library,
  settings: Settings,
  seed: int = 0,
) -> Callable[[object], dict[str, object]]:
  """evaluate(params) that also completes `prompts`: its 'samples' are [[prompt,
  completion], ...], kept with the losses of the same step in metrics.jsonl."""

  def look(params):
    texts = complete(params, prompts, model, tokenizer, settings, seed)
    pairs = [[prompt, text] for prompt, [text] in zip(prompts, texts)]
    return {**evaluate(params), 'samples': pairs}

  return look


def complete(
  params: object,
  prompts: Sequence[str],
  model: ModelConfig,
  tokenizer: Tokenizer | Library,
  settings: Settings,
  seed: int = 0,
  samples: int = 1,
  batch: int = 16,
) -> list[list[str]]:
  """`samples` continuations of each text, as a base model writes them."""
  encoded = [tokenizer.encode(prompt, bos=True) for prompt in prompts]
  groups = engine.generate(
    params, encoded, model, tokenizer.stop_ids, settings, seed, samples, batch
  )
  return [[tokenizer.decode(one.ids) for one in group] for group in groups]


def beginnings(
  sources: Iterable[shards.Source],
  tokenizer: Tokenizer | Library,
  count: int = 3,
  tokens: int = 12,
) -> list[str]:
  """The first words of a few held-out documents, to be completed."""
  found = []
  for source in sources:
    for i in range(min(len(source), count - len(found))):
      ids = [i for i in source[i].tolist() if i not in (tokenizer.bos, tokenizer.eos)]
      found.append(tokenizer.decode(ids[:tokens]).rsplit(' ', 1)[0])
  return [text for text in found if text.strip()] or ['The']
