"""GRPO: losses, advantages and gradients are those of TRL and of plain NumPy."""

import dataclasses
import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import policies
import post_examples as toy
import pytest

from llama3_jax.base.errors import UserError
from llama3_jax.post import grpo
from llama3_jax.post import rollout

GOLDEN = pathlib.Path(__file__).parent / 'goldens' / 'policy.npz'
LONGEST = 9  # of goldens/make_policy.py
FORMS = {'token': 'bnpo', 'answer': 'grpo', 'constant': 'dr_grpo'}  # as TRL calls them


def batch(x):
  """Answers of the golden's arrays; `filled` gives advantages no value elsewhere."""
  empty = policies.empty(rollout.Answers, x['mask'].shape)
  f = lambda a: jnp.asarray(a, jnp.float32)
  return empty.replace(
    weight=f(x['mask']),
    old=f(x['old']),
    start=f(x['start']),
    advantage=f(x['advantage'][:, None] * x['mask']),
  )


def mean(logp, x, c):
  total, metrics = grpo.of_tokens(logp, batch(x), c, LONGEST)
  return total / metrics['count']


@pytest.mark.parametrize('lengths', FORMS)
@pytest.mark.parametrize('kl', [0.0, 0.1])
def test_loss_and_gradient_are_those_of_trl(lengths, kl):
  x = np.load(GOLDEN)
  c = grpo.GRPOConfig(lengths=lengths, kl=kl)
  logp = jnp.asarray(x['logp'], jnp.float32)
  loss, gradient = jax.value_and_grad(mean)(logp, x, c)
  name = f'{FORMS[lengths]}_{kl}'
  np.testing.assert_allclose(loss, x[f'{name}_loss'], rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(gradient, x[f'{name}_gradient'], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('lengths', FORMS)
def test_other_random_numbers_agree_with_trl_where_it_is_installed(lengths):
  for name in ('torch', 'trl'):
    pytest.importorskip(name, reason='extra oracles is not installed')
  path = GOLDEN.with_name('make.py')
  spec = importlib.util.spec_from_file_location('make_policy', path)
  make = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(make)
  for seed in range(1, 9):
    x = make.given(np.random.default_rng(seed))
    expected, slope = make.trl_loss(x, FORMS[lengths], 0.05)
    c = grpo.GRPOConfig(lengths=lengths, kl=0.05)
    logp = jnp.asarray(x['logp'], jnp.float32)
    loss, gradient = jax.value_and_grad(mean)(logp, x, c)
    np.testing.assert_allclose(loss, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(gradient, slope, atol=1e-5)


def test_clip_higher_lets_a_ratio_rise_further_than_it_may_fall():
  x = dict(np.load(GOLDEN))
  for move, counts in ((0.25, True), (0.3, False), (-0.15, True), (-0.25, False)):
    one = x | {'old': x['logp'] - np.log1p(move)}
    one['advantage'] = np.full_like(x['advantage'], np.sign(move))
    c = grpo.GRPOConfig(kl=0.0)
    gradient = jax.grad(mean)(jnp.asarray(x['logp'], jnp.float32), one, c)
    assert np.any(np.asarray(gradient) != 0) == counts, move


def test_advantages_are_within_a_prompt_and_of_valid_answers():
  rng = np.random.default_rng(1)
  r, valid = rng.standard_normal(12), np.arange(12) != 5
  for spread in (False, True):
    made = grpo.advantages(r, valid, 4, spread).reshape(3, 4)
    for i, (row, good) in enumerate(zip(r.reshape(3, 4), valid.reshape(3, 4))):
      kept = row[good]
      expected = kept - kept.mean()
      if spread:
        expected = expected / (kept.std(ddof=1) + 1e-4)
      np.testing.assert_allclose(made[i][good], expected, rtol=1e-9)
      assert np.all(made[i][~good] == 0)


def test_a_reward_that_is_no_number_touches_nothing():
  r = np.array([1.0, np.nan, 0.0, 2.0])
  made = grpo.advantages(r, np.isfinite(r), 2, True)
  assert np.all(np.isfinite(made)) and made[0] == made[1] == 0


def test_equal_rewards_teach_nothing_and_are_counted():
  rows = policies.empty(rollout.Answers, (4, 3)).replace(
    weight=np.ones((4, 3), np.float32)
  )
  rewards, valid = np.array([1.0, 1.0, 0.0, 1.0]), np.ones(4, bool)
  made, found = grpo.filled(rows, rewards, valid, 2, grpo.GRPOConfig())
  assert np.all(made.advantage[:2] == 0) and np.all(made.advantage[2:] != 0)
  assert found['even'] == 0.5


def test_options_that_cannot_be_are_one_line():
  c = grpo.GRPOConfig()
  with pytest.raises(UserError, match='rollout.samples=1'):
    grpo.check(c, 1)
  with pytest.raises(UserError, match="grpo.lengths='word'"):
    grpo.check(dataclasses.replace(c, lengths='word'), 4)


@pytest.fixture(scope='module')
def rows():
  rng = np.random.default_rng(0)
  made = policies.empty(rollout.Answers, (4, 12))
  made.tokens[:, :10] = rng.integers(1, 200, (4, 10))
  made.targets[:, :9] = made.tokens[:, 1:10]
  made.segment[:, :10], made.position[:] = 1, np.arange(12)
  for row, end in zip(made.weight, (9, 5, 7, 4)):
    row[3:end] = 1
  for name in ('old', 'start'):
    getattr(made, name)[:] = made.weight * -rng.uniform(5, 7, (4, 12))
  made.advantage[:] = made.weight * rng.standard_normal((4, 1))
  return made


@pytest.mark.parametrize('lengths', FORMS)
def test_loss_of_a_model_is_the_formula_and_the_sum_of_its_parts(rows, lengths):
  logp, w = policies.forward(toy.model(), rows), rows.weight
  ratio = np.exp(logp - rows.old)
  each = -np.minimum(ratio * rows.advantage, np.clip(ratio, 0.8, 1.28) * rows.advantage)
  back = rows.start - logp
  each = (each + 0.3 * (np.exp(back) - 1 - back)) * w
  tokens = w.sum(-1)
  expected = {
    'token': each.sum() / tokens.sum(),
    'answer': (each.sum(-1) / tokens).mean(),
    'constant': each.sum() / (len(w) * LONGEST),
  }[lengths]
  c = grpo.GRPOConfig(lengths=lengths, kl=0.3)
  loss = jax.jit(grpo.loss, static_argnums=(2, 3, 4))
  total, metrics = loss(toy.model(), rows, toy.CONFIG, c, LONGEST)
  np.testing.assert_allclose(total / metrics['count'], expected, rtol=1e-4)
  halves = [jax.tree.map(lambda x, i=i: x[i::2], rows) for i in range(2)]
  parts = [loss(toy.model(), half, toy.CONFIG, c, LONGEST) for half in halves]
  np.testing.assert_allclose(parts[0][0] + parts[1][0], total, rtol=1e-5)
  for name, value in metrics.items():
    both = parts[0][1][name] + parts[1][1][name]
    np.testing.assert_allclose(both, value, rtol=1e-4, atol=1e-6)
