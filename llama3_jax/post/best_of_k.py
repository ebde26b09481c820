"""What the best of k answers is worth, by the reward and by other values (4.2.2).

Rewards that go on rising while another reward model, or the truth, does not, are those
of a reward model that is exploited: over-optimisation.
"""

import math
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np


def weights(count: int, k: int) -> np.ndarray:
  """Probability that the i-th lowest of `count` values is the best of k drawn without
  replacement: C(i, k-1) / C(count, k), i from 0; np.float64 [count]."""
  ways = [math.comb(i, k - 1) for i in range(count)]
  return np.asarray(ways, np.float64) / math.comb(count, k)


def curve(
  rewards: np.ndarray,
  others: Mapping[str, np.ndarray] | None = None,
  ks: Sequence[int] | None = None,
) -> list[dict]:
  """Best-of-k curve: expected reward, and other values, of the best of k samples.

  rewards, others [prompts, K]; the best is that of `rewards`. The expectation is over
  all k-subsets of the K samples, so every point uses every sample and none is biased.
  Default ks: powers of two up to K, and K. An answer that was cut off (-inf) counts as
  the lowest finite value of all. Each point: {'k', 'reward', 'ci'} and of each of the
  others {name, name_ci}; ci: 95%, over prompts.
  """
  rewards = _finite(rewards)
  order = np.argsort(rewards, axis=1, kind='stable')
  values = {'reward': rewards} | {n: _finite(x) for n, x in (others or {}).items()}
  ordered = {n: np.take_along_axis(x, order, 1) for n, x in values.items()}
  count = rewards.shape[1]
  if ks is None:
    ks = sorted({*(2**i for i in range(count.bit_length()) if 2**i <= count), count})
  points = []
  for k in ks:
    point = {'k': int(k)}
    for name, x in ordered.items():
      mean, ci = _mean(x @ weights(count, k))
      point |= {name: mean, 'ci' if name == 'reward' else f'{name}_ci': ci}
    points.append(point)
  return points


def _finite(values):
  values = np.asarray(values, np.float64)
  finite = np.isfinite(values)
  return np.where(finite, values, values[finite].min() if finite.any() else 0.0)


def _mean(expected):
  """(mean, half of its 95% interval) over prompts."""
  spread = expected.std(ddof=1) if len(expected) > 1 else 0.0
  return float(expected.mean()), float(1.96 * spread / math.sqrt(len(expected)))


def peak(points: Sequence[Mapping], name: str) -> int:
  """The smallest k at which a value of a curve is highest."""
  return max(points, key=lambda point: (point[name], -point['k']))['k']
