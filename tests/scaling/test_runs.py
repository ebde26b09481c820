"""Scaling studies: scores of answers, value of data, and a study without training."""

import json
import math
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import experiments
from configs import scaling as recipe
from experiments import scaling
from llama3_jax import config as configs
from llama3_jax.base import files
from llama3_jax.base.errors import UserError
from llama3_jax.config import ModelConfig
from llama3_jax.model import llama
from llama3_jax.scaling import answers
from llama3_jax.scaling import ladder
from llama3_jax.scaling import valuation
from llama3_jax.train import schedule

MODEL = ModelConfig(1, 16, 2, 1, 8, 32, vocab_size=40, dtype='float32')


@pytest.fixture(scope='module')
def params():
  return llama.init(jax.random.key(0), MODEL)


@pytest.mark.parametrize('name', ['isoflop', 'cpu'])
def test_every_member_decays_to_its_last_step_after_a_share_of_warm_up(name):
  plan = recipe.CPU if name == 'cpu' else ladder.Ladder(batch=(25_000, 400_000))
  runs = ladder.runs(plan, llama.SIZES['8b_april'] if name != 'cpu' else llama.TINY)
  for run in runs:
    changes = ladder.overrides(run, plan)
    steps = changes['train.steps']
    assert changes['optim.decay'] == steps == run.steps
    assert changes['optim.peak'] == run.peak and changes['optim.floor'] == plan.floor
    wanted = max(1, round(min(plan.warmup, plan.warmup_share * steps)))
    assert changes['optim.warmup'] == wanted <= plan.warmup
    assert run.tokens == steps * changes['train.batch'] * changes['train.length']
  share = [r.warmup / r.steps for r in runs if r.warmup < plan.warmup]
  assert share and max(share) < 1.5 * plan.warmup_share
  if name != 'cpu':
    assert any(r.warmup == plan.warmup for r in runs)  # of a long run, no more


def test_between_is_the_geometric_mean_at_the_geometric_middle():
  span, values = (1e18, 1e22), (250_000, 4_000_000)
  assert ladder.between(1e20, span, values) == pytest.approx(1_000_000)
  assert ladder.between(1e19, span, values) == pytest.approx(500_000)
  for at, value in ((1e18, 0), (1e22, 1), (1e10, 0), (1e30, 1)):  # flat beyond
    assert ladder.between(at, span, values) == pytest.approx(values[value])
  assert ladder.between(1e20, span, values[::-1]) == pytest.approx(1_000_000)
  assert ladder.between(5.0, (2.0, 2.0), values) == pytest.approx(values[0])


def test_score_is_the_log_probability_of_the_answer_a_character(params):
  prompts, given = [[1, 5, 9], [2]], [[7, 3], [4, 4, 6]]
  found = answers.score(params, prompts, given, [4, 5], MODEL, rows=4, length=8)
  for p, a, characters, value in zip(prompts, given, (4, 5), found):
    logits = llama.apply(params, jnp.array([p + a]), MODEL)[0]
    logs = jax.nn.log_softmax(logits)
    total = sum(float(logs[len(p) + i - 1, t]) for i, t in enumerate(a))
    assert abs(-total / characters - value) < 1e-5


def test_long_prompt_loses_its_beginning_and_long_answers_are_refused(params):
  long = answers.score(params, [[1] * 20 + [5, 9]], [[7]], [1], MODEL, 1, 4)
  cut = answers.score(params, [[1, 1, 5, 9]], [[7]], [1], MODEL, 1, 4)
  assert np.allclose(long, cut)
  with pytest.raises(UserError, match='answer 0 has 5 tokens'):
    answers.score(params, [[1]], [[7] * 5], [1], MODEL, 1, 4)


def test_choice_counts_the_questions_whose_right_answer_is_likeliest():
  found = answers.choose([[1.0, 2.0, 3.0], [2.0, 1.0, 3.0]])
  assert found == {'accuracy': 0.5, 'nll': 1.5}


def test_questions_are_continuations_of_held_out_text():
  documents = [np.arange(100) + 1000 * i for i in range(4)]
  decode = lambda ids: 'x' * len(ids)
  prompts, given, characters = answers.questions(documents, decode, 5, 0)
  assert len(prompts) == len(given) == 20 and set(characters) == {16}
  for q in range(5):
    asked, options = prompts[4 * q], given[4 * q : 4 * q + 4]
    assert options[0][0] == asked[-1] + 1  # the right one goes on
    assert all(o[0] // 1000 != asked[0] // 1000 for o in options[1:])
  assert answers.questions(documents, decode, 5, 0) == (prompts, given, characters)
  with pytest.raises(UserError, match='held-out documents'):
    answers.questions(documents[:1], decode, 5, 0)


def arm(rng, shift, seeds=3, rows=200):
  base = 100 + 20 * np.random.default_rng(7).standard_normal(rows)
  found = []
  for _ in range(seeds):
    nats = base + 50 * shift + 0.5 * rng.standard_normal(rows)
    found.append({'math': (nats.tolist(), [50.0] * rows)})
  return found


def test_deltas_find_a_small_planted_difference():
  """Rows differ by 0.4 nats a token; pairs show 0.02 all the same."""
  rng = np.random.default_rng(0)
  row = valuation.deltas(arm(rng, 0.0), arm(rng, -0.02), 200, arm(rng, 1.0)[0])[0]
  assert abs(row['delta'] + 0.02) < 0.002 and row['low'] < -0.02 < row['high'] < 0
  assert row['verdict'] == 'better' and abs(row['before'] - row['control'] - 1) < 0.01
  row = valuation.deltas(arm(rng, 0.0), arm(rng, 0.0), 200)[0]
  assert row['verdict'] == 'no difference shown'


def test_interval_of_few_seeds_holds_and_probability_is_that_of_help():
  """A seed moves all rows of a run; 3 seeds of each arm tell how much by chance."""
  hits, helps = [], {0.0: [], -0.02: []}
  base = np.random.default_rng(7).standard_normal(100) + 100
  for i in range(200):
    rng = np.random.default_rng(i)
    shift = (0.0, -0.02)[i % 2]
    arms = [
      [
        {'math': ((base + 50 * (s + 0.01 * rng.standard_normal())), [50.0] * 100)}
        for _ in range(3)
      ]
      for s in (0.0, shift)
    ]
    row = valuation.deltas(*arms, 200)[0]
    hits.append(row['low'] <= shift <= row['high'])
    helps[shift].append(row['helps'])
  assert 0.9 <= np.mean(hits) <= 0.99
  assert 0.4 < np.mean(helps[0.0]) < 0.6 and np.mean(helps[-0.02]) > 0.85


def test_mean_of_sources_is_judged_too():
  rng = np.random.default_rng(0)
  both = lambda a, b: [
    x | {'code': y['math']} for x, y in zip(arm(rng, a), arm(rng, b))
  ]
  rows = valuation.deltas(both(0.0, 0.0), both(-0.02, 0.06), 200)
  assert [r['source'] for r in rows] == ['math', 'code', 'mean']
  assert [r['verdict'] for r in rows] == ['better', 'worse', 'worse']
  assert [r['helps'] for r in rows] == [1.0, 0.0, 0.0]
  assert math.isclose(rows[2]['delta'], (rows[0]['delta'] + rows[1]['delta']) / 2)


def test_anneal_starts_where_the_cosine_was_and_mixes_thirty_percent():
  c = recipe.get_config('valuation')
  model = ladder.shape(1e5, recipe.CPU, configs.model_config(c.model))
  base = valuation.base(c, model)
  assert base.train.steps == 200 and base.optim.decay == 400
  treatment = valuation.anneal(base, c.scaling, 'treatment', 0, 'X')
  control = valuation.anneal(base, c.scaling, 'control', 0, 'X')
  mix = {'code': 0.7 * 0.8, 'math': 0.7 * 0.1 + 0.3, 'drill': 0.7 * 0.1}
  assert all(math.isclose(treatment.data.mix[n], w) for n, w in mix.items())
  before = {n: w for n, w in control.data.mix.items() if w}
  assert before == {'code': 0.8, 'math': 0.1, 'drill': 0.1}
  # Nothing but the mix: the same model to start from, steps, tokens and rates.
  one, two = configs.flatten(control), configs.flatten(treatment)
  assert {k for k in one if one[k] != two[k]} == {f'data.mix.{n}' for n in mix}
  t = control.train
  assert control.init_from == 'X' and t.steps * t.batch * t.length == 195 * 1024
  assert treatment.seed == control.seed != base.seed
  o, b = treatment.optim, base.optim
  cosine = schedule.Schedule(b.peak, b.warmup, b.decay, b.floor)
  line = schedule.Schedule(
    o.peak, o.warmup, o.decay, o.floor, o.anneal_start, o.anneal_steps
  )
  start = float(schedule.learning_rate(200, cosine))
  rate = lambda step: float(schedule.learning_rate(step, line))
  assert math.isclose(rate(0), start, rel_tol=1e-5) and rate(o.anneal_steps) == 0
  falls = np.diff([rate(i) for i in range(0, o.anneal_steps + 1, 5)])
  assert o.anneal_steps == t.steps and np.allclose(
    falls, -5 * start / t.steps, rtol=1e-3
  )
  with pytest.raises(UserError, match='scaling.new'):
    c.scaling.new = 'x'
    valuation.anneal(base, c.scaling, 'control', 0, 'X')


@pytest.fixture
def pretended(monkeypatch):
  """Runs that are finished at once, with the loss of a planted law; counts them."""
  count = []

  def main(config, workdir):
    folder = pathlib.Path(workdir)
    folder.mkdir(parents=True)
    model = configs.model_config(config.model)
    cost = ladder.flops.training(model, config.train.length)
    tokens = config.train.steps * config.train.batch * config.train.length
    c = cost * tokens
    loss = 2 + 400 * c**-0.23 + 0.1 * math.log(tokens / (1.5 * c**0.5)) ** 2
    flat = configs.flatten(config)
    (folder / 'config.json').write_text(json.dumps({'config': flat}))
    found = {'tokens': tokens, 'eval_loss': {'eval/code': loss, 'eval_loss': loss}}
    (folder / 'results.json').write_text(json.dumps(found))
    count.append(folder.name)
    return found

  monkeypatch.setattr(experiments, 'run', main)
  monkeypatch.setattr(scaling, 'corpus', lambda config, folder: (config, None))
  return count


def test_study_skips_finished_runs_and_predicts_the_held_out_budget(
  pretended, tmp_path
):
  c = recipe.get_config('cpu')
  c.scaling.questions, c.scaling.samples = 0, 50
  c.scaling.train = False
  with pytest.raises(UserError, match='25 of 25 runs are not finished'):
    scaling.main(c, str(tmp_path))
  c.scaling.train = True
  results = scaling.main(c, str(tmp_path))
  assert pretended == [str(i) for i in range(25)]
  held = results['held_out'][0]
  assert abs(held['loss_error']) < 0.005 and 0.9 < held['tokens_ratio'] < 1.1
  assert abs(results['isoflop']['tokens']['alpha'] - 0.5) < 0.02
  page = (tmp_path / 'report.html').read_text()
  assert 'Plotly' in page and 'src="http' not in page
  assert (tmp_path / 'runs.csv').read_text().count('\n') == 26
  (tmp_path / 'results.json').unlink()
  shutil.rmtree(tmp_path / '7')
  again = scaling.main(c, str(tmp_path))
  assert pretended[25:] == ['7']
  assert again['held_out'] == results['held_out']


def test_hold_out_leaves_two_budgets(pretended, tmp_path):
  c = recipe.get_config('cpu')
  c.scaling.hold_out = 4
  with pytest.raises(UserError, match='scaling.hold_out=4'):
    scaling.main(c, str(tmp_path))


def test_vocabulary_of_the_shards_is_compared(tmp_path):
  c = recipe.get_config('cpu')
  c.data.root = str(tmp_path)
  with pytest.raises(UserError, match='scaling.tokenizer'):
    scaling.corpus(c, tmp_path)


def test_missing_source_names_the_command_that_makes_it(tmp_path):
  c = recipe.get_config('cpu')
  c.data.root, c.scaling.questions = str(tmp_path), 0
  with pytest.raises(UserError, match='code has no token shards.*configs/shards.py'):
    scaling.corpus(c, tmp_path)


def test_mixes_are_ranked_by_small_models_of_each(pretended, tmp_path, monkeypatch):
  """NLL falls faster for `even`; every candidate has the whole ladder."""
  slope = {'code': 0.05, 'even': 0.08, 'exercises': 0.03}

  def found(config, folder, model, asked):
    flat = files.read_json(folder / 'config.json')['config']
    assert math.isclose(flat['data.mix.code'] + flat['data.mix.math'], 1.0)
    tokens = flat['train.steps'] * flat['train.batch'] * flat['train.length']
    c = ladder.flops.training(model, 64) * tokens
    nll = 1.5 - slope[folder.parent.name] * math.log(c / 1e10)
    right = 1 / (1 + math.exp(4 * (nll - 1.2)))
    other = {'answer_nll': nll / 2, 'accuracy': 0.25 + right / 2}
    return {'code': {'answer_nll': nll, 'accuracy': right}, 'math': other}

  monkeypatch.setattr(scaling, '_answers', found)
  monkeypatch.setattr(scaling, '_questions', lambda *a: None)
  c = recipe.get_config('mixes')
  c.scaling.samples = 50
  results = scaling.main(c, str(tmp_path))
  assert len(pretended) == 45 and results['pick'] == 'even'
  assert [r['mix'] for r in results['ranking']] == ['even', 'code', 'exercises']
  held = results['held_out'][0]
  assert held['budget'] == max(c.scaling.budgets) and held['regret'] == 0
  assert [r['mix'] for r in held['mixes']] == ['even', 'code', 'exercises']
  lines = (tmp_path / 'ranking.csv').read_text().splitlines()
  assert lines[0].startswith('mix,best_share,accuracy,accuracy_low')
  assert 'math_accuracy_high' in lines[0]
  assert (tmp_path / 'report.html').exists()
