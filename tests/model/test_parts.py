"""Parts of the model at their precision, and the spread of its first values."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama3_jax.config import ModelConfig
from llama3_jax.model import llama

C = ModelConfig(3, 64, 8, 4, 8, 96, vocab_size=128, dtype='float32', attention='dense')


@pytest.mark.parametrize('size', [1e-2, 1.0, 300.0])
def test_norm_of_bfloat16_is_computed_in_float32(size):
  rng = np.random.default_rng(0)
  x = jnp.asarray(size * rng.normal(size=(8, 4096)), jnp.bfloat16)
  found = llama.rms_norm(x, jnp.ones(4096), 1e-5)
  assert found.dtype == jnp.bfloat16
  exact = np.asarray(x, np.float64)
  exact = exact / np.sqrt((exact * exact).mean(-1, keepdims=True) + 1e-5)
  error = np.abs(np.asarray(found, np.float64) - exact)
  assert np.all(error <= 2**-8 * np.abs(exact))  # one rounding, at the end


def test_norm_of_one_large_value_among_small_ones_loses_none():
  x = np.full((1, 4096), 1.0, np.float32)
  x[0, 0] = 64.0  # its square is as large as the sum of all the others
  found = llama.rms_norm(jnp.asarray(x, jnp.bfloat16), jnp.ones(4096), 0.0)
  wanted = 1 / np.sqrt((64**2 + 4095) / 4096)
  np.testing.assert_allclose(np.asarray(found[0, 1:], np.float32), wanted, rtol=2**-8)


@pytest.fixture(scope='module')
def params():
  return jax.jit(llama.init, static_argnums=1)(jax.random.key(0), C)


def test_branches_start_smaller_the_more_of_them_are_summed(params):
  """Spread of each matrix: in D^-1/2, out of a branch (fan-in x 2 layers)^-1/2."""
  wanted = dict.fromkeys(('wq', 'wk', 'wv', 'w_gate', 'w_up'), 64**-0.5)
  wanted |= {'wo': (8 * 8 * 2 * 3) ** -0.5, 'w_down': (96 * 2 * 3) ** -0.5}
  for name, spread in wanted.items():
    values = np.asarray(getattr(params.layers, name))
    assert np.std(values) == pytest.approx(spread, rel=0.05), name
    assert abs(np.mean(values)) < 0.1 * spread, name
  assert np.std(params.head) == pytest.approx(64**-0.5, rel=0.05)
  for norm in (params.norm, params.layers.attn_norm, params.layers.ff_norm):
    np.testing.assert_array_equal(norm, 1)


@pytest.mark.parametrize('size', sorted(llama.SIZES))
def test_the_first_loss_of_every_size_is_near_that_of_a_uniform_guess(size):
  """ln V plus half the variance of the logits, which is 1: tied embeddings too."""
  wide = llama.SIZES[size]
  small = dict(n_layers=2, d_model=64, n_heads=2, n_kv_heads=1, d_head=32, d_ff=128)
  c = dataclasses.replace(wide, **small, vocab_size=512, dtype='float32', block=0)
  ids = jax.random.randint(jax.random.key(1), (4, 64), 0, c.vocab_size)

  @jax.jit
  def loss(key):
    logits = llama.apply(llama.init(key, c), ids, c)[:, :-1]
    picked = jnp.take_along_axis(logits, ids[:, 1:, None], -1)[..., 0]
    return jnp.mean(jax.nn.logsumexp(logits, -1) - picked)

  assert abs(loss(jax.random.key(0)) - np.log(c.vocab_size) - 0.5) < 0.25


def test_no_two_matrices_start_alike(params):
  p = params.layers
  for a, b in ((p.wk, p.wv), (p.w_gate, p.w_up), (p.wq[0], p.wq[1]), (p.wo, p.wq)):
    a, b = (np.ravel(x)[:1000] for x in (a, b))
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.2
