"""Intervals that hold: a ladder's own errors on sizes that were left out (3.2.2).

What a bootstrap says is true if the law is. Whether it is shows on sizes that a fit did
not see: each error is divided by the half-width that was told for it, all benchmarks
together, as the few runs of one say nothing of the tails. The 95% quantile of these
ratios, as in split conformal prediction, is what intervals are stretched by. Where the
errors of one family of benchmarks ask for more, its intervals are stretched further
(conformal by groups, Mondrian).
"""

import math
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

FIELDS = ('nll', 'accuracy')
PLACES = ('below', 'within', 'beyond')
LEVEL = 0.95
LEAST = 40  # errors that settle a 95% interval: two lie outside
FEW = 19  # errors whose largest is their conformal 95% quantile


def splits(runs: Sequence[Mapping]) -> list[tuple[list[Mapping], list[Mapping]]]:
  """[(fitted runs, runs of the sizes that are left out)].

  Each size is left out, then all from each size on, upward and downward. Of more than
  three sizes two are always fitted.
  """
  order = [s for _, s in sorted({(r['params'], r['size']) for r in runs})]
  least = 2 if len(order) > 3 else 1
  kept = [[s for s in order if s != size] for size in order]
  for n in range(least, len(order) - 1):
    kept += [order[:n], order[-n:]]
  parts = []
  for sizes in kept:
    if len(sizes) >= least:
      train = [r for r in runs if r['size'] in sizes]
      parts.append((train, [r for r in runs if r['size'] not in sizes]))
  return parts


def where(flops: float, train: Sequence[Mapping]) -> str:
  """'below', 'within' or 'beyond' the FLOPs (6ND) of the runs of `train`."""
  spent = [6 * r['params'] * r['tokens'] for r in train]
  if flops > max(spent):
    return 'beyond'
  return 'below' if flops < min(spent) else 'within'


def ratios(
  guess: Mapping[str, tuple], measured: tuple[float, float], questions: int
) -> dict[str, float]:
  """{'nll', 'accuracy'}: |error| over the half-width of its side.

  Args:
    guess: of predict.predict; measured: (NLL, accuracy); questions: of the benchmark,
      0 where it is not known.
  """
  found = {}
  for field, seen in zip(FIELDS, measured):
    value, low, high = guess[field]
    half = high - value if seen > value else value - low
    half = max(half, _least(field, value, questions), 1e-12)
    found[field] = abs(seen - value) / half
  return found


def _least(field, value, questions):
  """Half-width of the noise of `questions` answers, which no fit can take away."""
  if field == 'nll' or not questions:
    return 0.0
  return 1.96 * math.sqrt(max(value * (1 - value), 0.0) / questions)


def factors(errors: Sequence[Mapping]) -> dict[tuple[str, str], float]:
  """{(field, place): what half-widths are multiplied by} from `ratios` with `where`.

  A place with less than LEAST of them takes those of all places. Beyond the ladder,
  where its own splits do not reach as far, and where there are too few, no interval
  becomes narrower.
  """
  found = {}
  for field in FIELDS:
    every = [e[field] for e in errors]
    for place in PLACES:
      here = [e[field] for e in errors if e['where'] == place]
      enough = len(here) >= LEAST
      value = _quantile(here if enough else every)
      narrower = enough and place != 'beyond'
      found[field, place] = value if narrower else max(value, 1.0)
  return found


def own(
  errors: Sequence[Mapping], by: Mapping[tuple[str, str], float]
) -> dict[tuple[str, str], float]:
  """{(field, family): what the half-widths of one family are stretched by further}.

  Its own errors, over the half-widths that `by` of `factors` already stretches, ask for
  it; none becomes narrower, and less than FEW of them ask for nothing.
  """
  found = {}
  for field in FIELDS:
    for family in sorted({e['family'] for e in errors}):
      here = [e[field] / by[field, e['where']] for e in errors if e['family'] == family]
      found[field, family] = max(_quantile(here), 1.0) if len(here) >= FEW else 1.0
  return found


def _quantile(values):
  """The conformal quantile: of n + 1 values, with the new one, LEVEL are below it."""
  if not values:
    return 1.0
  rank = math.ceil((len(values) + 1) * LEVEL)
  return float(np.sort(values)[min(rank, len(values)) - 1])


def stretch(
  guess: Mapping[str, tuple], by: Mapping[str, float], questions: int
) -> dict[str, tuple[float, float, float]]:
  """`guess` of predict.predict with half-widths times `by`, a factor a field."""
  found = {}
  for field in FIELDS:
    value, low, high = guess[field]
    least = _least(field, value, questions)
    low, high = (by[field] * max(half, least) for half in (value - low, high - value))
    top = 1.0 if field == 'accuracy' else math.inf
    found[field] = value, max(value - low, 0.0), min(value + high, top)
  return found
