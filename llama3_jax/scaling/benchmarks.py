"""Benchmarks of a measured ladder: choose a method inside, predict beyond it (3.2.2).

The method (law of the first step, ceiling and data of the second) is chosen by how well
the smaller sizes predict the held-out larger ones, and by nothing else.
"""

import dataclasses
import itertools
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

from llama3_jax.base.errors import UserError
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


METHODS = tuple(
  Method(*values)
  for values in itertools.product(predict.STEPS, ('free', 'one'), ('final', 'path'))
)


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
  rows = [c[benchmark] for r in runs for c in r['path'][int(skip * len(r['path'])) :]]
  rows = np.array(rows, float)
  lengths = [len(r['path']) - int(skip * len(r['path'])) for r in runs]
  numbers = np.repeat(np.arange(len(runs)), lengths)
  return {'nll': rows[:, 0], 'accuracy': rows[:, 1], 'run': numbers}


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
  """Mean absolute errors of every Method on the held-out `sizes`, the best first.

  Returns: list of dicts: method, accuracy_error, nll_error (relative), and by_size.
  """
  rows = []
  for method in METHODS:
    by_size = {}
    for size in sizes:
      try:
        by_size[size] = _errors(*split(runs, size), method, skip)
      except UserError:
        if method.step == 'linear':
          raise
        break  # a law with an offset does not fit these sizes
    if len(by_size) == len(sizes):
      rows.append(
        {
          'method': dataclasses.asdict(method),
          'accuracy_error': float(np.mean([v[0] for v in by_size.values()])),
          'nll_error': float(np.mean([v[1] for v in by_size.values()])),
          'by_size': by_size,
        }
      )
  return sorted(rows, key=lambda r: r['accuracy_error'])


def _errors(train, test, method, skip):
  """(mean |accuracy error|, mean relative |NLL error|) over benchmarks and runs."""
  accuracy, nll = [], []
  for name in names(train + test):
    curve = predict.fit_loss(
      *(arrays(train, name)[k] for k in ('params', 'tokens', 'nll')), method.step
    )
    second = points(train, name, method, skip)
    sigmoid = predict.fit_accuracy(
      second['nll'], second['accuracy'], measured.chance(name), method.top
    )
    for run in test:
      guess = float(curve(run['params'], run['tokens']))
      nll.append(abs(guess / run['scores'][name][0] - 1))
      accuracy.append(abs(float(sigmoid(guess)) - run['scores'][name][1]))
  return float(np.mean(accuracy)), float(np.mean(nll))


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

  Returns (rows: benchmark, target, nll, accuracy and their low, high; {benchmark:
  (Forecast, arrays of the runs)}).
  """
  rows, forecasts = [], {}
  for name in names(runs):
    forecast = _forecast(runs, name, method, skip, samples)
    forecasts[name] = forecast, arrays(runs, name)
    for target, params, tokens in targets:
      row = {'benchmark': name, 'target': target}
      rows.append(row | _flat(predict.predict(forecast, params, tokens)))
  return rows, forecasts


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
  rows = []
  for name in names(runs):
    forecast = _forecast(train, name, method, skip, samples)
    row = {'benchmark': name, 'run': run['name']}
    row |= _flat(predict.predict(forecast, run['params'], run['tokens']))
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
