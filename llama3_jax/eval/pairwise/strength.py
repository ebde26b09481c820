"""Strengths of models from who beats whom: Bradley and Terry (1952), for 5.3.

Of models i and j, i wins with probability 1 / (1 + 10^((s_j - s_i) / 400)); a tie is
half a win of each. The strengths are those of maximum likelihood, with the mean 1000.
"""

from collections.abc import Sequence

import numpy as np

from llama3_jax.eval.pairwise import rates
from llama3_jax.eval.pairwise.rows import Rated

SCALE, MEAN = 400 / np.log(10), 1000.0
STEPS, CLOSE, LONGEST = 100, 1e-10, 2.0  # of Newton's method, in nats
DRAWS = 1000
FEW = 20  # prompts of a model below which a bootstrap says little
HALVES = np.array([1, 0.5, 0])  # of a win that an outcome is


def strengths(rated: Sequence[Rated], seed: int = 0) -> dict:
  """{'models': {name: {'strength', 'interval', 'prompts'}} from above, 'virtual',
  'drawn_virtual', 'unbeaten', 'winless', 'few', 'groups'}.

  A model that never lost, or never won, has no finite strength, nor have two groups of
  which one never lost to the other. There, each pair that was compared is given one
  virtual tie, and 'virtual' is true; in the bootstrap that is so in a share
  'drawn_virtual' of the draws. few: models of so few prompts that their intervals are
  too narrow, since what was not seen is never drawn. groups: models that were compared,
  if only through others; strengths of two groups cannot be compared, and each has the
  mean 1000.
  """
  names = sorted({name for one in rated for name in one.models})
  table = rates.tables(_wins(rated, names), [one.prompt for one in rated])
  total = table.sum(0)
  compared = total + total.T > 0
  groups = _closed(compared)
  point, virtual = _solved(total[None], compared, groups)
  drawn, often = [], []
  for block in rates.resampled(table, seed, DRAWS):
    values, some = _solved(block, compared, groups)
    drawn.append(values)
    often.append(some)
  ends = np.quantile(np.concatenate(drawn), (0.025, 0.975), axis=0)
  prompts = ((table + table.swapaxes(1, 2)).sum(2) > 0).sum(0).tolist()
  ends = ends.T.tolist()
  found = {
    name: {'strength': float(point[0, i]), 'interval': ends[i], 'prompts': prompts[i]}
    for i, name in enumerate(names)
  }
  order = sorted(names, key=lambda name: -found[name]['strength'])
  lost, won = total.sum(0), total.sum(1)
  parts = {tuple(n for n, inside in zip(names, row) if inside) for row in groups}
  return {
    'models': {name: found[name] for name in order},
    'virtual': bool(virtual[0]),
    'drawn_virtual': float(np.concatenate(often).mean()),
    'unbeaten': [n for n, count in zip(names, lost) if not count],
    'winless': [n for n, count in zip(names, won) if not count],
    'few': [n for n, count in zip(names, prompts) if count < FEW],
    'groups': [list(part) for part in sorted(parts)],
  }


def _wins(rated, names):
  """Wins of i over j of each rating, float [ratings, models, models]."""
  found = np.zeros((len(rated), len(names), len(names)))
  places = {name: i for i, name in enumerate(names)}
  for wins, one in zip(found, rated):
    i, j = (places[name] for name in one.models)
    won = HALVES[rates.outcome(one.point)]
    wins[i, j], wins[j, i] = won, 1 - won
  return found


def _closed(edges):
  """Which can be reached from which, bool [...,M,M], themselves included."""
  size = edges.shape[-1]
  found = (edges | np.eye(size, dtype=bool)).astype(np.float32)
  for _ in range(max(size - 1, 1).bit_length()):
    found = (found @ found > 0).astype(np.float32)
  return found > 0


def _solved(wins, compared, groups):
  """(strengths [n,M], whether a virtual tie was needed [n]) of wins [n,M,M]."""
  # Ford (1957): there is a maximum where each has beaten each, if through others.
  virtual = (_closed(wins > 0) != groups).any((1, 2))
  wins = wins + 0.5 * compared * virtual[:, None, None]
  return MEAN + SCALE * likeliest(wins, groups), virtual


def likeliest(wins: np.ndarray, groups: np.ndarray | None = None) -> np.ndarray:
  """Logarithms of strengths of maximum likelihood, float [n,M], the mean of each group
  0, by Newton's method.

  wins: of i over j, float [n,M,M], such that there is a maximum. groups: bool [M,M],
  which models are of one group; None: all.
  """
  size = wins.shape[-1]
  groups = np.ones((size, size), bool) if groups is None else groups
  games = wins + wins.swapaxes(1, 2)
  theta = np.zeros(wins.shape[:2])
  for _ in range(STEPS):
    chance = 1 / (1 + np.exp(theta[:, None] - theta[:, :, None]))
    slope = (wins - games * chance).sum(2)
    bend = games * chance * (1 - chance)
    # What is added has no effect on differences, and makes the matrix regular.
    matrix = np.eye(size) * bend.sum(2)[:, :, None] - bend + groups
    step = np.linalg.solve(matrix, slope[:, :, None])[:, :, 0]
    largest = np.abs(step).max(1, keepdims=True)
    theta += step * np.minimum(1, LONGEST / np.maximum(largest, CLOSE))
    if largest.max() < CLOSE:
      break
  return theta - (theta @ groups) / groups.sum(0)
