"""Agreement between raters of pairs: raw, Cohen's kappa, Krippendorff's alpha (5.3).

Intervals are of a bootstrap over prompts, each with all its ratings.
"""

import collections
import itertools
from collections.abc import Sequence

import numpy as np

from llama3_jax.eval.pairwise import rates
from llama3_jax.eval.pairwise.rows import Rated
from llama3_jax.post import ratings

POINTS = len(ratings.SCALE)


def agreement(rated: Sequence[Rated], seed: int = 0) -> dict:
  """{'pairs': [of two raters: 'raters', 'n' (answers both rated), 'same' (the point),
  'outcome' (win, tie or loss), as of rates.share, 'kappa', 'interval'], 'alpha':
  {'value', 'interval', 'n' (answers with several ratings)}}.

  kappa: of win, tie and loss; alpha: of all raters, the points as ordered. Both are
  None where all ratings are the same.
  """
  items = collections.defaultdict(dict)
  for one in rated:
    items[one.prompt, one.item, one.models][one.rater] = one.point
  several = {key: said for key, said in items.items() if len(said) > 1}
  names = sorted({one.rater for one in rated})
  found = []
  for pair in itertools.combinations(names, 2):
    both = {
      key: tuple(said[name] for name in pair)
      for key, said in several.items()
      if set(pair) <= set(said)
    }
    if both:
      found.append({'raters': list(pair), **_pair(both, seed)})
  return {'pairs': found, 'alpha': _alpha(several, seed)}


def _pair(both, seed):
  prompts = [prompt for prompt, *_ in both]
  points = np.array(list(both.values()))
  results = np.array([[rates.outcome(p) for p in pair] for pair in points])
  same = lambda x: np.stack([x[:, 0] == x[:, 1], np.ones(len(x))], 1)
  each = np.zeros((len(results), 3, 3))
  each[np.arange(len(results)), results[:, 0], results[:, 1]] = 1
  table = rates.tables(each, prompts)
  return {
    'n': len(both),
    'same': rates.share(same(points), prompts, seed),
    'outcome': rates.share(same(results), prompts, seed),
    'kappa': _number(kappa(table.sum(0)[None])),
    'interval': rates.interval(table, kappa, seed),
  }


def _alpha(several, seed):
  each = np.zeros((len(several), POINTS, POINTS))
  for table, said in zip(each, several.values()):
    table += coincidences(list(said.values()))
  if not several:
    return {'value': None, 'interval': None, 'n': 0}
  table = rates.tables(each, [prompt for prompt, *_ in several])
  value = _number(alpha(table.sum(0)[None]))
  ends = rates.interval(table, alpha, seed)
  return {'value': value, 'interval': ends, 'n': len(several)}


def _number(values):
  return float(values[0]) if np.isfinite(values[0]) else None


def kappa(tables: np.ndarray) -> np.ndarray:
  """Cohen's kappa (1960) of tables of how often two raters said what, [n,C,C] -> [n];
  nan where both always said the same one thing."""
  total = tables.sum((1, 2))
  total = np.where(total > 0, total, np.nan)
  seen = np.trace(tables, axis1=1, axis2=2) / total
  chance = (tables.sum(1) * tables.sum(2)).sum(1) / total**2
  return _over(seen - chance, 1 - chance)


def coincidences(points: Sequence[int]) -> np.ndarray:
  """The coincidence matrix of the ratings of one item, float [POINTS,POINTS]: each pair
  of ratings by two raters, in both orders, over one less than there are ratings."""
  counts = np.bincount(np.asarray(points) - 1, minlength=POINTS).astype(float)
  return (np.outer(counts, counts) - np.diag(counts)) / (len(points) - 1)


def alpha(tables: np.ndarray) -> np.ndarray:
  """Krippendorff's alpha (2011) of ordered points, of sums of coincidences [n,C,C] ->
  [n]; nan where all ratings are the same."""
  counts = tables.sum(2)
  middle = np.cumsum(counts, 1) - counts / 2  # how many are below, half of its own
  away = (middle[:, :, None] - middle[:, None]) ** 2
  seen = (tables * away).sum((1, 2))
  chance = (counts[:, :, None] * counts[:, None] * away).sum((1, 2))
  return 1 - _over((counts.sum(1) - 1) * seen, chance)


def _over(some, every):
  """Quotients; nan where what is divided by is 0, but for rounding."""
  safe = np.isfinite(every) & (np.abs(every) > 1e-12)
  return np.divide(some, every, out=np.full(len(every), np.nan), where=safe)
