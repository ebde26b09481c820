"""Paired differences: their interval holds, and is narrower than that of two scores."""

import numpy as np
import pytest

from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError
from llama3_jax.eval import paired
from llama3_jax.eval import paired_report


def test_the_difference_is_the_mean_over_tasks_of_the_mean_over_questions():
  before = {'a': [0, 0, 1, 1], 'b': [0, 1]}
  after = {'a': [1, 0, 1, 0], 'b': [1, 1]}
  found = paired.difference(before, after)
  assert found['difference'] == 0.25 and found['n'] == 6
  assert (found['better'], found['worse']) == (2, 1)
  assert found['low'] <= 0.25 <= found['high']
  assert paired.told(found) == 'not told apart'


def test_equal_models_differ_by_nothing_and_a_clear_gain_is_told():
  same = paired.difference({'a': [0, 1] * 50}, {'a': [0, 1] * 50})
  assert (same['low'], same['high']) == (0, 0)
  assert paired.told(same) == 'not told apart'
  up = paired.difference({'a': [0] * 50}, {'a': [1] * 20 + [0] * 30})
  assert paired.told(up) == 'better' and up['low'] > 0.25
  assert paired.told(paired.difference({'a': [1] * 50}, {'a': [0] * 50})) == 'worse'


def test_the_interval_holds_nineteen_times_of_twenty():
  rng, held = np.random.default_rng(0), 0
  for seed in range(200):
    hard = rng.random(150)  # both models find the same questions hard
    before = (rng.random(150) < hard).astype(float)
    after = (rng.random(150) < np.minimum(hard + 0.1, 1)).astype(float)
    truth = np.mean(np.minimum(hard + 0.1, 1) - hard)
    found = paired.difference({'a': before}, {'a': after}, seed)
    held += found['low'] <= truth <= found['high']
  assert 180 <= held <= 198


def write(folder, rows):
  folder.mkdir()
  fields = ('task', 'question', 'score')
  rows = [{'answer': 'yes'} | dict(zip(fields, row)) for row in rows]
  jsonl.write(folder / paired.FILE, rows)
  return folder


def test_runs_are_compared_question_by_question(tmp_path):
  a = write(tmp_path / 'a', [('t', 'q1', 0), ('t', 'q2', 1), ('u', 'q', 0.5)])
  b = write(tmp_path / 'b', [('t', 'q1', 1), ('t', 'q2', 1), ('u', 'q', 0.5)])
  found = paired.of_runs(a, b)
  assert {t: r['difference'] for t, r in found.items()} == {
    'all': 0.25,
    't': 0.5,
    'u': 0,
  }
  text = paired_report.sentence({'before': 'A', 'after': 'B', 'tasks': found})
  assert text.startswith('B against A: +25.0 points [') and 'over 3 questions' in text
  twice = [('t', 'q', 0), ('t', 'q', 1)]
  double = write(tmp_path / 'd', twice), write(tmp_path / 'e', twice)
  assert paired.of_runs(*double)['all']['n'] == 2  # a question that is there twice
  other = write(tmp_path / 'c', [('t', 'q2', 1), ('t', 'q1', 1), ('u', 'q', 0.5)])
  with pytest.raises(UserError, match='other questions'):
    paired.of_runs(a, other)
