"""Ordinary and adversarial questions of one kind, asked of the same model (5.1.3)."""

import math
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence

from llama3_jax.base.errors import UserError
from llama3_jax.config import ModelConfig
from llama3_jax.eval import run
from llama3_jax.model import llama
from llama3_jax.tasks import task as tasks
from llama3_jax.text.tokenizer import Tokenizer


def check(pairs: Sequence[tuple[str, str]]) -> None:
  """Raises UserError for a pair of one task, or of one that is not there."""
  for ordinary, adversarial in pairs:
    if ordinary == adversarial:
      raise UserError(f'pairs: {ordinary} is named twice: one must be adversarial')
    for name in (ordinary, adversarial):
      tasks.load(name)


def compare(
  params: llama.Params,
  model: ModelConfig,
  tokenizer: Tokenizer,
  pairs: Sequence[tuple[str, str]],
  n: int,
  seed: int = 0,
  how: run.How = run.How(shots=run.PAPER),
  record: Callable[[dict], None] | None = None,
) -> dict:
  """{'tasks': of run.tasks, 'pairs': [{'ordinary', 'adversarial' (names), 'difference',
  'low', 'high'}]} of (ordinary, adversarial) tasks, all of which are asked together.

  n, seed, how, record: as of run.tasks.
  """
  names = [name for pair in pairs for name in pair]
  found = run.tasks(params, model, tokenizer, names, n, seed, how, record)
  compared = [
    {'ordinary': a, 'adversarial': b, **apart(found[a], found[b])} for a, b in pairs
  ]
  return {'tasks': found, 'pairs': compared}


def apart(ordinary: Mapping, adversarial: Mapping) -> dict:
  """{'difference', 'low', 'high'}: what a score on adversarial questions is above that
  on ordinary ones, with a 95% interval of independent samples.

  Each is {'score', 'interval'}. The distances of the ends from their scores add as
  squares (Newcombe 1998, method 10).
  """
  p, (p_low, p_high) = adversarial['score'], adversarial['interval']
  q, (q_low, q_high) = ordinary['score'], ordinary['interval']
  return {
    'difference': p - q,
    'low': p - q - math.hypot(p - p_low, q_high - q),
    'high': p - q + math.hypot(p_high - p, q - q_low),
  }
