"""Two answers of two different models of a pool to every prompt (4.2.1)."""

import itertools
from collections.abc import Callable
from collections.abc import Sequence

import numpy as np

from llama3_jax.base.errors import UserError
from llama3_jax.text import chat

Answer = Callable[[str, Sequence[Sequence[chat.Message]]], list[chat.Message]]


def assign(count: int, names: Sequence[str], seed: int = 0) -> list[tuple[str, str]]:
  """Two different names of the pool for each of `count` prompts.

  Every pair of models comes equally often, up to one, in a seeded order; which of the
  two is first is drawn. Raises UserError for fewer than two models.
  """
  if len(set(names)) < len(names) or len(names) < 2:
    raise UserError(f'pool={tuple(names)}: name at least two, each once')
  rng = np.random.default_rng(seed)
  every = list(itertools.combinations(names, 2))
  order = rng.permutation(len(every))
  turns = [every[order[i % len(every)]] for i in range(count)]
  drawn = [turns[i] for i in rng.permutation(count)]
  return [
    pair[::-1] if swap else pair for pair, swap in zip(drawn, rng.random(count) < 0.5)
  ]


def collect(
  prompts: Sequence[Sequence[chat.Message]],
  names: Sequence[str],
  answer: Answer,
  seed: int = 0,
) -> list[dict]:
  """Rows {'id', 'prompt', 'responses', 'models'} that nobody has ranked yet.

  answer(name, prompts) -> answers: is called once for each model, with all prompts that
  fell to it, so that one model is in memory at a time.
  """
  pairs = assign(len(prompts), names, seed)
  said = {}
  for name in names:
    mine = [i for i, pair in enumerate(pairs) if name in pair]
    made = answer(name, [prompts[i] for i in mine]) if mine else []
    said |= {(i, name): m for i, m in zip(mine, made, strict=True)}
  return [
    {
      'id': f'{i}',
      'prompt': [chat.fields(m) for m in prompt],
      'responses': [chat.fields(said[i, name]) for name in pair],
      'models': list(pair),
    }
    for i, (prompt, pair) in enumerate(zip(prompts, pairs))
  ]
