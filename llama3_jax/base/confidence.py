"""95% intervals of scores (5.1): the paper's formula, and two where it does not hold.

The formula gives a point where all answers are right or all wrong, and is too narrow
for few questions: there the interval is Wilson's. What is no mean of zeros and ones has
a bootstrap over questions.
"""

import math
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

Z = 1.96  # of a normal distribution, 95% lie within
DRAWS = 2000
ROOM = 1 << 22  # numbers that are drawn at a time


def paper(score: float, n: int) -> float:
  """Half width of the interval of a mean score of n: 1.96 sqrt(S(1-S)/N) (5.1)."""
  return Z * math.sqrt(max(score * (1 - score), 0) / max(n, 1))


def wilson(right: float, n: int) -> list[float]:
  """[low, high] of the share of `right` among n: shares that it would be no surprise to
  see this of (Wilson 1927). Of none: [0, 1]."""
  if not n:
    return [0.0, 1.0]
  share, z2 = right / n, Z * Z / n
  middle = share + z2 / 2
  half = Z * math.sqrt(share * (1 - share) / n + z2 / (4 * n))
  low, high = ((middle + side * half) / (1 + z2) for side in (-1, 1))
  return [0.0 if right <= 0 else max(low, 0.0), 1.0 if right >= n else min(high, 1.0)]


def bootstrap(
  values: Sequence[float],
  statistic: Callable[[np.ndarray], np.ndarray] = lambda drawn: drawn.mean(-1),
  seed: int = 0,
  draws: int = DRAWS,
) -> list[float]:
  """[low, high]: the middle 95% of a statistic of questions drawn with replacement.

  statistic: (values [draws, n]) -> [draws]; the mean unless given. Of no values
  [nan, nan].
  """
  values = np.asarray(values, float)
  if not len(values):
    return [math.nan, math.nan]
  rng, found = np.random.default_rng(seed), []
  step = max(ROOM // len(values), 1)
  for start in range(0, draws, step):
    shape = min(step, draws - start), len(values)
    found.append(statistic(values[rng.integers(len(values), size=shape)]))
  return np.quantile(np.concatenate(found), (0.025, 0.975)).tolist()


def of_scores(scores: Sequence[float]) -> list[float]:
  """[low, high] of a mean score: Wilson's where all are 0 or 1, else the bootstrap."""
  if all(score in (0, 1) for score in scores):
    return wilson(sum(scores), len(scores))
  return bootstrap(scores)


def of_mean(results: Sequence[Mapping], weights: Sequence[float]) -> list[float]:
  """[low, high] of the weighted mean of independent results {'score', 'interval'}.

  The distances of the ends from their scores add as squares (Zou and Donner 2008).
  """
  middle, below, above = 0.0, 0.0, 0.0
  for r, weight in zip(results, weights, strict=True):
    low, high = r['interval']
    middle += weight * r['score']
    below += (weight * (r['score'] - low)) ** 2
    above += (weight * (high - r['score'])) ** 2
  return [middle - math.sqrt(below), middle + math.sqrt(above)]
