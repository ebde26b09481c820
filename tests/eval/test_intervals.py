"""Intervals: the paper's, and those that hold where it does not."""

import math

import numpy as np
import pytest

from llama3_jax.eval import intervals


def test_half_width_is_the_papers():
  assert round(intervals.paper(0.89, 164), 3) == 0.048  # HumanEval, section 5.1
  assert intervals.paper(1.0, 100) == 0 == intervals.paper(0.0, 100)


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
  found = intervals.wilson(right, n)
  high = 1 - low if high is None else high
  assert found == pytest.approx([low, high])
  assert found[0] < found[1]


@pytest.mark.parametrize('share', [0.02, 0.5, 0.9, 0.99])
def test_wilson_holds_the_truth_more_often_than_the_paper_for_few_questions(share):
  rng, n = np.random.default_rng(0), 20
  right = rng.binomial(n, share, 2000)
  ends = np.array([intervals.wilson(r, n) for r in right])
  inside = ((ends[:, 0] <= share) & (share <= ends[:, 1])).mean()
  half = np.array([intervals.paper(r / n, n) for r in right])
  paper = (np.abs(right / n - share) <= half).mean()
  assert inside > 0.9 and inside >= paper - 0.02


def test_wilson_becomes_the_papers_for_many_questions():
  low, high = intervals.wilson(3000, 10000)
  assert (high - low) / 2 == pytest.approx(intervals.paper(0.3, 10000), rel=1e-3)


def test_bootstrap_of_a_mean_is_the_normal_interval_and_the_same_each_time():
  values = np.random.default_rng(1).normal(2.0, 3.0, 4000)
  low, high = intervals.bootstrap(values)
  half = 1.96 * values.std() / math.sqrt(len(values))
  assert (low, high) == pytest.approx(
    (values.mean() - half, values.mean() + half), abs=0.01
  )
  assert intervals.bootstrap(values) == [low, high]


def test_bootstrap_takes_what_is_no_mean():
  values = -np.random.default_rng(2).exponential(2.0, 500)
  low, high = intervals.bootstrap(values, lambda drawn: np.exp(-drawn.mean(-1)))
  assert low < math.exp(-values.mean()) < high and low > 1
  assert all(map(math.isnan, intervals.bootstrap([])))


def test_scores_between_zero_and_one_have_a_bootstrap_and_others_wilson():
  assert intervals.of_scores([1, 1, 0]) == intervals.wilson(2, 3)
  assert intervals.of_scores([0.5, 1, 0]) == intervals.bootstrap([0.5, 1, 0])
  assert intervals.of_scores([]) == [0.0, 1.0]
