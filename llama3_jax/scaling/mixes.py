"""Which data mix would make the best large model? (sections 3.1.2, 3.2.2)

For every candidate small models are trained; on every benchmark the two-step prediction
says what a large one would score, and the mean over benchmarks ranks the candidates.
"""

import dataclasses

import numpy as np

from llama3_jax.base.errors import UserError
from llama3_jax.scaling import predict


def check(candidates):
  """[(name, {source: weight})] of ((name, ((source, weight), ...)), ...)."""
  found = []
  for name, mix in candidates:
    mix = dict(mix)
    if not mix or min(mix.values()) < 0 or sum(mix.values()) <= 0:
      raise UserError(f'scaling.candidates: the weights of {name!r} are {mix}')
    found.append((str(name), {n: float(w) for n, w in mix.items()}))
  names = [n for n, _ in found]
  if len(found) < 2 or len(set(names)) < len(names):
    raise UserError(f'scaling.candidates: name 2 or more different mixes, not {names}')
  return found


def shares(judged, weights=()):
  """{benchmark: its share of the mean}; weights: one each, (): equal."""
  judged, weights = list(judged), list(weights) or [1.0] * len(judged)
  if not judged or len(set(judged)) < len(judged):
    raise UserError(f'scaling.judged={judged}: name 1 or more different sources')
  if len(weights) != len(judged) or min(weights) < 0 or sum(weights) <= 0:
    raise UserError(
      f'scaling.weights={weights}: one weight for each of scaling.judged, or () for '
      'equal ones'
    )
  return {n: w / sum(weights) for n, w in zip(judged, weights)}


def size(run):
  """(parameters, tokens) whose 6ND is the FLOPs of a run, however they are counted."""
  return run['flops_per_token'] / 6, run['tokens']


def arrays(runs):
  """params, tokens, nll, accuracy of runs, as predict.forecast takes them."""
  sizes = np.array([size(r) for r in runs], float)
  return {
    'params': sizes[:, 0],
    'tokens': sizes[:, 1],
    'nll': np.array([r['answer_nll'] for r in runs]),
    'accuracy': np.array([r['accuracy'] for r in runs]),
  }


def on(runs, benchmark):
  """`arrays` of what runs score on one benchmark of their `answers`."""
  return arrays([r | r['answers'][benchmark] for r in runs])


def mean(values, weights):
  """Weighted mean of {benchmark: value or array}."""
  return sum(w * values[n] for n, w in weights.items())


def best(runs, weights):
  """The run of every budget with the lowest mean NLL of the right answers.

  One for all benchmarks: it is one model that a mix would be used for.
  """

  def score(run):
    return mean({n: run['answers'][n]['answer_nll'] for n in weights}, weights)

  return [
    min((r for r in runs if r['budget'] == c), key=score)
    for c in sorted({r['budget'] for r in runs})
  ]


def forecasts(runs, chance, weights, kind='linear', samples=300):
  """{mix: {benchmark: Forecast}}.

  FLOPs -> NLL is fitted to the best run of every budget of a mix; NLL -> accuracy is a
  property of the benchmark, and fitted to the runs of all mixes.

  Args:
    runs: dict mix -> runs with budget, tokens, flops_per_token and answers: benchmark
      -> answer_nll, accuracy.
  """
  found, every = {}, [r for name in runs for r in runs[name]]
  for i, name in enumerate(runs):
    models = best(runs[name], weights)
    # One seed for all benchmarks: what one run misses in several is drawn together.
    found[name] = {
      b: predict.forecast(
        on(models, b), on(every, b), chance, kind, samples=samples, seed=i
      )
      for b in weights
    }
  common = next(iter(found.values()))
  for name in found:  # a sample has one sigmoid, whatever the mix
    for b, first in common.items():
      found[name][b] = dataclasses.replace(
        found[name][b], sigmoid=first.sigmoid, sigmoids=first.sigmoids
      )
  return found


def rank(found, runs, flops, weights):
  """Candidates by predicted mean accuracy at `flops`, the best first.

  Args:
    found: of `forecasts(runs, ...)`.
    flops: of the large model, which has as many tokens a parameter as the best run of
      the largest budget.

  Returns:
    list of dicts: mix, accuracy (of the mean: value, low, high), benchmarks (name ->
    nll and accuracy, each value, low, high), best_share: of bootstrap samples in which
    the mix has the highest mean. Where accuracies are equal the lower NLL goes first.
  """
  rows, scores, losses = [], [], []
  for name in found:
    model = scaled(best(runs[name], weights)[-1], flops)
    rows.append({'mix': name, **predicted(found[name], model, weights)})
    drawn = {b: predict.draws(f, *model, noise=False) for b, f in found[name].items()}
    losses.append(mean({b: d[0] for b, d in drawn.items()}, weights))
    scores.append(mean({b: d[1] for b, d in drawn.items()}, weights))
  order = np.lexsort((np.array(losses), -np.round(np.array(scores), 6)), axis=0)
  for i, row in enumerate(rows):
    row['best_share'] = float(np.mean(order[0] == i))

  def key(row):
    nll = mean({b: row['benchmarks'][b]['nll'][0] for b in weights}, weights)
    return -round(row['accuracy'][0], 6), nll

  return sorted(rows, key=key)


def predicted(found, model, weights):
  """accuracy (mean) and benchmarks of one mix at `model` (parameters, tokens)."""
  each = {b: predict.predict(f, *model) for b, f in found.items()}
  drawn = mean({b: predict.draws(f, *model)[1] for b, f in found.items()}, weights)
  value = float(mean({b: v['accuracy'][0] for b, v in each.items()}, weights))
  return {'accuracy': (value, *predict.interval(drawn)), 'benchmarks': each}


def compare(found, held, weights):
  """Prediction against measurement at budgets that no fit saw.

  held: dict mix -> its runs of one budget. Returns: dict: budget, mixes (list of
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


def scaled(run, flops):
  """(parameters, tokens) of `flops`, in the proportion of `run`."""
  params, tokens = size(run)
  factor = (flops / (6 * params * tokens)) ** 0.5
  return params * factor, tokens * factor


def flat(row):
  """A row of the ranking as one line of a table."""
  found = {'mix': row['mix'], 'best_share': row['best_share']}
  columns = {'accuracy': row['accuracy']}
  for benchmark, values in row['benchmarks'].items():
    columns |= {f'{benchmark}_{k}': values[k] for k in ('accuracy', 'nll')}
  for field, values in columns.items():
    for name, value in zip((field, f'{field}_low', f'{field}_high'), values):
      found[name] = value
  return found
