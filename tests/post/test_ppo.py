"""PPO: advantages, whitening, losses and gradients against torch's and plain NumPy."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import policies
import post_examples as toy
import pytest

from llama3_jax import feed
from llama3_jax import mesh
from llama3_jax.post import ppo
from llama3_jax.post import reward

GOLDEN = pathlib.Path(__file__).parent / 'goldens' / 'policy.npz'
C = ppo.PPOConfig(clip=0.2, value_clip=0.3, value=0.7)
loss = jax.jit(ppo.loss, static_argnums=(2, 3, 4))


def batch(x):
  f = lambda a: jnp.asarray(a, jnp.float32)
  return policies.empty(ppo.Valued, x['mask'].shape).replace(
    weight=f(x['mask']),
    old=f(x['old']),
    start=f(x['start']),
    advantage=f(x['white']),
    value=f(x['value']),
    returns=f(x['returns']),
  )


def test_advantages_and_whitening_are_those_of_a_loop_in_torch():
  x = np.load(GOLDEN)
  made, returns = ppo.advantages(x['rewards'], x['value'], x['mask'], 0.97, 0.9)
  np.testing.assert_allclose(made, x['gae'], atol=1e-12)
  np.testing.assert_allclose(returns * x['mask'], x['returns'] * x['mask'], atol=1e-12)
  np.testing.assert_allclose(ppo.whiten(made, x['mask']), x['white'], atol=1e-9)


def test_loss_and_gradients_are_those_of_torch():
  x = np.load(GOLDEN)

  def mean(logp, value):
    total, metrics = ppo.of_tokens(logp, value, batch(x), C)
    return total / metrics['count']

  given = [jnp.asarray(x[name], jnp.float32) for name in ('logp', 'now')]
  found, gradients = jax.value_and_grad(mean, (0, 1))(*given)
  np.testing.assert_allclose(found, x['ppo_loss'], rtol=1e-5)
  for gradient, name in zip(gradients, ('logp', 'value')):
    expected = x[f'ppo_{name}_gradient']
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6)


def test_whitening_keeps_the_mean_where_asked_and_survives_equal_rewards():
  x, weight = np.array([1.0, 3.0, 8.0, 99.0]), np.array([1, 1, 1, 0])
  white = ppo.whiten(x, weight)
  np.testing.assert_allclose(
    [white[:3].mean(), white[:3].std(ddof=1)], [0, 1], atol=1e-6
  )
  assert white[3] == 0
  np.testing.assert_allclose(ppo.whiten(x, weight, center=False)[:3].mean(), 4.0)
  assert np.all(ppo.whiten(np.full(4, 7.0), np.ones(4)) == 0)
  assert np.all(ppo.whiten(x, np.array([1, 0, 0, 0])) == 0)


def test_a_token_pays_for_its_distance_and_the_last_one_has_the_score():
  weight = np.array([[0, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0]], np.float64)
  old, start = np.full((3, 4), -1.0), np.full((3, 4), -3.0)
  made = ppo.shaped(np.array([5.0, 7.0, 9.0]), old, start, weight, 0.1)
  expected = [[0, -0.2, 4.8, 0], [-0.2, -0.2, -0.2, 6.8], [0, 0, 0, 0]]
  np.testing.assert_allclose(made, expected)


def test_returns_without_values_are_the_sums_of_what_is_still_to_come():
  rng = np.random.default_rng(0)
  rewards, weight = rng.standard_normal((3, 5)), np.ones((3, 5))
  made, returns = ppo.advantages(rewards, np.zeros((3, 5)), weight, 1.0, 1.0)
  np.testing.assert_allclose(returns, np.cumsum(rewards[:, ::-1], 1)[:, ::-1])
  np.testing.assert_allclose(made, returns)


def test_k3_is_a_distance_and_its_mean_is_kl():
  rng = np.random.default_rng(0)
  p, q = (rng.dirichlet(np.ones(8)) for _ in range(2))
  each = ppo.k3(jnp.log(p), jnp.log(q))
  assert np.all(np.asarray(each) >= 0)
  np.testing.assert_allclose((p * each).sum(), (p * np.log(p / q)).sum(), rtol=1e-4)


@pytest.fixture(scope='module')
def rows():
  """Two rows of ten tokens, the answers from the fourth on, for the toy model."""
  rng = np.random.default_rng(0)
  made = policies.empty(ppo.Valued, (4, 12))
  made.tokens[:, :10] = rng.integers(1, 200, (4, 10))
  made.targets[:, :9] = made.tokens[:, 1:10]
  made.segment[:, :10], made.position[:] = 1, np.arange(12)
  made.weight[:, 3:9] = 1
  for name in ('old', 'start'):
    getattr(made, name)[:] = made.weight * -rng.uniform(5, 7, (4, 12))
  for name in ('advantage', 'value', 'returns'):
    getattr(made, name)[:] = made.weight * rng.standard_normal((4, 12))
  return made


@pytest.fixture(scope='module')
def params():
  value = reward.init(jax.random.key(1), toy.model(3), toy.CONFIG)
  return ppo.Learned(toy.model(), value)


def test_loss_of_a_model_is_the_formula(rows, params):
  logp = policies.forward(params.policy, rows)
  ratio = np.exp(logp - rows.old)
  first = -np.minimum(ratio * rows.advantage, np.clip(ratio, 0.8, 1.2) * rows.advantage)
  inputs = rows.tokens, rows.position, rows.segment
  now = np.asarray(reward.token_rewards(params.value, *inputs, toy.CONFIG))
  near = np.clip(now, rows.value - 0.3, rows.value + 0.3)
  second = np.maximum((now - rows.returns) ** 2, (near - rows.returns) ** 2)
  expected = ((first + 0.35 * second) * rows.weight).sum()
  total, metrics = loss(params, rows, toy.CONFIG, toy.CONFIG, C)
  np.testing.assert_allclose(total, expected, rtol=1e-4)
  assert float(metrics['count']) == rows.weight.sum()


def test_the_critic_without_a_reward_model_says_zero(rows, params):
  made = ppo.critic(jax.random.key(0), params.policy, toy.CONFIG)
  assert np.all(ppo.values(made, rows, toy.CONFIG, 2) == 0)
  found = ppo.values(params.value, rows, toy.CONFIG, 3)
  inputs = rows.tokens, rows.position, rows.segment
  plain = np.asarray(reward.token_rewards(params.value, *inputs, toy.CONFIG))
  np.testing.assert_allclose(found, plain * rows.weight, atol=1e-5)


def test_values_and_loss_are_the_same_on_a_mesh(rows, params):
  expected = loss(params, rows, toy.CONFIG, toy.CONFIG, C)[0]
  values = ppo.values(params.value, rows, toy.CONFIG, 4)
  sizes = dict(replica=1, fsdp=2, stage=1, context=2, tensor=2)
  with jax.set_mesh(mesh.create(sizes)):
    value = reward.init(jax.random.key(1), toy.model(3), toy.CONFIG)
    sharded = ppo.Learned(toy.model(), value)
    again = ppo.values(sharded.value, rows, toy.CONFIG, 4)
    found = loss(sharded, feed.place(rows), toy.CONFIG, toy.CONFIG, C)[0]
  np.testing.assert_allclose(found, expected, rtol=1e-3)
  np.testing.assert_allclose(again, values, atol=1e-3)
