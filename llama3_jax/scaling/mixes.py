"""Choice of the data mix that makes the best large model (sections 3.1.2, 3.2.2).

Small models are trained on every candidate; the two-step prediction gives the score of
a large one on every benchmark, and the mean over benchmarks ranks the candidates.
"""

import dataclasses
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

from llama3_jax.base.errors import UserError
from llama3_jax.scaling import predict


def check(candidates: Iterable[tuple]) -> list[tuple[str, dict[str, float]]]:
  """[(name, {source: weight})] of ((name, ((source, weight), ...)), ...)."""
  mixes = []
  for name, mix in candidates:
    mix = dict(mix)
    if not mix or min(mix.values()) < 0 or sum(mix.values()) <= 0:
      raise UserError(f'scaling.candidates: the weights of {name!r} are {mix}')
    mixes.append((str(name), {n: float(w) for n, w in mix.items()}))
  names = [n for n, _ in mixes]
  if len(mixes) < 2 or len(set(names)) < len(names):
    raise UserError(f'scaling.candidates: name 2 or more different mixes, not {names}')
  return mixes


def shares(judged: Iterable[str], weights: Iterable[float] = ()) -> dict[str, float]:
  """{benchmark: its share of the mean}; weights: one each, () for equal ones."""
  judged, weights = list(judged), list(weights) or [1.0] * len(judged)
  if not judged or len(set(judged)) < len(judged):
    raise UserError(f'scaling.judged={judged}: name 1 or more different sources')
  if len(weights) != len(judged) or min(weights) < 0 or sum(weights) <= 0:
    raise UserError(
      f'scaling.weights={weights}: one weight for each of scaling.judged, or () for '
      'equal ones'
    )
  return {n: w / sum(weights) for n, w in zip(judged, weights)}


def size(run: Mapping) -> tuple[float, float]:
  """(parameters, tokens) whose 6ND is the FLOPs of a run, in any convention."""
  return run['flops_per_token'] / 6, run['tokens']


def arrays(runs: Sequence[Mapping]) -> dict[str, np.ndarray]:
  """{params, tokens, nll, accuracy} of runs, float [runs], for predict.forecast."""
  sizes = np.array([size(r) for r in runs], float)
  return {
    'params': sizes[:, 0],
    'tokens': sizes[:, 1],
    'nll': np.array([r['answer_nll'] for r in runs]),
    'accuracy': np.array([r['accuracy'] for r in runs]),
  }


def on(runs: Sequence[Mapping], benchmark: str) -> dict[str, np.ndarray]:
  """`arrays` of the scores of runs on one benchmark of their `answers`."""
  return arrays([r | r['answers'][benchmark] for r in runs])


def mean(
  values: Mapping[str, float | np.ndarray], weights: Mapping[str, float]
) -> float | np.ndarray:
  """Weighted mean of {benchmark: value or array}."""
  return sum(w * values[n] for n, w in weights.items())


def best(runs: Sequence[Mapping], weights: Mapping[str, float]) -> list[Mapping]:
  """The run of every budget with the lowest mean NLL of the right answers.

  It is the same for all benchmarks, as a mix is used for one model.
  """

  def score(run):
    return mean({n: run['answers'][n]['answer_nll'] for n in weights}, weights)

  return [
    min((r for r in runs if r['budget'] == c), key=score)
    for c in sorted({r['budget'] for r in runs})
  ]


def forecasts(
  runs: Mapping[str, Sequence[Mapping]],
  chance: float,
  weights: Mapping[str, float],
  kind: str = 'linear',
  samples: int = 300,
) -> dict[str, dict[str, predict.Forecast]]:
  """{mix: {benchmark: Forecast}}.

  FLOPs -> NLL is fitted to the best run of every budget of a mix; NLL -> accuracy is a
  property of the benchmark, and fitted to the runs of all mixes. So is the noise of a
  run: few budgets of one mix leave it unknown.

  Args:
    runs: dict mix -> runs with budget, tokens, flops_per_token and answers: benchmark
      -> answer_nll, accuracy.
  """
  fits, every = {}, [r for name in runs for r in runs[name]]
  chosen = [best(r, weights) for r in runs.values()]
  spread = {b: _noise([on(rows, b) for rows in chosen], kind) for b in weights}
  for i, name in enumerate(runs):
    models = best(runs[name], weights)
    # One seed for all benchmarks: the errors of one run in several are drawn together.
    fits[name] = {
      b: predict.forecast(
        on(models, b),
        on(every, b),
        chance,
        kind,
        samples=samples,
        seed=i,
        spread=spread[b],
      )
      for b in weights
    }
  common = next(iter(fits.values()))
  for name in fits:  # a sample has one sigmoid for all mixes
    for b, first in common.items():
      own = fits[name][b]
      scales = own.scales[0], first.scales[1]
      fits[name][b] = dataclasses.replace(
        own, sigmoid=first.sigmoid, sigmoids=first.sigmoids, scales=scales
      )
  return fits


def _noise(mixes, kind):
  """(standard deviation, degrees of freedom) of the NLL of a run, over all mixes."""
  squares, free = 0.0, 0
  for m in mixes:
    curve = predict.fit_loss(m['params'], m['tokens'], m['nll'], kind)
    squares += float(np.sum((m['nll'] - curve(m['params'], m['tokens'])) ** 2))
    free += len(m['nll']) - len(curve.values) - len(curve.exponents)
  return (squares / max(free, 1)) ** 0.5, max(free, 1)


def rank(
  found: Mapping[str, Mapping[str, predict.Forecast]],
  runs: Mapping[str, Sequence[Mapping]],
  flops: float,
  weights: Mapping[str, float],
) -> list[dict]:
  """Candidates by predicted mean accuracy at `flops`, the best first.

  Args:
    found: of `forecasts(runs, ...)`.
    flops: of the large model, which has as many tokens a parameter as the best run of
      the largest budget.

  Returns:
    list of dicts: mix, accuracy (of the mean: value, low, high), benchmarks (name ->
    nll and accuracy, each value, low, high), best_share: of bootstrap samples in which
    the mix has the highest mean. Equal accuracies are ordered by NLL, lowest first.
  """
  rows, scores, losses = [], [], []
  for name in found:
    model = scaled(best(runs[name], weights)[-1], flops)
    rows.append({'mix': name, **predicted(found[name], model, weights)})
    draws = {b: predict.draws(f, *model, noise=False) for b, f in found[name].items()}
    losses.append(mean({b: d[0] for b, d in draws.items()}, weights))
    scores.append(mean({b: d[1] for b, d in draws.items()}, weights))
  order = np.lexsort((np.array(losses), -np.round(np.array(scores), 6)), axis=0)
  for i, row in enumerate(rows):
    row['best_share'] = float(np.mean(order[0] == i))

  def key(row):
    nll = mean({b: row['benchmarks'][b]['nll'][0] for b in weights}, weights)
    return -round(row['accuracy'][0], 6), nll

  return sorted(rows, key=key)


def predicted(
  found: Mapping[str, predict.Forecast],
  model: tuple[float, float],
  weights: Mapping[str, float],
) -> dict:
  """accuracy (mean) and benchmarks of one mix at `model` (parameters, tokens)."""
  each = {b: predict.predict(f, *model) for b, f in found.items()}
  draws = mean({b: predict.draws(f, *model)[1] for b, f in found.items()}, weights)
  value = float(mean({b: v['accuracy'][0] for b, v in each.items()}, weights))
  return {'accuracy': (value, *predict.interval(draws)), 'benchmarks': each}


def compare(
  found: Mapping[str, Mapping[str, predict.Forecast]],
  held: Mapping[str, Sequence[Mapping]],
  weights: Mapping[str, float],
) -> dict:
  """Prediction against measurement at budgets that were not fitted.

  held: dict mix -> its runs of one budget. Returns a dict: budget, mixes (list of
  dicts, the best measured first: mix, predicted, measured, benchmarks), pick, regret:
  accuracy lost by it against the mix that measures best.
  """
  rows = []
  for name in found:
    run = best(held[name], weights)[-1]
    row = {'mix': name, 'flops': run['flops_per_token'] * run['tokens']}
    row['predicted'] = predicted(found[name], size(run), weights)
    row['measured'] = {b: run['answers'][b] for b in weights}
    score = {b: run['answers'][b]['accuracy'] for b in weights}
    rows.append(row | {'accuracy': float(mean(score, weights))})
  rows.sort(key=lambda r: -r['accuracy'])
  pick = max(rows, key=lambda r: r['predicted']['accuracy'][0])
  return {
    'budget': next(iter(held.values()))[0]['budget'],
    'mixes': rows,
    'pick': pick['mix'],
    'regret': rows[0]['accuracy'] - pick['accuracy'],
  }


def scaled(run: Mapping, flops: float) -> tuple[float, float]:
  """(parameters, tokens) at `flops`, in the proportion of `run`."""
  params, tokens = size(run)
  factor = (flops / (6 * params * tokens)) ** 0.5
  return params * factor, tokens * factor


def flat(row: Mapping) -> dict:
  """A row of the ranking as one line of a table."""
  line = {'mix': row['mix'], 'best_share': row['best_share']}
  columns = {'accuracy': row['accuracy']}
  for benchmark, values in row['benchmarks'].items():
    columns |= {f'{benchmark}_{k}': values[k] for k in ('accuracy', 'nll')}
  for field, values in columns.items():
    for name, value in zip((field, f'{field}_low', f'{field}_high'), values):
      line[name] = value
  return line
