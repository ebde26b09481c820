"""The programs to compile: the real steps, on abstract arguments."""

from collections.abc import Iterable

import jax
import jax.numpy as jnp

from llama3_jax import axes
from llama3_jax.train import step


def array(
  mesh: jax.sharding.Mesh,
  shape: Iterable[int],
  dims: str,
  dtype: jax.typing.DTypeLike = jnp.int32,
) -> jax.ShapeDtypeStruct:
  """Abstract array of `shape`, laid out by its letters."""
  sharding = jax.sharding.NamedSharding(mesh, axes.spec(dims))
  return jax.ShapeDtypeStruct(tuple(shape), dtype, sharding=sharding)


def train(
  mesh: jax.sharding.Mesh, params: object, batch: object, train_step: step.TrainStep
) -> jax.stages.Lowered:
  """The lowered `step.TrainStep` of abstract params and batch."""
  with jax.set_mesh(mesh):
    state = jax.eval_shape(train_step.start, params)
    return step.train_step.lower(state, batch, train_step)
