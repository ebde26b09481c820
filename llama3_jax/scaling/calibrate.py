"""Intervals that hold: a ladder's own errors on sizes that were left out (3.2.2).

What a bootstrap says is true if the law is. Whether it is shows on sizes that a fit did
not see: each error is divided by the half-width that was told for it, all benchmarks
together, as the few runs of one say nothing of the tails. The 95% quantile of these
ratios, as in split conformal prediction, is what intervals are stretched by.
"""

import math
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

FIELDS = ('nll', 'accuracy')
LEVEL = 0.95
LEAST = 40  # errors that settle a 95% interval: 2 of them outside


def splits(runs: Sequence[Mapping]) -> list[tuple[list[Mapping], list[Mapping]]]:
  """[(fitted runs, runs of the sizes that are left out)].

  Each size is left out, then all from each size on, upward and downward; two sizes are
  always fitted, so that there is a slope.
  """
  order = [s for _, s in sorted({(r['params'], r['size']) for r in runs})]
  kept = [[s for s in order if s != size] for size in order]
  for n in range(2, len(order) - 1):
    kept += [order[:n], order[-n:]]
  parts = []
  for sizes in kept:
    if len(sizes) >= 2:
      train = [r for r in runs if r['size'] in sizes]
      parts.append((train, [r for r in runs if r['size'] not in sizes]))
  return parts


def where(flops: float, train: Sequence[Mapping]) -> str:
  """'below', 'within' or 'beyond' the FLOPs (6ND) of the runs of `train`."""
  spent = [6 * r['params'] * r['tokens'] for r in train]
  if flops > max(spent):
    return 'beyond'
  return 'below' if flops < min(spent) else 'within'


def ratio(
  measured: float, value: float, low: float, high: float, least: float
) -> float:
  """Error over the half-width of its side, which is `least` or more."""
  half = high - value if measured > value else value - low
  return abs(measured - value) / max(half, least, 1e-12)


def factor(ratios: Sequence[float]) -> float:
  """The conformal quantile of `ratios`; 1 or more where they are less than LEAST."""
  if not len(ratios):
    return 1.0
  rank = math.ceil((len(ratios) + 1) * LEVEL)
  found = float(np.sort(ratios)[min(rank, len(ratios)) - 1])
  return found if len(ratios) >= LEAST else max(found, 1.0)


def stretch(
  guess: tuple[float, float, float], by: float, least: float, top: float = math.inf
) -> tuple[float, float, float]:
  """(value, low, high) with half-widths of `least` or more, times `by`; 0 to `top`."""
  value, low, high = guess
  low, high = (max(h, least) * by for h in (value - low, high - value))
  return value, max(value - low, 0.0), min(value + high, top)
