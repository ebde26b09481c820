"""Saves and restores the state of a run, in any order of the layers."""

from collections.abc import Mapping

import jax

from llama3_jax.base.errors import UserError
from llama3_jax.pipeline import layout as layouts
from llama3_jax.train import digest
from llama3_jax.train.checkpoint import Checkpoints
from llama3_jax.train.step import State


def restore(
  checkpoints: Checkpoints, state: State, step: int, layout: layouts.Layout | None
) -> tuple[State, dict]:
  """(state, data) of a save, in the order of `layout`, whatever order it was saved in.

  state: arrays in that order; layout: of a pipeline, None: the model's own.
  """
  then = checkpoints.data(step).get('layout')
  then = then and layouts.Layout(**then)
  kept = _kept(state)
  if then == layout:
    like = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
    restored, data = checkpoints.restore(jax.tree.map(like, kept), step)
  else:
    mesh = jax.sharding.get_mesh()
    restored, data = checkpoints.restore(layouts.saved(kept, layout, then, mesh), step)
    restored = jax.jit(layouts.convert, static_argnums=(1, 2))(restored, then, layout)
  before, now = data.get('frozen') or {}, frozen(state) or {}
  if before != now:
    names = [name for name in before | now if before.get(name) != now.get(name)]
    raise UserError(
      f'{checkpoints.folder}: step {step} was trained beside other frozen parameters '
      f'({names[0]}): give the init_from and the part of then, or another --workdir'
    )
  return state.replace(**restored), data


def save(checkpoints: Checkpoints, state: State, step: int, data: Mapping) -> None:
  """Save the trained part; data['frozen'] holds the digests that `restore` compares."""
  checkpoints.save(step, _kept(state), data)


def frozen(state: State) -> dict[str, list[str]] | None:
  """{name: digest} of the frozen parameters, None where there are none."""
  return digest.arrays(state.frozen) if state.frozen is not None else None


def _kept(state):
  """Content of a save: all but the frozen parameters, which init_from has."""
  return {k: v for k, v in vars(state).items() if k != 'frozen'}
