"""The device mesh: [TP, CP, PP, DP] of section 3.3.2, read from the outside in."""

import math
from collections.abc import Mapping
from collections.abc import Sequence

import jax
import numpy as np
from ml_collections import ConfigDict

from llama3_jax import axes
from llama3_jax.base.errors import UserError
from llama3_jax.config import ModelConfig


def shape(config: ConfigDict | Mapping[str, int], n_devices: int) -> tuple[int, ...]:
  """Sizes of the five axes for `n_devices`; one axis may be -1, the rest.

  Args: config: mapping of axis name to size (the `mesh` part of a config); missing axes
  have size 1.
  Raises UserError when the product is not the number of devices.
  """
  sizes = [int(config.get(a, 1)) for a in axes.AXES]
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


def check(sizes: Sequence[int], model: ModelConfig, pipelined: bool = False) -> None:
  """Raises UserError when a dim of the model does not divide over its mesh axes.

  `pipelined`: the caller runs its layers over `stage`; otherwise a larger `stage` would
  only repeat the work.
  """
  size = dict(zip(axes.AXES, sizes))
  if size['stage'] != 1 and not pipelined:
    raise UserError(
      f'mesh.stage={size["stage"]}: this experiment has no pipeline; set mesh.stage=1 '
      'and give the devices to mesh.fsdp'
    )
  for dim, n in model.sizes.items():
    parts = axes.parts(dim, size)
    if n % parts:
      names = ' x '.join(f'{a}={size[a]}' for a in axes.over(dim) if size[a] > 1)
      fit = [d for d in range(1, n + 1) if n % d == 0]
      near = sorted(sorted(fit, key=lambda d: abs(d - parts))[:2])
      raise UserError(
        f'dim {dim}={n} of the model does not divide over mesh {names}: {parts} parts; '
        f'{" or ".join(map(str, near))} would do: change mesh.*, the model size or the '
        'number of devices'
      )


def check_batch(
  sizes: Sequence[int], batch: int, length: int, microbatches: int = 1
) -> None:
  """Raises UserError when rows or columns of a batch do not divide over the mesh."""
  size = dict(zip(axes.AXES, sizes))
  rows, columns = axes.parts('B', size), axes.parts('T', size)
  if batch % microbatches or batch // microbatches % rows:
    raise UserError(
      f'train.batch={batch} in train.microbatches={microbatches} parts does not divide '
      f'over mesh {" x ".join(axes.over("B"))} = {rows}: change one of them (or '
      'train.ramp)'
    )
  if columns > 1 and length % (2 * columns):
    raise UserError(
      f'train.length={length} does not divide into the 2 x {columns} chunks of '
      f'mesh.{axes.over("T")[0]}={columns}: change one of them (or train.ramp)'
    )


def create(
  config: ConfigDict | Mapping[str, int], devices: Sequence[jax.Device] | None = None
) -> jax.sharding.Mesh:
  """Mesh with explicit axes over `devices` (default: all)."""
  devices = jax.devices() if devices is None else devices
  grid = arrange(shape(config, len(devices)), devices)
  return jax.sharding.Mesh(grid, axes.AXES, axis_types=_explicit())


def arrange(shape: Sequence[int], found: Sequence[jax.Device]) -> np.ndarray:
  """Devices as an array of `shape` (the five axes): an axis runs along whole dims of
  the torus where that is possible, and the order is the same inside every slice.

  Only `replica`, the outermost axis, crosses slices.
  """
  from jax.experimental import mesh_utils

  found = list(found)
  if found[0].platform != 'tpu':
    return np.array(found, dtype=object).reshape(shape)
  coordinates = lambda d: (*d.coords, d.core_on_chip)
  parts = {}
  for d in found:  # a single slice has no index
    parts.setdefault(getattr(d, 'slice_index', 0), []).append(d)
  parts = [parts[s] for s in sorted(parts)]
  inside = (shape[0] // len(parts), *shape[1:])
  try:
    first = mesh_utils.create_device_mesh(inside, parts[0])
  except (NotImplementedError, ValueError):
    first = mesh_utils.create_device_mesh(
      inside, parts[0], allow_split_physical_axes=True
    )
  grids = []
  for part in parts:
    at = {coordinates(d): d for d in part}
    grid = np.empty(first.shape, dtype=object)
    for i in np.ndindex(first.shape):
      grid[i] = at[coordinates(first[i])]
    grids.append(grid)
  return np.concatenate(grids, axis=0)


def abstract(sizes: Sequence[int]) -> jax.sharding.AbstractMesh:
  """Mesh of absent devices, to type-check a config without its hardware."""
  return jax.sharding.AbstractMesh(tuple(sizes), axes.AXES, axis_types=_explicit())


def _explicit():
  return (jax.sharding.AxisType.Explicit,) * len(axes.AXES)
