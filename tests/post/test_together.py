"""Rewards of answers that share a prompt's row: those of dialogs of their own."""

import jax
import numpy as np
import post_examples as toy
import pytest

from llama3_jax.base.errors import UserError
from llama3_jax.post import reward
from llama3_jax.post import together


@pytest.fixture(scope='module')
def params():
  return jax.jit(reward.init, static_argnums=2)(
    jax.random.key(1), toy.model(), toy.CONFIG
  )


def dialogs(seed, count, most):
  rng = np.random.default_rng(seed)
  ids = lambda low: rng.integers(0, 256, rng.integers(low, most)).tolist()
  return [ids(2) for _ in range(count)], [
    [ids(1) for _ in range(rng.integers(0, 6))] for _ in range(count)
  ]


@pytest.mark.parametrize('length, most', [(1024, 30), (128, 60), (128, 200)])
def test_rewards_are_those_of_dialogs_of_their_own(length, most, params):
  prompts, answers = dialogs(length + most, 9, most)
  found = together.rewards(params, prompts, answers, toy.CONFIG, length)
  assert [len(values) for values in found] == [len(given) for given in answers]
  for prompt, given, values in zip(prompts, answers, found):
    alone = reward.score(params, [[*prompt, *a] for a in given], toy.CONFIG)
    np.testing.assert_allclose(values, alone, atol=1e-5)


def test_prompts_are_read_once_and_rows_are_full():
  prompts, answers = [[1] * 40] * 16, [[[2] * 10] * 8] * 16
  rows = together._packed(prompts, answers, 512)
  assert sum(len(row) for row in rows) == 16 and len(rows) == 4


def test_an_empty_answer_is_named(params):
  with pytest.raises(UserError, match='prompt 1: it and its answers need'):
    together.rewards(params, [[1], [1]], [[[2]], [[]]], toy.CONFIG)
