"""Losses on pairs of answers: their formulas, minima and what they ignore."""

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import dpo as dpo_config
from llama3_jax.base.errors import UserError
from llama3_jax.post import dpo
from llama3_jax.post.losses.seen import Seen


def seen(seed=0, n=5):
  rng = np.random.default_rng(seed)
  tokens = rng.integers(2, 30, (n, 2)).astype(np.float32)
  logp = -tokens * rng.uniform(0.1, 3, (n, 2)).astype(np.float32)
  change = rng.normal(0, 3, (n, 2)).astype(np.float32)
  return Seen(logp, change, tokens, np.ones(n, np.float32))


def sigmoid(x):
  return 1 / (1 + np.exp(-np.float64(x)))


def formula(name, s, beta, target, flipped):
  """By the papers, float64, pair by pair."""
  chosen, rejected = np.float64(s.change).T
  c, r = (np.float64(s.logp) / s.tokens).T
  odds = lambda p: np.exp(p) / (1 - np.exp(p))
  if name == 'dpo':
    return -np.log(sigmoid(beta * (chosen - rejected)))
  if name == 'ipo':
    a, b = (np.float64(s.change) / s.tokens).T
    return (a - b - 0.5 / beta) ** 2
  if name == 'simpo':
    return -np.log(sigmoid(beta * (c - r) - target))
  if name == 'kto':
    up, down = max(rejected.mean(), 0), max(chosen.mean(), 0)
    first = 1 - sigmoid(beta * (chosen - up))
    return (first + 1 - sigmoid(beta * (down - rejected))) / 2
  if name == 'orpo':
    return -beta * np.log(sigmoid(np.log(odds(c) / odds(r))))
  right, wrong = (-np.log(sigmoid(x * beta * (chosen - rejected))) for x in (1, -1))
  return ((1 - flipped) * right - flipped * wrong) / (1 - 2 * flipped)


def of(name, **fields):
  config = dpo_config.get_config()
  config.update(dict(loss=name, **fields))
  return dpo.contrast(config)


@pytest.mark.parametrize('name', dpo.LOSSES)
@pytest.mark.parametrize('seed', [0, 1, 2])
def test_loss_is_the_formula_of_its_paper(name, seed):
  given = seen(seed)
  found = of(name, target=0.7, flipped=0.2)(given, 0.3)
  expected = formula(name, given, 0.3, 0.7, 0.2)
  np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize('name', dpo.LOSSES)
def test_a_better_chosen_answer_costs_less(name):
  given = seen()
  gradient = lambda field: jax.grad(
    lambda x: of(name)(given.replace(**{field: x}), 0.1).sum()
  )(getattr(given, field))
  total = gradient('change') + gradient('logp')
  if name == 'ipo':  # beyond its target the margin costs again
    given = given.replace(change=given.change * 0)
    total = gradient('change')
  assert np.all(total[:, 0] < 0) and np.all(total[:, 1] > 0)


def test_empty_pairs_do_not_move_the_point_of_kto():
  given = seen()
  pad = lambda x: np.concatenate([x, 9 * np.ones_like(x)])
  padded = jax.tree.map(pad, given).replace(real=np.repeat([1.0, 0.0], 5))
  np.testing.assert_allclose(
    of('kto')(padded, 0.1)[:5], of('kto')(given, 0.1), rtol=1e-6
  )


def test_certain_answers_have_finite_odds():
  given = seen().replace(logp=np.zeros((5, 2), np.float32))
  value, grad = jax.value_and_grad(
    lambda x: of('orpo')(given.replace(logp=x), 0.1).sum()
  )(given.logp)
  assert np.isfinite(value) and np.all(np.isfinite(grad))


def test_unknown_losses_are_named_with_those_there_are():
  with pytest.raises(UserError, match="loss='ppo' is unknown: use one of dpo, ipo"):
    dpo.contrast(ConfigDict(dict(loss='ppo')))
