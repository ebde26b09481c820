"""The device mesh: [TP, CP, PP, DP] of section 3.3.2, read from the outside in."""

import math

import jax
import numpy as np

from llama3_jax import axes
from llama3_jax.config import UserError


def shape(config, n_devices):
  """Sizes of the five axes for `n_devices`; one axis may be -1, the rest.

  Args: config: mapping of axis name to size (the `mesh` part of a config).
  Raises UserError when the product is not the number of devices.
  """
  sizes = [int(config[a]) for a in axes.AXES]
  for axis, size in zip(axes.AXES, sizes):
    if size < 1 and size != -1:
      raise UserError(f'mesh.{axis}={size}: a size is 1 or more, or -1 for the rest')
  free = [i for i, s in enumerate(sizes) if s == -1]
  if len(free) > 1:
    names = ', '.join(f'mesh.{axes.AXES[i]}' for i in free)
    raise UserError(f'{names} are all -1: at most one axis can be "the rest"')
  known = math.prod(s for s in sizes if s != -1)
  if free and known and n_devices % known == 0:
    sizes[free[0]] = n_devices // known
  if math.prod(sizes) != n_devices:
    product = ' x '.join(f'{a}={s}' for a, s in zip(axes.AXES, sizes))
    raise UserError(f'mesh {product} does not fill {n_devices} devices: change mesh.*')
  return tuple(sizes)


def check(sizes, model, pipelined=False):
  """UserError when a model dim does not divide over the mesh axis it lives on.

  `pipelined`: the caller runs its layers over `stage`; without, a larger `stage` would
  only repeat the work.
  """
  size = dict(zip(axes.AXES, sizes))
  if size['stage'] != 1 and not pipelined:
    raise UserError(
      f'mesh.stage={size["stage"]}: this experiment has no pipeline; set mesh.stage=1 '
      'and give the devices to mesh.fsdp'
    )
  for dim, n in model.sizes.items():
    parts = math.prod(size[a] for a in axes.RULES.get(dim, ()))
    if n % parts:
      raise UserError(
        f'dim {dim}={n} of the model does not divide over mesh '
        f'{"/".join(axes.RULES[dim])}={parts}: change mesh.* or the model size'
      )


def check_batch(sizes, batch, length, microbatches=1):
  """UserError when rows or columns of a batch do not divide over the mesh."""
  size = dict(zip(axes.AXES, sizes))
  rows, columns = size['replica'] * size['fsdp'], size['context']
  if batch % microbatches or batch // microbatches % rows:
    raise UserError(
      f'train.batch={batch} in train.microbatches={microbatches} parts does not divide '
      f'over mesh replica x fsdp = {rows}: change one of them (or train.ramp)'
    )
  if length % columns:
    raise UserError(
      f'train.length={length} does not divide over mesh.context={columns}: '
      'change one of them (or train.ramp)'
    )


def create(config, devices=None):
  """jax Mesh with explicit axes over `devices` (default: all)."""
  devices = jax.devices() if devices is None else devices
  sizes = shape(config, len(devices))
  if len({getattr(d, 'slice_index', 0) for d in devices}) > 1:
    return _hybrid(sizes, devices)
  return jax.make_mesh(
    sizes, axes.AXES, axis_types=_explicit(), devices=np.asarray(devices)
  )


def _hybrid(sizes, devices):
  """Several slices: `replica` crosses the slow network, the rest stays inside."""
  from jax.experimental import mesh_utils

  inside, between = (1, *sizes[1:]), (sizes[0], 1, 1, 1, 1)
  grid = mesh_utils.create_hybrid_device_mesh(inside, between, devices)
  return jax.sharding.Mesh(grid, axes.AXES, axis_types=_explicit())


def abstract(sizes):
  """Mesh of absent devices, to type-check a config without its hardware."""
  return jax.sharding.AbstractMesh(tuple(sizes), axes.AXES, axis_types=_explicit())


def _explicit():
  return (jax.sharding.AxisType.Explicit,) * len(axes.AXES)
