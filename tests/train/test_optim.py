"""AdamW: equal to optax's in float32, close to it with small moments."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from llama3_jax import axes
from llama3_jax.base.errors import UserError
from llama3_jax.train import optim

C = optim.OptimConfig(peak=0.05, warmup=5, decay=0, eps=1e-8, weight_decay=0.01)


def problem():
  """A least-squares loss in a matrix and a norm scale, and its start."""
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(64, 16)), jnp.float32)
  y = x @ jnp.asarray(rng.normal(size=(16, 8)), jnp.float32)
  params = {'w': jnp.zeros((16, 8)), 'norm': jnp.ones((8,))}
  return lambda p: jnp.mean((x @ p['w'] * p['norm'] - y) ** 2), params


def train(optimizer, steps=200):
  loss, params = problem()
  state = optimizer.init(params)

  @jax.jit
  def step(params, state):
    value, grads = jax.value_and_grad(loss)(params)
    updates, state = optimizer.update(grads, state, params)
    return optax.apply_updates(params, updates), state, value

  values = []
  for _ in range(steps):
    params, state, value = step(params, state)
    values.append(float(value))
  return params, state, values


def test_it_is_optax_adamw_in_float32():
  from llama3_jax.train import schedule

  rate = lambda n: schedule.learning_rate(n, C.schedule)
  reference = optax.chain(
    optax.clip_by_global_norm(C.clip),
    optax.adamw(rate, C.b1, C.b2, C.eps, weight_decay=0.01, mask=optim.decayed),
  )
  ours, theirs = train(optim.create(C), 50), train(reference, 50)
  for a, b in zip(jax.tree.leaves(ours[0]), jax.tree.leaves(theirs[0])):
    np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize('mu,nu', [('bfloat16',) * 2, ('int8',) * 2])
def test_small_moments_train_as_well(mu, nu):
  full = train(optim.create(C))[2]
  small = train(optim.create(dataclasses.replace(C, mu_dtype=mu, nu_dtype=nu)))[2]
  assert full[0] == small[0]
  assert small[-1] < 1e-4 * full[0]


def test_small_moments_are_small():
  def size(dtype):
    c = dataclasses.replace(C, mu_dtype=dtype, nu_dtype=dtype)
    state = jax.eval_shape(optim.scale_by_adam(c).init, {'w': jnp.zeros((64, 1024))})
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves((state.mu, state.nu)))

  assert size('float32') == 8 * 64 * 1024
  assert size('bfloat16') == 4 * 64 * 1024
  assert size('int8') < 2.02 * 64 * 1024


def test_a_first_moment_in_int8_is_off_by_half_a_step_of_its_row_at_most():
  x = np.random.default_rng(0).normal(size=(6, 64)).astype(np.float32)
  x[1], x[2] = -np.abs(x[1]), -1e-6 * np.abs(x[2])  # rows without a positive value
  x[3, 0], x[4, 0], x[5] = -50, 50, 0
  packed = optim._pack_mu(jnp.asarray(x), 'int8')
  step = np.abs(x).max(-1, keepdims=True) / 127
  np.testing.assert_allclose(packed.scale, step, rtol=1e-6)
  assert np.all(np.abs(optim._open_mu(packed) - x) <= 0.5001 * step)
  assert np.asarray(packed.values).min() == -127  # the sign and the range are used


def test_a_second_moment_in_int8_is_never_zero_where_it_was_not():
  x = jnp.asarray([[1e-6, 1e-3, 1.0]]) ** 2
  found = optim._open_nu(optim._pack_nu(x, 'int8'))
  assert np.all(np.asarray(found) >= np.asarray(x) * 0.99)


def test_small_moments_are_cut_like_the_parameters(mesh):
  c = dataclasses.replace(C, mu_dtype='int8', nu_dtype='int8')
  with jax.set_mesh(mesh(fsdp=4, tensor=2)):
    params = {'w': axes.shard(jnp.zeros((8, 16)), 'DF')}
    state = jax.jit(optim.create(c).init)(params)
    step = functools.partial(optim.create(c).update)
    _, state = jax.jit(step)(params, state, params)
  assert state[1].mu['w'].values.sharding.shard_shape((8, 16)) == (2, 8)


def test_equal_configs_share_an_optimizer_so_that_steps_compile_once():
  assert optim.create(C) is optim.create(dataclasses.replace(C))
  assert optim.create(C) is not optim.create(dataclasses.replace(C, clip=2.0))


def test_an_unknown_dtype_is_named():
  with pytest.raises(UserError, match='optim.nu_dtype'):
    optim.create(dataclasses.replace(C, nu_dtype='int4'))
