"""Intervals: the paper's, and those that hold where it does not."""

import math

import numpy as np
import pytest

from llama3_jax.base import confidence


def test_half_width_is_the_papers():
  assert round(confidence.paper(0.89, 164), 3) == 0.048  # HumanEval, section 5.1
  assert confidence.paper(1.0, 100) == 0 == confidence.paper(0.0, 100)


@pytest.mark.parametrize(
  'right,n,low,high',
  [  # of Wilson's formula, worked out by hand with z = 1.96
    (0, 10, 0.0, 3.8416 / 13.8416),
    (10, 10, 10 / 13.8416, 1.0),
    (5, 10, 0.5 - 1.96 * math.sqrt(0.25 / 10 + 3.8416 / 400) / 1.38416, None),
    (0, 0, 0.0, 1.0),
  ],
)
def test_wilson_is_its_formula_and_no_point_at_the_ends(right, n, low, high):
  found = confidence.wilson(right, n)
  high = 1 - low if high is None else high
  assert found == pytest.approx([low, high])
  assert found[0] < found[1]


@pytest.mark.parametrize('share', [0.02, 0.5, 0.9, 0.99])
def test_wilson_holds_the_truth_more_often_than_the_paper_for_few_questions(share):
  rng, n = np.random.default_rng(0), 20
  right = rng.binomial(n, share, 2000)
  ends = np.array([confidence.wilson(r, n) for r in right])
  inside = ((ends[:, 0] <= share) & (share <= ends[:, 1])).mean()
  half = np.array([confidence.paper(r / n, n) for r in right])
  paper = (np.abs(right / n - share) <= half).mean()
  assert inside > 0.9 and inside >= paper - 0.02


def test_wilson_covers_as_often_as_it_says():
  rng = np.random.default_rng(0)
  for true, n in ((0.5, 40), (0.95, 60), (0.99, 200)):
    right = rng.binomial(n, true, 4000)
    ends = np.array([confidence.wilson(r, n) for r in right])
    inside = (ends[:, 0] <= true) & (true <= ends[:, 1])
    assert 0.92 < np.mean(inside) < 0.985


def test_wilson_becomes_the_papers_for_many_questions():
  low, high = confidence.wilson(3000, 10000)
  assert (high - low) / 2 == pytest.approx(confidence.paper(0.3, 10000), rel=1e-3)


def test_bootstrap_of_a_mean_is_the_normal_interval_and_the_same_each_time():
  values = np.random.default_rng(1).normal(2.0, 3.0, 4000)
  low, high = confidence.bootstrap(values)
  half = 1.96 * values.std() / math.sqrt(len(values))
  assert (low, high) == pytest.approx(
    (values.mean() - half, values.mean() + half), abs=0.01
  )
  assert confidence.bootstrap(values) == [low, high]


def test_bootstrap_takes_what_is_no_mean():
  values = -np.random.default_rng(2).exponential(2.0, 500)
  low, high = confidence.bootstrap(values, lambda drawn: np.exp(-drawn.mean(-1)))
  assert low < math.exp(-values.mean()) < high and low > 1
  assert all(map(math.isnan, confidence.bootstrap([])))


def test_scores_between_zero_and_one_have_a_bootstrap_and_others_wilson():
  assert confidence.of_scores([1, 1, 0]) == confidence.wilson(2, 3)
  assert confidence.of_scores([0.5, 1, 0]) == confidence.bootstrap([0.5, 1, 0])
  assert confidence.of_scores([]) == [0.0, 1.0]
