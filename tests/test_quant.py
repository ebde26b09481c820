"""Matrix products in small types: close to the full ones, the same on any mesh."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama3_jax import feed
from llama3_jax import quant
from llama3_jax.base.errors import UserError
from llama3_jax.config import ModelConfig
from llama3_jax.model import linear
from llama3_jax.model import llama
from llama3_jax.train import loss as losses

pytest.importorskip('qwix', reason="needs pip install '.[quant]'")
C = ModelConfig(2, 32, 4, 2, 8, 64, vocab_size=64, dtype='float32', attention='dense')


def gradients(config):
  rng = np.random.default_rng(0)
  tokens, targets = rng.integers(0, 64, (2, 8, 16)).astype(np.int32)
  ones = np.ones_like(tokens)
  batch = feed.place(
    feed.Tokens(
      tokens=tokens,
      targets=targets,
      segment=ones,
      position=np.arange(16, dtype=np.int32) * ones,
      weight=ones.astype(np.float32),
    )
  )
  params = jax.jit(llama.init, static_argnums=1)(jax.random.key(0), C)
  loss = lambda p, b: losses.next_token(p, b, config)[0]
  value, grads = jax.jit(jax.value_and_grad(loss))(params, batch)
  return float(value), jax.tree.map(np.asarray, grads)


@pytest.mark.parametrize('kind,tolerance', [('int8', 0.05), ('fp8', 0.3)])
def test_loss_and_gradients_stay_close(kind, tolerance):
  value, grads = gradients(C)
  small, others = gradients(dataclasses.replace(C, quant=kind))
  assert small == pytest.approx(value, rel=0.01)
  for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(others)):
    assert np.linalg.norm(a - b) < tolerance * np.linalg.norm(a)


@pytest.mark.parametrize('kind', quant.KINDS)
def test_small_types_do_not_depend_on_the_mesh(mesh, kind):
  c = dataclasses.replace(C, quant=kind)
  value, grads = gradients(c)
  with jax.set_mesh(mesh(fsdp=4, tensor=2)):
    found, others = gradients(c)
  assert found == pytest.approx(value, rel=1e-3)
  for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(others)):
    assert np.linalg.norm(a - b) < 0.05 * np.linalg.norm(a)


def test_products_run_in_the_small_type():
  x = jnp.ones((1, 4, 8))
  run = lambda x, w: linear.einsum('BTD,DF->BTF', x, w, quant='int8')
  text = str(jax.make_jaxpr(run)(x, jnp.ones((8, 16))))
  assert 'preferred_element_type=int32' in text


def test_an_unknown_type_is_named():
  with pytest.raises(UserError, match='model.quant'):
    quant.check('int3')
