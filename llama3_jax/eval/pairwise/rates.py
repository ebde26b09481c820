"""Pairwise evaluation (5.3): win rates of models, and what raters like by its place.

"Better" and "much better" are wins; all else is a tie, and ties are left out of a win
rate, as in the paper. A prompt may have several ratings, so intervals are of a
bootstrap over prompts, each with all its ratings.
"""

import collections
import math
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence

import numpy as np

from llama3_jax.base import confidence
from llama3_jax.eval.pairwise.rows import Rated
from llama3_jax.post import ratings

DRAWS = 2000
WIN, LOSS = 2, 6  # points from which on the first, and the second model wins
OUTCOMES = ('wins', 'ties', 'losses')


def outcome(point: int) -> int:
  """0 where the first model wins, 1 for a tie, 2 where it loses."""
  return int(point > WIN) + int(point >= LOSS)


def tables(values: np.ndarray, prompts: Sequence[str]) -> np.ndarray:
  """Sums of values [n,...] of the ratings of each prompt, float [prompts,...]."""
  places = {}
  rows = [places.setdefault(prompt, len(places)) for prompt in prompts]
  found = np.zeros((len(places), *values.shape[1:]))
  np.add.at(found, np.array(rows, int), values)
  return found


def resampled(
  table: np.ndarray, seed: int = 0, draws: int = DRAWS
) -> Iterator[np.ndarray]:
  """Blocks of the sums of a table [prompts,...] over prompts drawn with replacement,
  [block,...], `draws` in all; the same prompts whatever the table holds."""
  rng, count = np.random.default_rng(seed), len(table)
  flat = table.reshape(count, -1)
  step = max(min(confidence.ROOM // max(count, 1), draws), 1)
  for start in range(0, draws, step):
    size = min(step, draws - start)
    drawn = rng.integers(count, size=(size, count)) + np.arange(size)[:, None] * count
    times = np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count)
    yield (times @ flat).reshape(size, *table.shape[1:])


def interval(
  table: np.ndarray,
  statistic: Callable[[np.ndarray], np.ndarray],
  seed: int = 0,
  draws: int = DRAWS,
) -> list[float] | None:
  """[low, high] (95%) of a statistic (sums [n,...]) -> [n] of a table of prompts; None
  where it is defined for fewer than half of the draws."""
  if not len(table):
    return None
  drawn = [statistic(block) for block in resampled(table, seed, draws)]
  values = np.concatenate(drawn)
  values = values[np.isfinite(values)]
  if 2 * len(values) < draws:
    return None
  return np.quantile(values, (0.025, 0.975)).tolist()


def share(parts: np.ndarray, prompts: Sequence[str], seed: int = 0) -> dict:
  """{'value', 'interval', 'n'} of a share, sum of parts[:, 0] over sum of parts[:, 1].

  Where all prompts have the same share the bootstrap knows no other value, and the
  interval is Wilson's of the prompts. Of nothing 'value' and 'interval' are None.
  """
  table = tables(np.asarray(parts, float).reshape(-1, 2), prompts)
  some, every = table.sum(0)
  if not every:
    return {'value': None, 'interval': None, 'n': 0}
  value = float(some / every)
  each = _ratio(*table[table[:, 1] > 0].T)
  if np.ptp(each) == 0:
    ends = confidence.wilson(value * len(each), len(each))
  else:
    ends = interval(table, lambda sums: _ratio(sums[:, 0], sums[:, 1]), seed)
  return {'value': value, 'interval': ends, 'n': int(every)}


def _ratio(some, every):
  return np.divide(some, every, out=np.full(len(every), np.nan), where=every > 0)


def rates(rated: Sequence[Rated], seed: int = 0) -> dict:
  """Of one pair of models, of the first: 'points' (ratings of each), 'wins', 'ties',
  'losses', 'ratings', 'prompts', 'rate' (share of wins, without ties) and 'all' (of all
  ratings, a tie is half a win), both as of `share`."""
  prompts = [one.prompt for one in rated]
  found = np.eye(3)[[outcome(one.point) for one in rated]].reshape(-1, 3)
  counts = collections.Counter(one.point for one in rated)
  decided = found[:, [0, 0]] + [0, 1] * found[:, [2, 2]]
  halves = np.stack([found @ [1, 0.5, 0], np.ones(len(rated))], 1)
  return {
    'points': [counts[i] for i in range(1, len(ratings.SCALE) + 1)],
    **{name: int(n) for name, n in zip(OUTCOMES, found.sum(0))},
    **{'ratings': len(rated), 'prompts': len(set(prompts))},
    'rate': share(decided, prompts, seed),
    'all': share(halves, prompts, seed),
  }


def uniform(rated: Sequence[Rated], seed: int = 0) -> dict | None:
  """{'value', 'interval', 'n'}: the mean of the win rates of `n` sub-categories, each
  alike (5.3); None of fewer than two that have a win or a loss."""
  kinds = sorted({(one.category, one.subcategory) for one in rated})
  values = np.zeros((len(rated), len(kinds), 2))
  for row, one in zip(values, rated):
    result = outcome(one.point)
    row[kinds.index((one.category, one.subcategory))] = result == 0, result != 1
  values = values[:, values[:, :, 1].any(0)]
  if values.shape[1] < 2:
    return None

  def mean(sums):
    every = sums[..., 1]
    each = np.divide(sums[..., 0], every, out=np.zeros_like(every), where=every > 0)
    return _ratio(each.sum(-1), (every > 0).sum(-1).astype(float))

  table = tables(values, [one.prompt for one in rated])
  value = float(mean(table.sum(0)[None])[0])
  ends = interval(table, mean, seed)
  return {'value': value, 'interval': ends, 'n': values.shape[1]}


def pairs(rated: Sequence[Rated], seed: int = 0) -> list[dict]:
  """Of each pair of models that was compared: 'models', those of `rates`, 'uniform',
  'told' (which model wins, '' where the interval has a half), and {name: rates} of
  'categories' and 'raters' where there are several."""
  found = []
  for models, own in _grouped(rated, lambda one: one.models):
    record = {'models': list(models), **rates(own, seed)}
    record['told'] = _told(models, record['rate'])
    record['uniform'] = uniform(own, seed)
    for name, of in (('categories', 'category'), ('raters', 'rater')):
      groups = _grouped(own, lambda one, of=of: getattr(one, of))
      several = len(groups) > 1 or name == 'categories' and groups[0][0]
      record[name] = {k: rates(rows, seed) for k, rows in groups} if several else {}
    found.append(record)
  return found


def _grouped(rated, key):
  """[(key, rows)] in the order of keys."""
  groups = collections.defaultdict(list)
  for one in rated:
    groups[key(one)].append(one)
  return sorted(groups.items())


def _told(models, rate):
  low, high = rate['interval'] or (0.0, 1.0)
  if low > 0.5:
    return models[0]
  return models[1] if high < 0.5 else ''


def raters(rated: Sequence[Rated], seed: int = 0) -> dict[str, dict]:
  """Of each rater: 'ratings', 'points' (of the answer shown first), 'first' (the share
  of those that it prefers, of all where it prefers one; 0.5 where places do not count,
  if the order was drawn or both were shown), as of `share`, and 'contradicted': pairs
  shown in both orders where another answer was better in each."""
  found = {}
  for name, own in _grouped(rated, lambda one: one.rater):
    shown = [(point, one.prompt) for one in own for point in one.seen]
    parts = [(p < ratings.SAME, p != ratings.SAME) for p, _ in shown]
    counts = collections.Counter(point for point, _ in shown)
    twice = [one.seen for one in own if len(one.seen) > 1]
    sides = [math.prod(point - ratings.SAME for point in seen) for seen in twice]
    found[name] = {
      'ratings': len(own),
      'points': [counts[i] for i in range(1, len(ratings.SCALE) + 1)],
      'first': share(np.array(parts, float), [prompt for _, prompt in shown], seed),
      # Both points are of what was shown first: of one side, the place was preferred.
      'contradicted': sum(side > 0 for side in sides),
      'in_both_orders': len(twice),
    }
  return found
