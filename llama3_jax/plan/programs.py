"""The programs that are compiled: the real steps, on arguments that are only shapes."""

import jax
import jax.numpy as jnp

from llama3_jax import axes
from llama3_jax.model import cache as kv
from llama3_jax.train import step


def array(mesh, shape, dims, dtype=jnp.int32):
  """Abstract array of `shape`, laid out by its letters."""
  place = jax.sharding.NamedSharding(mesh, axes.spec(dims))
  return jax.ShapeDtypeStruct(tuple(shape), dtype, sharding=place)


def train(mesh, params, batch, train_step):
  """The lowered `step.TrainStep` of abstract params and batch."""
  with jax.set_mesh(mesh):
    state = jax.eval_shape(train_step.start, params)
    return step.train_step.lower(state, batch, train_step)


def cache(mesh, model, batch, slots):
  """Abstract key/value cache of `batch` rows of `slots` tokens."""
  made = jax.eval_shape(lambda: kv.create(model, batch, slots))
  dims = kv.Cache('LBSKH', 'LBSKH', 'BS', 'BS', 'B')
  return jax.tree.map(lambda x, d: array(mesh, x.shape, d, x.dtype), made, dims)
