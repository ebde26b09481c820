"""Properties of the measures of a ranking."""

import json

import numpy as np
import post_examples as toy
import pytest

from llama3_jax.base import confidence
from llama3_jax.post import measure
from llama3_jax.post import measure_page
from llama3_jax.post.ranked import Kept
from llama3_jax.report import page
from llama3_jax.report.blocks import Page


def kept(lengths, **fields):
  two, three = toy.examples(2)
  example = toy.changed(three if len(lengths) == 3 else two, **fields)
  return Kept(example, tuple(lengths))


def many(n=400, seed=0, bias=0.0):
  """Pairs whose rewards differ by a logit that is true, and by `bias` a token."""
  rng = np.random.default_rng(seed)
  d = rng.normal(0, 2, n)
  right = rng.random(n) < 1 / (1 + np.exp(-np.abs(d)))
  lengths = rng.integers(5, 80, (n, 2))
  known = np.where(right, np.abs(d), -np.abs(d))
  rewards = np.stack([known, np.zeros(n), np.zeros(n)], 1)
  rewards[:, :2] += bias * lengths
  return rewards, [kept(pair) for pair in lengths.tolist()]


def test_accuracy_is_by_category_strength_pair_and_length():
  rows = [
    kept((4, 5), source='maths', strength=4),
    kept((40, 60), source='code', strength=1),
    kept((4, 5, 40), source='code'),
  ]
  rewards = np.array([[1, 0, 0], [0, 1, 0], [2, 2, 1.0]])
  found = measure.judged(rewards, rows)
  by = found['ranking']['by']
  share = lambda kind: {k: (v['accuracy'], v['n']) for k, v in by[kind].items()}
  assert found['n'] == 5 and found['accuracy'] == pytest.approx(3.5 / 5)
  assert share('category') == {'code': (2.5 / 4, 4), 'maths': (1.0, 1)}
  assert share('strength') == {
    'not said': (2.5 / 3, 3), 'marginally': (0, 1), 'significantly': (1, 1)
  }  # fmt: skip
  assert share('pair')['edited > chosen'] == (0.5, 1)
  assert share('pair')['chosen > rejected'] == (2 / 3, 3)
  assert share('length') == {
    '4 to 7 tokens': (0.75, 2), '16 to 31 tokens': (1, 2), '32 to 63 tokens': (0, 1)
  }  # fmt: skip
  # Three pairs of one prompt are one trial: the interval is that of three examples.
  assert found['interval'] == confidence.wilson(0.7 * 3, 3)


def test_calibration_tells_true_odds_from_those_that_are_too_sure():
  rewards, rows = many(4000)
  d = [m for m in measure.judged(rewards, rows)['margins']]
  true, sure = measure.calibration(d), measure.calibration(np.multiply(d, 4))
  assert true['error'] < 0.03 < 0.1 < sure['error']
  assert sum(b['n'] for b in true['bins']) == 4000
  for b in true['bins']:
    assert abs(b['predicted'] - b['right']) < 4 * (0.25 / b['n']) ** 0.5
  top = sure['bins'][-1]
  assert top['predicted'] > top['right'] + 0.05
  assert measure.calibration([])['error'] is None


def test_a_liking_for_length_is_seen_and_matched_pairs_are_free_of_it():
  fair = measure.judged(*many(2000))['ranking']['length']
  rewards, rows = many(2000, bias=0.3)
  long = measure.judged(rewards, rows)
  found = long['ranking']['length']
  assert abs(fair['within']) < 0.1 and abs(fair['liked_longer'] - 0.5) < 0.05
  assert found['correlation'] > 0.8 and found['within'] > 0.8
  assert found['liked_longer'] > 0.85 and abs(found['better_longer'] - 0.5) < 0.05
  matched = found['matched']
  assert 50 < matched['n'] < 500
  assert matched['accuracy'] > long['accuracy'] + 0.05


def test_rewards_that_are_not_finite_are_named_and_left_out(caplog):
  rewards = np.array([[1, 0, 0], [np.nan, 0, 0], [1, 0, np.nan]])
  rows = [kept((3, 4), where=f'p.jsonl, line {i}', id=f'{i}') for i in range(3)]
  with caplog.at_level('WARNING'):
    found = measure.judged(rewards, rows)
  assert found['not_finite'] == 1 and found['n'] == 2 and found['accuracy'] == 1
  assert 'p.jsonl, line 1' in caplog.text and 'line 2' not in caplog.text
  scores = json.loads(json.dumps(list(measure.rows(rewards, rows)), allow_nan=False))
  assert [row['id'] for row in scores] == ['0', '1', '2']
  assert scores[1]['rewards'] == [None, 0] and scores[0]['tokens'] == [3, 4]


def test_page_shows_every_group_and_nothing_without_pairs():
  found = measure.judged(*many(300)) | {'files': {'<b>.jsonl': measure.judged([], [])}}
  text = page.render(Page('t', measure_page.sections(found)))
  for word in (
    'chosen &gt; rejected',
    'lengths within 10%',
    'Mean distance',
    'within a',
  ):
    assert word in text
  assert '<b>.jsonl' not in text
