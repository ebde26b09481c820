"""A save as the state of a run, whatever order of the layers it was saved in."""

import jax

from llama3_jax.pipeline import layout as layouts


def restore(checkpoints, state, step, layout):
  """(state, data) of a save, in the order of `layout` whatever it was saved in.

  `state`: arrays in that order; layout: of a pipeline, None: the model's own.
  """
  then = checkpoints.data(step).get('layout')
  then = then and layouts.Layout(**then)
  if then == layout:
    like = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
    return checkpoints.restore(jax.tree.map(like, state), step)
  mesh = jax.sharding.get_mesh()
  found, data = checkpoints.restore(layouts.saved(state, layout, then, mesh), step)
  return jax.jit(layouts.convert, static_argnums=(1, 2))(found, then, layout), data
