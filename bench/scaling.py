"""Intervals of the scaling laws against what runs measured; a known better mix.

python bench/scaling.py --ladder=FOLDER [--seeds=200]

FOLDER is the measured ladder, files <size>-<multiple>xC.csv.xz. First each size is left
out and predicted from the others, then each from the smaller ones; intervals are
calibrated without the size that is predicted. Then planted laws of few runs are drawn
again and again, and two mixes of which one is better by a known amount. Exits with 1
where less than 90% or more than 99% of all 95% intervals hold, less than 85% of those
of one family of benchmarks, or the better mix is found in less than 90% of draws, or
with a mean share of samples below 0.8.
"""

import argparse
import sys

import numpy as np

from llama3_jax.scaling import benchmarks
from llama3_jax.scaling import measured
from llama3_jax.scaling import mixes
from llama3_jax.scaling import predict

TRUTH = predict.Sigmoid(0.25, 0.95, 6.0, 1.0)
NOISE = 0.01  # of a run: NLL, nats, and accuracy
CASES = (('power', 5), ('power', 8), ('linear', 6), ('linear', 25))
METHOD = benchmarks.METHODS[0]
FAMILY = 0.85  # least share of the intervals of a family


def inside(row, field, value):
  return row[f'{field}_low'] <= value <= row[f'{field}_high']


def real(folder):
  """Prints coverage by size and by family; whether a bar is missed."""
  runs = measured.ladder(folder, 3)
  order = [s for _, s in sorted({(r['params'], r['size']) for r in runs})]
  cases = [(s, [o for o in order if o != s]) for s in order]
  cases += [(order[i], order[:i]) for i in range(2, len(order) - 1)]
  every, families = {'accuracy': [], 'nll': []}, {}
  print('| predicted | fitted | targets | accuracy held | NLL held |')
  print('|---|---|---|---|---|')
  for size, fitted in cases:
    hits = cover(runs, size, fitted, families)
    for field, found in hits.items():
      every[field] += found
    shown = [f'{np.mean(hits[f]):.1%}' for f in every]
    line = [size, ', '.join(fitted), str(len(hits['nll'])), *shown]
    print(f'| {" | ".join(line)} |', flush=True)
  shares = [np.mean(every[f]) for f in every]
  shown = ' | '.join(f'{s:.1%}' for s in shares)
  print(f'| all | | {len(every["nll"])} | {shown} |\n')
  print('| family | accuracy held | mean error, points | NLL held | mean error |')
  print('|---|---|---|---|---|')
  missed = any(not 0.9 <= s <= 0.99 for s in shares)
  for name, rows in sorted(families.items()):
    held, wrong, other, off = np.mean(rows, 0)
    print(f'| {name} | {held:.1%} | {100 * wrong:.1f} | {other:.1%} | {off:.1%} |')
    missed |= min(held, other) < FAMILY
  return missed


def cover(runs, size, fitted, families):
  train = [r for r in runs if r['size'] in fitted]
  test = {r['name']: r for r in runs if r['size'] == size}
  targets = [(n, r['params'], r['tokens']) for n, r in test.items()]
  hits = {'accuracy': [], 'nll': []}
  for row in benchmarks.table(train, targets, METHOD, 0.1, 300)[0]:
    nll, accuracy = test[row['target']]['scores'][row['benchmark']]
    held = inside(row, 'accuracy', accuracy), inside(row, 'nll', nll)
    hits['accuracy'].append(held[0])
    hits['nll'].append(held[1])
    wrong = abs(row['accuracy'] - accuracy), abs(row['nll'] / nll - 1)
    family = benchmarks.family(row['benchmark'])
    families.setdefault(family, []).append((held[0], wrong[0], held[1], wrong[1]))
  return hits


def law(kind, params, tokens):
  c = 6 * np.asarray(params) * tokens
  return 3 - 0.04 * np.log(c) if kind == 'linear' else 0.4 + 40 * c**-0.09


def planted(seeds):
  """Prints coverage of a run 11 times beyond the fit; whether a bar is missed."""
  print(
    '\n| planted law | runs | seeds | accuracy held | NLL held |\n|---|---|---|---|---|'
  )
  missed = False
  for kind, n in CASES:
    hits = []
    for seed in range(seeds):
      rng = np.random.default_rng(seed)
      params = np.geomspace(1e8, 3e9, n + 1)
      params[-1] = 1e10
      nll = law(kind, params, 20 * params) + NOISE * rng.standard_normal(n + 1)
      accuracy = TRUTH(nll) + NOISE * rng.standard_normal(n + 1)
      models = dict(params=params, tokens=20 * params, nll=nll, accuracy=accuracy)
      seen = {k: v[:-1] for k, v in models.items()}
      found = predict.forecast(seen, chance=0.25, kind=kind, samples=150, seed=seed)
      guess = predict.predict(found, params[-1], 20 * params[-1])
      values = {'accuracy': accuracy[-1], 'nll': nll[-1]}
      hits.append([guess[f][1] <= v <= guess[f][2] for f, v in values.items()])
    shares = np.mean(hits, 0)
    missed |= any(not 0.9 <= s <= 0.99 for s in shares)
    shown = ' | '.join(f'{s:.1%}' for s in shares)
    print(f'| {kind} | {n} | {seeds} | {shown} |', flush=True)
  return missed


def mix_runs(rng, gain, budgets):
  """{mix: runs}: the exponent of `better` is larger by `gain` of that of `worse`."""
  runs = {}
  for name, exponent in (('better', 0.09 * (1 + gain)), ('worse', 0.09)):
    runs[name] = []
    for c in budgets:
      tokens = (c * 20 / 6) ** 0.5
      nll = 0.4 + 0.9 * (c / 1e18) ** -exponent + NOISE / 4 * rng.standard_normal()
      accuracy = float(TRUTH(nll)) + NOISE / 2 * rng.standard_normal()
      scores = {'all': {'answer_nll': nll, 'accuracy': accuracy}}
      row = {'budget': c, 'tokens': tokens, 'flops_per_token': c / tokens}
      runs[name].append(row | {'answers': scores})
  return runs


def ranking(seeds):
  """Prints how often the better of two mixes is found; whether a bar is missed."""
  print('\n| mixes: budgets | gain | seeds | better found | mean best share |')
  print('|---|---|---|---|---|')
  missed, weights = False, {'all': 1.0}
  for count, gain in ((4, 0.1), (6, 0.1), (6, 0.0)):
    budgets = np.geomspace(1e18, 1e21, count)
    picks, shares = [], []
    for seed in range(seeds):
      runs = mix_runs(np.random.default_rng(seed), gain, budgets)
      found = mixes.forecasts(runs, 0.25, weights, 'power', 100)
      ranked = mixes.rank(found, runs, 1e22, weights)
      picks.append(ranked[0]['mix'] == 'better')
      shares += [r['best_share'] for r in ranked if r['mix'] == 'better']
    if gain and count == 6:
      missed |= np.mean(picks) < 0.9 or np.mean(shares) < 0.8
    shown = f'{np.mean(picks):.1%} | {np.mean(shares):.2f}'
    print(f'| {count} | {gain:.0%} | {seeds} | {shown} |', flush=True)
  return missed


def main():
  p = argparse.ArgumentParser()
  p.add_argument('--ladder', required=True)
  p.add_argument('--seeds', type=int, default=200)
  a = p.parse_args()
  missed = [real(a.ladder), planted(a.seeds), ranking(max(a.seeds // 4, 1))]
  return int(any(missed))


if __name__ == '__main__':
  sys.exit(main())
