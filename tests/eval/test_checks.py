"""What a herd run is judged by: value, bar and verdict on both sides of each bar."""

import json
import math

import pytest

from llama3_jax.eval import checks
from llama3_jax.eval import stages
from llama3_jax.eval import summary
from llama3_jax.model import flops

FALLS, ANNEALS, AVERAGE = 'Held-out loss falls', 'Annealing ends', 'Averaged'
BEFORE, AFTER = 'Needle recall before', 'Needle recall after'
REWARD, BEST = 'Reward model', 'Best of K'
SFT, DPO, CHOSEN = 'SFT raises', 'DPO keeps exact', 'DPO keeps the log'
TIME, MEMORY = 'Time', 'Peak memory'


@pytest.fixture
def made(tmp_path, monkeypatch):
  """made(changes) -> {beginning of a name: row} for a run of made results."""
  monkeypatch.setattr(flops, 'peak', lambda: (7.4e9, 'test'))

  def judge(changes=(), held=(3.0, 5.0, 2.0), seconds=100.0, memory=10**9):
    run = stages.Stages(tmp_path, 1)
    run.results = results()
    for path, value in dict(changes).items():
      *way, last = path
      place = run.results
      for key in way:
        place = place[key]
      place[last] = value
    folder = tmp_path / 'pretrain'
    folder.mkdir(exist_ok=True)
    rows = [{'step': i, 'eval_loss': v} for i, v in enumerate(held)]
    rows.insert(1, {'step': 0, 'loss': 9.0})
    (folder / 'metrics.jsonl').write_text('\n'.join(map(json.dumps, rows)))
    found = checks.all(run, seconds, memory)
    assert len({row['name'] for row in found}) == len(found) == 12
    return found

  return judge


def results():
  """A good run of two rounds: every stage of the second differs from the first."""
  macro = lambda score: {'tasks': {'macro': {'score': score, 'ci': 0.0625}}}
  curve = lambda *right: {'best_of_k': [{'exact': x, 'reward': -x} for x in right]}
  return {
    'anneal': {
      'eval_loss': {'eval_loss': 1.5},
      'average': {'mean': 1.4, 'members': [1.3, 1.5, 1.7]},
    },
    'control': {'eval_loss': {'eval_loss': 1.6}},
    'long_context': {
      # rows are depths, columns lengths: the last column counts
      'needle': {'before': [[1.0, 0.0], [0.9, 0.1]], 'after': [[0.2, 1.0], [0.3, 0.9]]}
    },
    'evaluate/anneal': macro(0.2),
    'reward/1': {'accuracy': 0.5},
    'reject/1': curve(3.0, 2.0),
    'evaluate/sft/1': macro(0.1),
    'dpo/1': {'eval/chosen': -0.5},
    'average/1': {},
    'evaluate/average/1': macro(0.05),
    'reward/2': {'accuracy': 0.95},
    'reject/2': curve(-1.0, 0.5, 0.75),
    'evaluate/sft/2': macro(0.4),
    'dpo/2': {'eval/chosen': 0.75},
    'average/2': {},
    'evaluate/average/2': macro(0.6),
  }


def row(found, name):
  (only,) = [r for r in found if r['name'].startswith(name)]
  return only


VALUES = {
  FALLS: (2.0, '< 3'),
  ANNEALS: (1.5, '< 1.6'),
  AVERAGE: (1.4, '<= 1.5'),
  BEFORE: (0.05, '<= 0.1'),
  AFTER: (0.95, '>= 0.9'),
  REWARD: (0.95, '>= 0.9'),
  BEST: (1.75, '> 0 at every K'),
  SFT: (0.4, '> 0.2'),
  DPO: (0.6, '>= 0.3375'),  # what SFT has, less its interval
  CHOSEN: (0.125, '>= 0'),  # the mean over the rounds
}


def test_a_good_run_passes_with_the_figures_of_its_last_round(made):
  found = made()
  assert all(r['pass'] for r in found)
  for name, (value, bar) in VALUES.items():
    assert row(found, name)['value'] == pytest.approx(value), name
    assert row(found, name)['bar'] == bar, name


needle = lambda when, at: ('long_context', 'needle', when, 1, at)
macro = lambda name: (f'evaluate/{name}', 'tasks', 'macro', 'score')
# One change of the good run; the checks that fail with it.
CASES = {
  'anneal as the control': ({('anneal', 'eval_loss', 'eval_loss'): 1.6}, ANNEALS),
  'anneal just below': ({('anneal', 'eval_loss', 'eval_loss'): 1.5999}, None),
  'average as the mean of its members': ({('anneal', 'average', 'mean'): 1.5}, None),
  'average between mean and worst': ({('anneal', 'average', 'mean'): 1.501}, AVERAGE),
  'no average': ({('anneal', 'average'): None}, AVERAGE),
  'before 0.1': ({needle('before', 1): 0.2}, None),
  'before above 0.1': ({needle('before', 1): 0.21}, BEFORE),
  'before, a short length': ({needle('before', 0): 0.0}, None),
  'after 0.9': ({needle('after', 1): 0.8}, None),
  'after below 0.9': ({needle('after', 1): 0.79}, AFTER),
  'after, a short length': ({needle('after', 0): 1.0}, None),
  'reward 0.9': ({('reward/2', 'accuracy'): 0.9}, None),
  'reward below 0.9': ({('reward/2', 'accuracy'): 0.899}, REWARD),
  'reward of the first round': ({('reward/1', 'accuracy'): 0.1}, None),
  'best of K stays': ({('reject/2', 'best_of_k', 2, 'exact'): 0.5}, BEST),
  'best of K falls': ({('reject/2', 'best_of_k', 1, 'exact'): 0.8}, BEST),
  'one K': ({('reject/2', 'best_of_k'): [{'exact': 1.0}]}, BEST),
  'SFT as before': ({macro('sft/2'): 0.2}, SFT),
  'DPO as SFT': ({macro('average/2'): 0.4}, None),
  'DPO within the interval': ({macro('average/2'): 0.34}, None),
  'DPO below the interval': ({macro('average/2'): 0.337}, DPO),
  'DPO of the first round': ({macro('average/1'): 0.9}, None),
  'chosen keep': ({('dpo/2', 'eval/chosen'): 0.5}, None),
  'chosen fall': ({('dpo/2', 'eval/chosen'): 0.49}, CHOSEN),
}


@pytest.mark.parametrize('case', CASES)
def test_verdict_changes_at_the_bar_and_in_one_row_only(made, case):
  changes, fails = CASES[case]
  failed = [r['name'] for r in made(changes) if not r['pass']]
  assert len(failed) == (fails is not None)
  assert not failed or failed[0].startswith(fails)


def test_held_out_loss_is_judged_from_the_first_to_the_last_measurement(made):
  assert row(made(held=(3.0, 9.0, 2.99)), FALLS)['pass']
  assert not row(made(held=(3.0, 1.0, 3.0)), FALLS)['pass']


def test_what_was_not_measured_has_no_value_and_does_not_pass(made):
  found = made({('long_context',): {}, ('anneal', 'average'): None})
  for name in (BEFORE, AFTER, AVERAGE):
    assert row(found, name)['value'] is None and not row(found, name)['pass']
  json.dumps(found, allow_nan=False)


def test_time_passes_and_reports_the_rate_of_the_machine(made):
  for seconds in (1.0, 1e7):
    found = row(made(seconds=seconds), TIME)
    assert found['pass'] and found['seconds'] == seconds and 'value' not in found
    assert '7 GFLOP/s' in found['bar']


def test_memory_is_judged_at_4_gigabytes(made):
  for memory, good in ((4 * 10**9, True), (4 * 10**9 + 1, False)):
    found = row(made(memory=memory), MEMORY)
    assert found['pass'] == good and found['memory_bytes'] == memory
    assert found['bar'] == '<= 4 GB'


def test_recall_is_the_mean_over_depths_at_the_longest_length():
  assert checks._recall([[0.0, 0.5], [1.0, 1.0], [1.0, 0.0]]) == 0.5
  assert math.isnan(checks._recall(None))


def test_stages_run_in_turn_so_memory_is_the_largest_and_time_the_sum(
  monkeypatch, tmp_path
):
  run = stages.Stages(tmp_path, 2)
  cost = lambda seconds, memory: {'seconds': seconds, 'memory_bytes': memory}
  run.costs = {'a': cost(2.0, 30), 'b': cost(5.0, 20)}
  run.results = {'curate': {'steps': []}, 'shards': {}, 'long_context': {}}
  run.results['tokenizer'] = {'characters_per_token': 4.0}
  run.results['evaluate/anneal'] = {'tasks': {}}
  seen = []
  monkeypatch.setattr(summary.checks, 'all', lambda *given: seen.append(given) or [])
  monkeypatch.setattr(summary, '_held_out', lambda run: {})
  monkeypatch.setattr(summary, '_notes', lambda run: [])
  found = summary.collect(run)
  assert (found['seconds'], found['memory_bytes']) == (7.0, 30)
  assert seen == [(run, 7.0, 30)]
