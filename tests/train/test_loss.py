"""Chunked log-probabilities, the global normalisation, memory and precision."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from llama3_jax import axes
from llama3_jax import feed
from llama3_jax.config import ModelConfig
from llama3_jax.model import llama
from llama3_jax.train import loss as losses
from llama3_jax.train import step

C = ModelConfig(2, 32, 4, 2, 8, 48, vocab_size=64, dtype='float32', attention='dense')
B, T = 8, 24
SGD = optax.sgd(1.0)  # one step: the difference of the parameters is the gradient


@pytest.fixture(scope='module')
def params():
  return jax.jit(llama.init, static_argnums=1)(jax.random.key(0), C)


def batch(seed=0, weight=None):
  """Rows whose supervised counts differ much: 0 to all of their tokens."""
  rng = np.random.default_rng(seed)
  tokens, targets = rng.integers(0, C.vocab_size, (2, B, T)).astype(np.int32)
  if weight is None:
    weight = (np.arange(T) < np.arange(B)[:, None] * 3).astype(np.float32)
    weight *= rng.random((B, T)).astype(np.float32) * 3
  return feed.Tokens(
    tokens=tokens,
    targets=targets,
    segment=np.ones((B, T), np.int32),
    position=np.tile(np.arange(T, dtype=np.int32), (B, 1)),
    weight=weight,
  )


def close(found, expected, tolerance=1e-5):
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected)):
    a, b = np.asarray(a), np.asarray(b)
    assert np.abs(a - b).max() <= tolerance * max(np.abs(b).max(), 1e-6)


def dense_loss(params, hidden, b, z_loss):
  """The formula, with all logits at once."""
  logits = llama.logits(params, hidden, C)
  logz = jnp.log(jnp.sum(jnp.exp(logits), -1))
  picked = jnp.take_along_axis(logits, b.targets[..., None], -1)[..., 0]
  return jnp.sum(b.weight * (logz - picked + z_loss * logz**2))


@pytest.mark.parametrize('chunk', [0, 1, 7, 8])
def test_chunked_logprobs_are_the_dense_ones_with_gradients(params, chunk):
  b = batch()
  hidden = np.random.default_rng(1).normal(size=(B, T, 32)).astype(np.float32)

  def chunked(params, hidden):
    logp, logz = losses.logprobs(params, hidden, b.targets, C, chunk)
    assert logp.dtype == logz.dtype == jnp.float32
    return jnp.sum(b.weight * (-logp + 1e-2 * logz**2))

  def dense(params, hidden):
    return dense_loss(params, hidden, b, 1e-2)

  both = (
    jax.jit(jax.value_and_grad(f, (0, 1)))(params, hidden) for f in (chunked, dense)
  )
  close(*both)


def test_logprobs_come_back_in_their_places(params):
  b = batch()
  hidden = np.random.default_rng(1).normal(size=(B, T, 32)).astype(np.float32)
  logits = np.asarray(llama.logits(params, hidden, C))
  full = jax.nn.log_softmax(logits)
  expected = np.take_along_axis(np.asarray(full), b.targets[..., None], -1)[..., 0]
  logp, logz = losses.logprobs(params, hidden, b.targets, C, 7)
  np.testing.assert_allclose(logp, expected, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(logz, jax.nn.logsumexp(logits, -1), rtol=1e-5)


def test_next_token_returns_sums_and_their_count(params):
  b = batch()
  total, sums = losses.next_token(params, b, C, z_loss=1e-2, chunk=8)
  hidden, _ = llama.forward(params, b.tokens, b.position, b.segment, C)
  assert float(total) == pytest.approx(float(dense_loss(params, hidden, b, 1e-2)))
  assert float(sums['loss']) == pytest.approx(float(dense_loss(params, hidden, b, 0)))
  assert float(sums['count']) == pytest.approx(b.weight.sum())
  assert total.dtype == jnp.float32 and total.shape == ()


def test_unsupervised_tokens_have_no_say(params):
  b = batch()
  other = b.replace(targets=np.where(b.weight > 0, b.targets, 0))
  f = jax.jit(jax.grad(lambda p, b: losses.next_token(p, b, C)[0]))
  close(f(params, b), f(params, other), 0)


LOSS = functools.partial(losses.next_token, config=C, z_loss=1e-3, chunk=8)


def updated(params, b, microbatches=1):
  """Metrics, and the normalised gradient as the step of plain gradient descent."""
  train_step = step.compose(LOSS, SGD, microbatches)
  state = train_step.start(jax.tree.map(jnp.copy, params))
  state, found = train_step(state, feed.place(b))
  return state.params, found


@pytest.fixture(scope='module')
def expected(params):
  return updated(params, batch())


def test_step_divides_by_the_global_count(params, expected):
  b = batch()
  count = b.weight.sum()
  grads = jax.jit(jax.grad(lambda p: LOSS(p, b)[0]))(params)
  by_hand = jax.tree.map(lambda p, g: p - g / count, params, grads)
  close(by_hand, expected[0])
  loss = float(LOSS(params, b)[1]['loss']) / count
  assert float(expected[1]['loss']) == pytest.approx(loss, rel=1e-5)
  norm = float(optax.tree.norm(grads)) / count
  assert float(expected[1]['grad_norm']) == pytest.approx(norm, rel=1e-4)


@pytest.mark.parametrize('microbatches', [2, 8])
def test_step_does_not_depend_on_microbatches(params, expected, microbatches):
  """Rows have 0 to 21 supervised tokens, so means of means would differ."""
  close(updated(params, batch(), microbatches), expected)


def test_step_does_not_depend_on_the_mesh(params, expected, mesh):
  with jax.set_mesh(mesh(fsdp=4, tensor=2)):
    placed = jax.tree.map(axes.shard, params, llama.dims(C))
    close(updated(placed, batch(), 2), expected, 2e-5)


def test_step_does_not_depend_on_the_order_of_rows(params, expected):
  order = np.random.default_rng(0).permutation(B)
  close(updated(params, jax.tree.map(lambda x: x[order], batch()), 2), expected)


def test_padding_rows_do_not_dilute_the_loss(params):
  """A batch and the same batch with rows of weight 0 give the same step."""
  weight = np.ones((B, T), np.float32)
  weight[4:] = 0
  half = jax.tree.map(lambda x: x[:4], batch(weight=weight))
  close(updated(params, batch(weight=weight)), updated(params, half))


def test_batch_without_supervision_changes_nothing(params):
  new, found = updated(params, batch(weight=np.zeros((B, T), np.float32)))
  close(new, params, 0)
  assert float(found['loss']) == 0 and float(found['count']) == 0


def test_evaluation_is_the_mean_over_all_tokens(params):
  batches = [batch(0), batch(1, np.full((B, T), 0.5, np.float32))]
  sums = [LOSS(params, b)[1] for b in batches]
  total, count = (sum(float(s[k]) for s in sums) for k in ('loss', 'count'))
  found = step.evaluate(params, [feed.place(b) for b in batches], LOSS)
  assert found['loss'] == pytest.approx(total / count, rel=1e-5)
  assert set(found) == {'loss'}


def shapes(jaxpr):
  """Shapes of all intermediate arrays of a jaxpr, inner ones too."""
  for eqn in jaxpr.eqns:
    for var in eqn.outvars:
      yield tuple(var.aval.shape)
    inner = jax.tree.leaves(
      list(eqn.params.values()), is_leaf=lambda x: hasattr(x, 'eqns')
    )
    for j in inner:
      if hasattr(j, 'eqns'):
        yield from shapes(getattr(j, 'jaxpr', j))


WIDE = dataclasses.replace(C, vocab_size=4096)


def gradient(chunk):
  params = llama.abstract(WIDE)
  b = jax.tree.map(lambda x: jax.ShapeDtypeStruct((2, 64), x.dtype), batch())
  f = jax.grad(lambda p, b: losses.next_token(p, b, WIDE, 1e-4, chunk)[0])
  return f, params, b


@pytest.mark.parametrize('chunk,holds', [(8, False), (0, True)])
def test_chunked_loss_never_holds_all_logits(chunk, holds):
  f, params, b = gradient(chunk)
  found = shapes(jax.make_jaxpr(f)(params, b).jaxpr)
  limit = 2 * 64 * 4096
  big = {s for s in found if 4096 in s and np.prod(s) >= limit}
  assert bool(big) == holds, big


def test_chunked_loss_needs_less_memory():
  def memory(chunk):
    f, params, b = gradient(chunk)
    return jax.jit(f).lower(params, b).compile().memory_analysis().temp_size_in_bytes

  logits = 2 * 64 * 4096 * 4
  assert memory(8) + logits / 2 < memory(0)


def test_chunks_stay_spread_over_context(mesh):
  """Each device has its share of every chunk: no device holds a whole chunk."""
  with jax.set_mesh(mesh(fsdp=2, context=4)):
    hidden = axes.shard(jnp.zeros((2, 64, 32)), 'BTD')
    targets = axes.shard(jnp.zeros((2, 64), jnp.int32), 'BT')
    params = jax.jit(llama.init, static_argnums=1)(jax.random.key(0), C)
    logp, _ = jax.jit(losses.logprobs, static_argnums=(3, 4))(
      params, hidden, targets, C, 16
    )
  assert logp.sharding.shard_shape(logp.shape) == (1, 16)


def toy_loss(params, b):
  """Gradient of `w` is the sum of `g`, computed in bfloat16."""
  w = params['w'].astype(jnp.bfloat16)
  total = jnp.sum(w * b['g'].astype(jnp.bfloat16))
  return total.astype(jnp.float32), {'count': jnp.float32(1)}


def test_gradients_are_accumulated_in_float32():
  """256 + 1023 x 1: bfloat16 sums would stay at 256, since 256 + 1 rounds to 256."""
  params = {'w': jnp.zeros(())}
  g = np.ones((1024,), np.float32)
  g[0] = 256
  grads, sums = step.gradients(toy_loss, params, {'g': jnp.asarray(g)}, 1024)
  assert grads['w'].dtype == jnp.float32
  assert float(grads['w']) == 256 + 1023
  assert float(sums['count']) == 1024


def test_bfloat16_model_has_float32_gradients_near_the_float32_ones(params):
  half = dataclasses.replace(C, dtype='bfloat16')

  def f(p, c):
    return losses.next_token(p, batch(), c, chunk=8)[0]

  a, b = (jax.jit(jax.grad(f), static_argnums=1)(params, c) for c in (half, C))
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
    assert x.dtype == jnp.float32
    cosine = jnp.sum(x * y) / jnp.linalg.norm(x) / jnp.linalg.norm(y)
    assert cosine > 0.99
