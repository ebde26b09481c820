"""Benchmarks of a measured ladder: choose a method inside, predict beyond it (3.2.2).

The method (law of the first step, ceiling and data of the second) is chosen by how well
the smaller sizes predict the held-out larger ones, where that tells more than noise.
"""

import dataclasses
import itertools
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
from scipy import stats

from llama3_jax.base.errors import UserError
from llama3_jax.scaling import calibrate
from llama3_jax.scaling import measured
from llama3_jax.scaling import predict


@dataclasses.dataclass(frozen=True)
class Method:
  """A method of prediction.

  step: see predict.Curve. ceiling: 'free' up to 1, or 'one'. points: the second step is
  fitted to the 'final' checkpoints or to those along the 'path' of every run.
  """

  step: str
  ceiling: str
  points: str

  @property
  def top(self) -> float | None:
    """Ceiling for predict.fit_accuracy."""
    return 1.0 if self.ceiling == 'one' else None


# The first that fits is taken until another is better by more than noise. A law with an
# offset extrapolates safely: NLL is bounded below, so no straight line holds for long.
METHODS = tuple(
  Method(step, ceiling, points)
  for step, ceiling, points in itertools.product(
    ('power', 'chinchilla', 'linear'), ('one', 'free'), ('final', 'path')
  )
)
PARTS = 12  # means of neighbouring checkpoints that a run gives to the second step


def names(runs: Sequence[Mapping]) -> list[str]:
  """Benchmarks that every run has."""
  shared = set.intersection(*(set(r['scores']) for r in runs))
  if not shared:
    raise UserError('data: no benchmark is in all runs of the ladder')
  return sorted(shared)


def arrays(runs: Sequence[Mapping], benchmark: str) -> dict[str, np.ndarray]:
  """{params, tokens, nll, accuracy} of the runs, float [runs]."""
  scores = np.array([r['scores'][benchmark] for r in runs], float)
  return {
    'params': np.array([r['params'] for r in runs]),
    'tokens': np.array([r['tokens'] for r in runs]),
    'nll': scores[:, 0],
    'accuracy': scores[:, 1],
  }


def points(
  runs: Sequence[Mapping], benchmark: str, method: Method, skip: float
) -> dict[str, np.ndarray]:
  """{nll, accuracy (and run)} for the second step; skip: share of a run left out at its
  start."""
  if method.points == 'final':
    return arrays(runs, benchmark)
  rows, numbers = [], []
  for i, r in enumerate(runs):
    path = [c[benchmark] for c in r['path'][int(skip * len(r['path'])) :]]
    parts = np.array_split(np.array(path, float), min(PARTS, len(path)))
    rows += [part.mean(0) for part in parts]
    numbers += [i] * len(parts)
  rows = np.array(rows)
  return {'nll': rows[:, 0], 'accuracy': rows[:, 1], 'run': np.array(numbers)}


def split(runs: Sequence[Mapping], size: str) -> tuple[list[Mapping], list[Mapping]]:
  """(runs of sizes smaller than `size`, runs of `size`)."""
  order = sorted({(r['params'], r['size']) for r in runs})
  sizes = [s for _, s in order]
  if size not in sizes or sizes.index(size) < 2:
    raise UserError(
      f'scaling.hold_out={size!r}: name one of {", ".join(sizes[2:])}, so that 2 '
      'smaller sizes are left'
    )
  smaller = sizes[: sizes.index(size)]
  return [r for r in runs if r['size'] in smaller], [
    r for r in runs if r['size'] == size
  ]


def compare(runs: Sequence[Mapping], sizes: Sequence[str], skip: float) -> list[dict]:
  """Mean absolute errors of every Method on the held-out `sizes`, the chosen one first.

  Another than the first of METHODS that fits is chosen only where its accuracy is
  better than that of the choice so far, by a paired t-test over families of benchmarks
  (the parts and splits of one err together) at 2.5% for all tests, and its NLL is not
  worse by the same test.

  Returns: list of dicts: method, accuracy_error, nll_error (relative), by_size, and
    families {name: (accuracy error, NLL error)}; after the first by accuracy_error.
  """
  rows = []
  for method in METHODS:
    by_size, every = {}, []
    for size in sizes:
      try:
        found = _errors_each(*split(runs, size), method, skip)
      except UserError:
        if method.step == 'linear':
          raise
        break  # a law with an offset does not fit these sizes
      by_size[size] = _mean(found.values())
      every.append(found)
    if len(by_size) == len(sizes):
      families = {
        name: _mean(
          [e for found in every for n, e in found.items() if family(n) == name]
        )
        for name in sorted({family(n) for n in every[0]})
      }
      row = {'method': dataclasses.asdict(method)}
      row['accuracy_error'], row['nll_error'] = _mean(by_size.values())
      rows.append(row | {'by_size': by_size, 'families': families})
  chosen = _choose(rows)
  rest = [r for r in rows if r is not chosen]
  return [chosen, *sorted(rest, key=lambda r: r['accuracy_error'])]


def family(benchmark: str) -> str:
  """What the splits and parts of a benchmark have in common: its name without them."""
  if benchmark.startswith('mmlu'):
    return 'mmlu'
  return benchmark.removesuffix('_val').removesuffix('_test')


def _mean(pairs):
  return tuple(map(float, np.mean(list(pairs), 0)))


def _choose(rows):
  chosen = rows[0]
  for row in rows[1:]:
    better, worse = (_gain(chosen, row, i, len(rows) - 1) for i in range(2))
    if better > 1 and worse > -1:
      chosen = row
  return chosen


def _gain(before, after, field, tests):
  """What error `after` saves, in units of what noise alone would save in 2.5%."""
  saved = np.array(
    [
      before['families'][n][field] - after['families'][n][field]
      for n in after['families']
    ]
  )
  if len(saved) < 2:
    return 0.0  # one family tells no noise
  noise = saved.std(ddof=1) / np.sqrt(len(saved))
  limit = stats.t.ppf(1 - 0.025 / max(tests, 1), len(saved) - 1) * noise
  return float(saved.mean() / max(limit, 1e-12))


def _errors(train, test, method, skip):
  """(mean |accuracy error|, mean relative |NLL error|) over benchmarks and runs."""
  return _mean(_errors_each(train, test, method, skip).values())


def _errors_each(train, test, method, skip):
  """{benchmark: (mean |accuracy error|, mean relative |NLL error|)} over runs."""
  errors = {}
  for name in names(train + test):
    curve = predict.fit_loss(
      *(arrays(train, name)[k] for k in ('params', 'tokens', 'nll')), method.step
    )
    second = points(train, name, method, skip)
    sigmoid = predict.fit_accuracy(
      second['nll'], second['accuracy'], measured.chance(name), method.top
    )
    seen = arrays(test, name)
    guess = curve(seen['params'], seen['tokens'])
    wrong = np.abs(sigmoid(guess) - seen['accuracy']), np.abs(guess / seen['nll'] - 1)
    errors[name] = tuple(float(w.mean()) for w in wrong)
  return errors


def _forecast(runs, name, method, skip, samples):
  return predict.forecast(
    arrays(runs, name),
    points(runs, name, method, skip),
    measured.chance(name),
    method.step,
    method.top,
    samples,
  )


def table(
  runs: Sequence[Mapping],
  targets: Sequence[tuple[str, float, float]],
  method: Method,
  skip: float,
  samples: int,
) -> tuple[list[dict], dict[str, tuple[predict.Forecast, dict]]]:
  """Predictions at `targets` ((name, parameters, tokens), ...), fitted to all runs.

  Intervals are stretched by `calibrate.factors` and `own` of the same runs.

  Returns (rows: benchmark, target, nll, accuracy and their low, high; {benchmark:
  (Forecast, arrays of the runs)}).
  """
  rows, forecasts = [], {}
  wrong = errors(runs, method, skip)
  factors = calibrate.factors(wrong)
  own = calibrate.own(wrong, factors)
  for name in names(runs):
    forecast = _forecast(runs, name, method, skip, samples)
    forecasts[name] = forecast, arrays(runs, name)
    for target, params, tokens in targets:
      place = calibrate.where(6 * params * tokens, runs)
      guess = calibrate.stretch(
        predict.predict(forecast, params, tokens),
        {f: factors[f, place] * own[f, family(name)] for f in calibrate.FIELDS},
        measured.questions(name),
      )
      rows.append({'benchmark': name, 'target': target} | _flat(guess))
  return rows, forecasts


def errors(
  runs: Sequence[Mapping], method: Method, skip: float, samples: int = 100
) -> list[dict]:
  """`calibrate.ratios` of every benchmark and run of sizes that were left out."""
  rows = []
  for train, test in calibrate.splits(runs):
    for name in names(runs):
      try:
        forecast = _forecast(train, name, method, skip, samples)
      except UserError:
        continue  # too few runs for this law, or it does not fit them
      for run in test:
        guess = predict.predict(forecast, run['params'], run['tokens'])
        place = calibrate.where(6 * run['params'] * run['tokens'], train)
        row = {'family': family(name), 'run': run['name'], 'where': place}
        counts = measured.questions(name)
        rows.append(row | calibrate.ratios(guess, run['scores'][name], counts))
  return rows


def _flat(guess):
  row = {}
  for field in ('accuracy', 'nll'):
    for key, value in zip((field, f'{field}_low', f'{field}_high'), guess[field]):
      row[key] = value
  return row


def held_out(
  runs: Sequence[Mapping], size: str, method: Method, skip: float, samples: int
) -> dict:
  """Prediction of the largest run of `size` from the smaller sizes: rows, mean errors,
  and how often the 95% interval contains the measurement."""
  train, test = split(runs, size)
  run = max(test, key=lambda r: r['tokens'])
  target = run['name'], run['params'], run['tokens']
  rows = []
  for guess in table(train, [target], method, skip, samples)[0]:
    name = guess.pop('benchmark')
    row = {'benchmark': name, 'run': guess.pop('target')} | guess
    nll, accuracy = run['scores'][name]
    row |= {'measured_nll': nll, 'measured_accuracy': accuracy}
    row['accuracy_error'] = row['accuracy'] - accuracy
    row['nll_error'] = row['nll'] / nll - 1
    rows.append(row)
  inside = lambda r, f: r[f'{f}_low'] <= r[f'measured_{f}'] <= r[f'{f}_high']
  return {
    'run': run['name'],
    'rows': rows,
    'accuracy_error': float(np.mean([abs(r['accuracy_error']) for r in rows])),
    'nll_error': float(np.mean([abs(r['nll_error']) for r in rows])),
    'accuracy_covered': float(np.mean([inside(r, 'accuracy') for r in rows])),
    'nll_covered': float(np.mean([inside(r, 'nll') for r in rows])),
  }
