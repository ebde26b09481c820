"""Scaling laws: planted values come back, the paper's point, the ladder, bad input."""

import dataclasses
import importlib
import json
import math

import numpy as np
import pytest

from llama3_jax import config as configs
from llama3_jax.base.errors import UserError
from llama3_jax.model import flops
from llama3_jax.model import llama
from llama3_jax.scaling import benchmarks
from llama3_jax.scaling import isoflop
from llama3_jax.scaling import ladder
from llama3_jax.scaling import measured
from llama3_jax.scaling import mixes
from llama3_jax.scaling import predict

TOY = importlib.import_module('configs.scaling').CPU
BASE = dataclasses.replace(llama.TINY, vocab_size=768)


def planted(alpha=0.537, a=0.299, noise=2e-4, seed=0, sizes=11):
  """Runs whose optimum at C is a C^alpha tokens."""
  rng = np.random.default_rng(seed)
  rows = []
  for budget in ladder.BUDGETS:
    middle = math.log(a * budget**alpha)
    for x in np.linspace(-1.2, 1.5, sizes) + middle:
      loss = 1.7 + 40 * budget**-0.1 + 0.06 * (x - middle) ** 2
      loss += noise * rng.standard_normal()
      rows.append({'budget': budget, 'tokens': math.exp(x), 'loss': loss})
  return rows


def test_planted_law_comes_back_within_one_percent():
  found = isoflop.study(planted(), samples=80)
  alpha, a = found.law
  assert abs(alpha / 0.537 - 1) < 0.01 and abs(a / 0.299 - 1) < 0.01
  assert not any(p.problem for p in found.parabolas)
  assert np.allclose([p.curvature for p in found.parabolas], 0.12, rtol=0.02)
  law = isoflop.summary(found)['tokens']
  assert law['alpha_interval'][0] < 0.537 < law['alpha_interval'][1]
  e, _, beta = found.loss_law
  assert abs(e - 1.7) < 0.05 and abs(beta - 0.1) < 0.01


def test_intervals_widen_with_the_noise():
  width = []
  for noise in (1e-4, 2e-3):
    low, high = isoflop.summary(isoflop.study(planted(noise=noise), samples=60))[
      'tokens'
    ]['alpha_interval']
    width.append(high - low)
  assert 5 * width[0] < width[1]


def test_legend_constants_give_the_papers_point():
  tokens, parameters = isoflop.optimal(3.8e25, ladder.LEGEND)
  assert abs(tokens / 16.3e12 - 1) < 0.002
  assert abs(tokens / 16.55e12 - 1) < 0.05
  # 402B: the paper does not say how it counts, and 6ND gives 389B (3.8e25 / 6N*).
  assert abs(parameters / 402e9 - 1) < 0.05
  text = isoflop.optimal(3.8e25, (0.53, 0.29))[0]
  assert abs(text / 10.5e12 - 1) < 0.01


def test_vertex_outside_the_runs_is_flagged_and_left_out():
  rows = planted(noise=0)
  edge = [r for r in rows if r['budget'] == 1e20]
  low = min(r['tokens'] for r in edge)
  for r in edge:
    r['loss'] = 2 + 0.05 * math.log(r['tokens'] / low * 3) ** 2
  found = isoflop.study(rows, samples=50)
  problems = {c: p.problem for c, p in zip(found.budgets, found.parabolas)}
  assert problems.pop(1e20) == 'outside' and set(problems.values()) == {''}
  assert abs(found.law[0] - 0.537) < 1e-6
  up = isoflop.parabola([1, 2, 4, 8], [1.0, 2.0, 2.0, 1.0])
  assert up.problem == 'opens downward' and up.curvature < 0


def test_budget_with_two_sizes_is_refused():
  rows = planted()
  rows = [r for r in rows if r['budget'] > 6e18] + rows[:2]
  with pytest.raises(UserError, match='6e.18 FLOPs has 2 sizes'):
    isoflop.study(rows)


def test_one_budget_is_too_few():
  with pytest.raises(UserError, match='1 of 1 budgets'):
    isoflop.study([r for r in planted() if r['budget'] == 1e20])


def test_published_exponents_of_measured_runs(assets):
  rows = measured.isoflop(
    assets / 'scaling_isoflop', {'hparams': 'tuned', 'param_count': 'standard'}
  )
  assert len(rows) == 116
  for window in (0, 5, 7):  # however wide a curve is taken
    found = isoflop.study(rows, window, samples=20)
    assert abs(found.law[0] - 0.483) < 0.02
    assert abs(found.parameter_law[0] - 0.518) < 0.02


def test_two_steps_recover_planted_values():
  rng = np.random.default_rng(0)
  params = np.geomspace(1e8, 3e9, 8).repeat(3)
  tokens = params * np.tile((10, 20, 80), 8)
  c = 6 * params * tokens
  nll = 2.9 - 0.04 * np.log(c) + 1e-4 * rng.standard_normal(len(c))
  truth = predict.Sigmoid(0.25, 0.95, 12.0, 0.95)
  accuracy = truth(nll) + 1e-3 * rng.standard_normal(len(c))
  models = dict(params=params, tokens=tokens, nll=nll, accuracy=accuracy)
  found = predict.forecast(models, chance=0.25, samples=100)
  slope = found.curve.values[1]
  assert abs(slope / -0.04 - 1) < 0.01
  target = 7e10, 1.5e12
  want = 2.9 - 0.04 * math.log(6 * target[0] * target[1])
  guess = predict.predict(found, *target)
  assert abs(guess['nll'][0] - want) < 2e-3
  assert abs(guess['accuracy'][0] - float(truth(want))) < 0.02
  for field, value in (('nll', want), ('accuracy', float(truth(want)))):
    middle, low, high = guess[field]
    assert low < middle < high
    assert 2 * low - high < value < 2 * high - low  # 1 interval in 20 misses


@pytest.mark.parametrize('kind', ['power', 'chinchilla'])
def test_laws_with_an_offset_recover_planted_values(kind):
  params = np.geomspace(1e8, 3e9, 6).repeat(4)
  tokens = params * np.tile((5, 20, 80, 300), 6)
  c = 6 * params * tokens
  nll = 0.5 + 30 * c**-0.1
  if kind == 'chinchilla':
    nll = 0.5 + 50 * params**-0.25 + 80 * tokens**-0.25
  curve = predict.fit_loss(params, tokens, nll, kind)
  big = 1e11, 1e13
  want = 0.5 + 30 * (6 * big[0] * big[1]) ** -0.1
  if kind == 'chinchilla':
    want = 0.5 + 50 * big[0] ** -0.25 + 80 * big[1] ** -0.25
  assert abs(float(curve(*big)) / want - 1) < 0.02


def test_sigmoid_is_bounded_by_chance_and_one():
  nll = np.linspace(0.5, 1.5, 12)
  fit = predict.fit_accuracy(nll, np.full(12, 0.02), 0.25)
  assert fit.floor >= 0.2
  fit = predict.fit_accuracy(nll, 1.4 - 0.7 * nll, 0.25)
  assert fit.ceiling <= 1 and fit(0.0) <= 1
  fixed = predict.fit_accuracy(nll, predict.Sigmoid(0.25, 1, 5, 0.8)(nll), 0.25, 1.0)
  assert abs(fixed.ceiling - 1) < 1e-6 and abs(fixed.slope - 5) < 0.1


def test_too_few_models_are_refused():
  with pytest.raises(UserError, match='needs 3 models'):
    predict.fit_loss([1e8, 2e8], [1e9, 2e9], [1.0, 0.9])
  with pytest.raises(UserError, match='4 models'):
    predict.fit_accuracy([1, 2, 3], [0.2, 0.3, 0.4])
  with pytest.raises(UserError, match='scaling.step'):
    predict.fit_loss([1e8, 2e8, 4e8], [1e9] * 3, [1.0, 0.9, 0.8], 'cubic')


def test_paper_ladder():
  """Budgets, sizes, rates and batches are the paper's; 6ND is what a run costs."""
  plan = dataclasses.replace(ladder.Ladder(), convention='6nd_non_embedding')
  runs = ladder.runs(plan, llama.SIZES['8b_april'])
  assert len(runs) == 10 * plan.points
  sizes = [flops.non_embedding(r.model) for r in runs]
  shapes = [ladder.shape(n, plan, runs[0].model) for n in plan.sizes]
  every = {flops.non_embedding(m) for m in shapes}
  assert np.allclose(sorted(every), plan.sizes, rtol=0.1) and set(sizes) <= every
  for r, n in zip(runs, sizes):
    assert abs(6 * n * r.tokens / r.budget - 1) < 0.01
    assert 2e-4 <= r.peak <= 4e-4 and r.warmup <= 2000
    assert 240_000 < r.batch * r.length < 4.3e6
    assert r.model.n_heads * r.model.d_head == r.model.d_model
    assert r.model.n_heads == 4 * r.model.n_kv_heads
  batches = {b: {r.batch for r in runs if r.budget == b} for b in ladder.BUDGETS}
  assert all(len(b) == 1 for b in batches.values())
  assert runs[0].peak > runs[-1].peak
  # The optimum that the paper found lies inside every budget's sizes.
  for b in ladder.BUDGETS:
    tokens = [r.tokens for r in runs if r.budget == b]
    assert min(tokens) < isoflop.optimal(b, ladder.LEGEND)[0] < max(tokens)


def test_flops_conventions():
  model = llama.SIZES['405b']
  assert abs(flops.non_embedding(model) - 401.65e9) < 5e6
  n = llama.count(model)
  assert flops.training(model, 8192, '6nd') == 6 * n
  exact = flops.training(model, 8192, 'exact')
  assert exact == flops.per_token(model, 8192)
  assert flops.training(model, 8192, '6nd_non_embedding') < exact


def test_runs_are_members_of_a_sweep():
  module = importlib.import_module('configs.scaling')
  flat = configs.flatten(module.get_config('cpu'))
  members = list(module.sweep('cpu'))
  assert len(members) == 25
  for m in members:
    assert set(m) <= set(flat) and m['experiment'] == 'pretrain'
  with pytest.raises(UserError, match='no ladder'):
    list(module.sweep('isoflop'))


def finish(folder, index, run, loss=3.0, tokens=None):
  path = folder / str(index)
  path.mkdir()
  flat = {f'model.{n}': getattr(run.model, n) for n in ladder.SHAPE}
  flat |= {'train.steps': run.steps, 'train.batch': run.batch}
  (path / 'config.json').write_text(json.dumps({'config': flat}))
  found = {'eval_loss': {'eval/code': loss, 'eval_loss': loss}}
  found['tokens'] = tokens or run.tokens
  (path / 'results.json').write_text(json.dumps(found))


def test_collect_names_the_missing_runs(tmp_path):
  runs = ladder.runs(dataclasses.replace(TOY, budgets=TOY.budgets[:1]), BASE)
  for i in (0, 1, 3):
    finish(tmp_path, i, runs[i])
  with pytest.raises(UserError, match=r'2 of 5 runs are not finished \(2, 4\)'):
    ladder.collect(tmp_path, runs, 'exact')
  for i in (2, 4):
    finish(tmp_path, i, runs[i])
  rows = ladder.collect(tmp_path, runs, 'exact')
  assert [r['tokens'] for r in rows] == [r.tokens for r in runs]
  for r in rows:
    assert abs(r['flops'] / r['budget'] - 1) < 0.01 and r['eval'] == {'code': 3.0}
  with pytest.raises(UserError, match='another ladder'):
    ladder.collect(tmp_path, runs[::-1], 'exact')


@pytest.mark.parametrize(
  'change,words',
  [
    ({'points': 2}, 'scaling.points=2'),
    ({'budgets': (2e11, 1e11)}, 'scaling.budgets'),
    ({'convention': 'macs'}, 'scaling.convention'),
    ({'sizes': (-1.0, 1e3, 1e4)}, 'positive'),
  ],
)
def test_impossible_ladders_are_refused(change, words):
  plan = dataclasses.replace(TOY, **({'points': 3} | change))
  with pytest.raises(UserError, match=words):
    ladder.runs(plan, BASE)


def test_ladder_of_measured_runs_predicts_its_largest_size(assets):
  runs = measured.ladder(assets / 'scaling_ladder')
  assert len(runs) == 25
  sizes = sorted({r['params'] for r in runs})
  assert np.allclose(sizes, [190.4e6, 371.3e6, 758.2e6, 1279.5e6, 3169.6e6], rtol=1e-3)
  for r in runs:  # a few of the 22 benchmarks
    r['scores'] = {n: r['scores'][n] for n in ('mmlu_test', 'piqa_val', 'csqa_val')}
  method = benchmarks.Method('power', 'free', 'final')
  train, test = benchmarks.split(runs, '3B')
  assert len(train) == 20 and len(test) == 5
  accuracy, nll = benchmarks._errors(train, test, method, 0.1)
  assert accuracy < 0.02 and nll < 0.04
  rows, _ = benchmarks.table(runs, (('7B', 6.9e9, 3.9e12),), method, 0.1, 50)
  assert len(rows) == 3
  for r in rows:
    assert r['accuracy_low'] <= r['accuracy'] <= r['accuracy_high']
    assert measured.chance(r['benchmark']) - 0.05 <= r['accuracy'] <= 1


def test_bad_tables_are_one_line(tmp_path):
  with pytest.raises(UserError, match='no such folder'):
    measured.isoflop(tmp_path / 'none', {})
  with pytest.raises(UserError, match='0 .csv files'):
    measured.isoflop(tmp_path, {})
  (tmp_path / 'a.csv').write_text('flops,params,tokens\n1e16,1e6,1e9\n')
  with pytest.raises(UserError, match="column 'loss' is missing"):
    measured.isoflop(tmp_path, {})
  (tmp_path / 'a.csv').write_text('flops,params,tokens,loss\n1e16,1e6,1e9,x\n')
  with pytest.raises(UserError, match="loss is 'x'"):
    measured.isoflop(tmp_path, {})
  with pytest.raises(UserError, match='no files'):
    measured.ladder(tmp_path)
  (tmp_path / '1B-1xC.csv.xz').write_bytes(b'not xz')
  with pytest.raises(UserError, match='cannot be read'):
    measured.ladder(tmp_path)


def run_of(budget, **answers):
  """A measured run as mixes takes it; answers: benchmark -> (NLL, accuracy)."""
  n = math.sqrt(budget / 120)
  found = {'budget': budget, 'tokens': 20 * n, 'flops_per_token': 6 * n}
  answers = {b: {'answer_nll': x, 'accuracy': a} for b, (x, a) in answers.items()}
  return found | {'answers': answers}


def planted_mixes(lines, truths):
  """Runs of mixes: lines[mix][benchmark] = (NLL at 1e18 FLOPs, its fall a unit of log
  C); truths[benchmark]: its Sigmoid. A second, worse size a budget."""
  runs = {}
  for name, own in lines.items():
    runs[name] = []
    for budget in (1e18, 3e18, 1e19, 3e19, 1e20):
      for worse in (0, 0.1):
        x = {b: a - k * math.log(budget / 1e18) + worse for b, (a, k) in own.items()}
        scores = {b: (v, float(truths[b](v))) for b, v in x.items()}
        runs[name].append(run_of(budget, **scores))
  return runs


def test_the_mix_that_scales_better_is_picked():
  """It is worse at every measured budget, and better at the large one."""
  truth = predict.Sigmoid(0.25, 1.0, 8.0, 0.9)
  lines = {'flat': {'x': (1.2, 0.02)}, 'steep': {'x': (1.29, 0.035)}}
  runs, weights = planted_mixes(lines, {'x': truth}), mixes.shares(['x'])
  now = {n: mixes.best(r, weights)[-1]['answers']['x'] for n, r in runs.items()}
  assert now['flat']['answer_nll'] < now['steep']['answer_nll']
  found = mixes.forecasts(runs, 0.25, weights, samples=50)
  ranked = mixes.rank(found, runs, 1e24, weights)
  assert [r['mix'] for r in ranked] == ['steep', 'flat']
  assert ranked[0]['best_share'] == 1
  truth_at = float(truth(1.29 - 0.035 * math.log(1e6)))
  assert abs(ranked[0]['accuracy'][0] - truth_at) < 0.03


def test_every_benchmark_has_its_own_curve():
  """At one NLL the benchmarks' accuracies are far apart: `code` has the lower mean NLL
  and `math` the higher accuracy, which one sigmoid for both would not show."""
  truths = {'code': predict.Sigmoid(0.25, 0.6, 6.0, 1.6)}
  truths['math'] = predict.Sigmoid(0.25, 1.0, 10.0, 0.8)
  lines = {
    'code': {'code': (1.6, 0.08), 'math': (1.3, 0.02)},
    'math': {'code': (2.0, 0.04), 'math': (1.2, 0.04)},
  }
  runs, weights = planted_mixes(lines, truths), mixes.shares(['code', 'math'])
  found = mixes.forecasts(runs, 0.25, weights, samples=50)
  flops, want, nll = 1e23, {}, {}
  for name, own in lines.items():
    at = {b: a - k * math.log(flops / 1e18) for b, (a, k) in own.items()}
    want[name] = {b: float(truths[b](v)) for b, v in at.items()}
    nll[name] = sum(at.values())
  assert nll['code'] < nll['math']
  ranked = mixes.rank(found, runs, flops, weights)
  assert [r['mix'] for r in ranked] == ['math', 'code']
  assert ranked[0]['best_share'] > 0.9
  assert sum(r['best_share'] for r in ranked) == 1
  for row in ranked:
    for b, value in want[row['mix']].items():
      assert abs(row['benchmarks'][b]['accuracy'][0] - value) < 0.05
    low, high = row['accuracy'][1:]
    assert low <= sum(want[row['mix']].values()) / 2 <= high or high - low < 0.02
  only = mixes.shares(['code', 'math'], (1.0, 0.0))
  assert mixes.rank(found, runs, flops, only)[0]['mix'] == 'code'
  check = mixes.compare(
    found, {n: [r for r in v if r['budget'] == 1e20] for n, v in runs.items()}, weights
  )
  assert check['budget'] == 1e20 and 0 <= check['regret'] < 0.02


def test_weights_of_benchmarks_are_checked():
  assert mixes.shares(['a', 'b'], (3, 1)) == {'a': 0.75, 'b': 0.25}
  for judged, weights in (([], ()), (['a', 'a'], ()), (['a'], (1, 2)), (['a'], (0,))):
    with pytest.raises(UserError, match='scaling.(judged|weights)'):
      mixes.shares(judged, weights)


def test_candidates_are_checked():
  assert mixes.check((('a', (('x', 1),)), ('b', (('y', 2),))))[1][1] == {'y': 2.0}
  with pytest.raises(UserError, match='2 or more'):
    mixes.check((('a', (('x', 1),)),))
  with pytest.raises(UserError, match='weights'):
    mixes.check((('a', (('x', 0),)), ('b', (('y', 1),))))
