"""What the best of k answers is worth, by the reward and by other values (4.2.2).

Rewards that go on rising while another reward model, or the truth, does not, are those
of a reward model that is exploited: over-optimisation.
"""

import math
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

DRAWS = 32  # subsets of each size


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
  points = []
  for k in ks or _sizes(count):
    share = weights(count, k)
    points.append(_point(k, {n: x @ share for n, x in ordered.items()}))
  return points


def drawn(
  rewards: np.ndarray,
  values: Callable[[np.ndarray, np.ndarray], np.ndarray],
  others: Mapping[str, np.ndarray] | None = None,
  ks: Sequence[int] | None = None,
  seed: int = 0,
) -> list[dict]:
  """As `curve`, where the best depends on which answers are beside it: the mean over
  DRAWS random subsets of each prompt.

  values(rows, picked): of the answers `picked` [prompts,k] of each prompt of `rows`
  [prompts], the highest of which is the best.
  """
  every = {'reward': _finite(rewards)}
  every |= {n: _finite(x) for n, x in (others or {}).items()}
  prompts, count = rewards.shape
  rng, rows, points = np.random.default_rng(seed), np.arange(prompts), []
  for k in ks or _sizes(count):
    sums = {name: np.zeros(prompts) for name in every}
    for _ in range(DRAWS):
      picked = rng.permuted(np.tile(np.arange(count), (prompts, 1)), axis=1)[:, :k]
      best = picked[rows, np.argmax(values(rows, picked), 1)]
      for name, x in every.items():
        sums[name] += x[rows, best] / DRAWS
    points.append(_point(k, sums))
  return points


def _sizes(count):
  """Powers of two up to count, and count."""
  return sorted({*(2**i for i in range(count.bit_length()) if 2**i <= count), count})


def _point(k, expected):
  point = {'k': int(k)}
  for name, x in expected.items():
    mean, ci = _mean(x)
    point |= {name: mean, 'ci' if name == 'reward' else f'{name}_ci': ci}
  return point


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
