"""Absent devices, in the order that a mesh over them needs (3.3.2)."""

import dataclasses
import itertools
import math
from collections.abc import Mapping
from collections.abc import Sequence

import jax
from ml_collections import ConfigDict

from llama3_jax import mesh as meshes
from llama3_jax.base.errors import UserError
from llama3_jax.plan import chips

GPUS_A_HOST = 8
FLAT = ('1x1', '2x2', '2x4', '4x4', '4x8', '8x8', '8x16', '16x16')
SMALL_CUBES = ('1x1x1', '2x2x1', '2x2x2', '2x2x4', '2x4x4')


@dataclasses.dataclass(frozen=True)
class Target:
  """The requested hardware."""

  chip: chips.Chip
  dims: tuple[int, ...]  # of one slice, in chips
  slices: int = 1

  @property
  def n_chips(self) -> int:
    return math.prod(self.dims) * self.slices

  @property
  def n_devices(self) -> int:
    return self.n_chips * self.chip.devices

  @property
  def wrap(self) -> tuple[bool, ...]:
    """Which dims of a slice are closed to rings. Without this the compiler generates
    other collectives: gathers become padded all-reduces."""
    chip, dims = self.chip, self.dims
    if chip.dims == 3:  # only a slice of whole 4 x 4 x 4 cubes is a torus
      return (all(d % chip.ring == 0 for d in dims),) * 3
    return tuple(d >= chip.ring for d in dims) + (False,)

  def __str__(self) -> str:
    text = f'{self.chip.name}:{"x".join(map(str, self.dims))}'
    return text + (f',{self.slices}slices' if self.slices > 1 else '')


def parse(text: str) -> Target:
  """Target of 'v5p:4x4x4', 'v5e:16x16,2slices' (or 'v5e:16x16x2') or 'h100:128'."""
  name, _, shape = text.partition(':')
  if name not in chips.CHIPS:
    known = ', '.join(chips.CHIPS)
    raise UserError(f'plan.target={text!r}: no chip {name!r}; there are {known}')
  chip = chips.CHIPS[name]
  shape, _, slices = shape.partition(',')
  example = {1: '128', 2: '16x16', 3: '4x4x4'}[chip.dims]
  wrong = UserError(
    f'plan.target={text!r} is not understood: write {name}:{example}, '
    f'or {name}:{example},2slices'
  )
  try:
    dims = tuple(int(d) for d in shape.split('x'))
    slices = int(slices.removesuffix('slices').removesuffix('slice') or 1)
  except ValueError:
    raise wrong from None
  if len(dims) == chip.dims + 1 and slices == 1:
    *dims, slices = dims
  if len(dims) != chip.dims or slices < 1 or min(dims) < 1:
    raise wrong
  target = Target(chip, tuple(dims), slices)
  _check(text, target)
  return target


def _check(text, target):
  chip, dims = target.chip, target.dims
  if chip.dims == 1:
    n = dims[0]
    if n > GPUS_A_HOST and n % GPUS_A_HOST:
      near = n // GPUS_A_HOST * GPUS_A_HOST
      raise UserError(
        f'plan.target={text!r}: {n} GPUs are not whole hosts of {GPUS_A_HOST}; '
        f'use {chip.name}:{near} or {chip.name}:{near + GPUS_A_HOST}'
      )
    return
  known = sizes(chip)
  if dims not in known:
    chosen = sorted(known, key=lambda d: (_far(d, dims), d))[:3]
    near = ', '.join(f'{chip.name}:{"x".join(map(str, d))}' for d in chosen)
    raise UserError(f'plan.target={text!r} is no slice of {chip.name}; near: {near}')


def _far(a, b):
  return abs(math.log(math.prod(a) / math.prod(b)))


def sizes(chip: chips.Chip) -> list[tuple[int, ...]]:
  """Every available slice of `chip`, as tuples of dims."""
  if chip.dims == 2:
    return [tuple(map(int, s.split('x'))) for s in FLAT]
  cubes = [tuple(map(int, s.split('x'))) for s in SMALL_CUBES]
  steps = [range(chip.ring, top + 1, chip.ring) for top in chip.largest]
  return cubes + [d for d in itertools.product(*steps) if d == tuple(sorted(d))]


def devices(target: Target) -> Sequence[jax.Device]:
  """The absent devices, as jax.Device objects for a mesh.

  Raises UserError when the compiler for them is not installed.
  """
  from jax.experimental import topologies

  chip = target.chip
  extra = 'plan-tpu' if chip.platform == 'tpu' else 'plan-gpu'
  missing = UserError(
    f"plan.target={target}: its compiler is not installed; pip install -e '.[{extra}]'"
  )
  if not installed(chip):
    raise missing
  if chip.platform == 'cuda':
    hosts = max(target.dims[0] // GPUS_A_HOST, 1)
    shape = f'{target.slices}x{hosts}x{min(target.dims[0], GPUS_A_HOST)}'
    described = topologies.get_topology_desc(
      platform='cuda',
      topology_name='',
      target_config=chips.H100_TARGET,
      topology=shape,
    )
    return described.devices
  host = (2, 2, 1) if target.n_chips // target.slices >= 4 else (1, 1, 1)
  several = dict(num_slices=target.slices) if target.slices > 1 else {}
  name = f'{chip.prefix}:{"x".join(map(str, target.dims))}'
  described = topologies.get_topology_desc(
    platform='tpu',
    topology_name=name,
    chip_config_name=chip.layout,
    chips_per_host_bounds=host,
    wrap=target.wrap,
    **several,
  )
  return described.devices


def installed(chip: chips.Chip) -> bool:
  """Whether the compiler for `chip` can be imported."""
  import importlib.util

  if chip.platform == 'tpu':
    return importlib.util.find_spec('libtpu') is not None
  plugins = ('jax_cuda12_plugin', 'jax_cuda13_plugin')
  return any(importlib.util.find_spec(n) is not None for n in plugins)


def mesh(
  config: ConfigDict | Mapping[str, int],
  target: Target,
  found: Sequence[jax.Device] | None = None,
) -> jax.sharding.Mesh:
  """Explicit Mesh of the config's axis sizes over the absent devices of `target`."""
  check(config, target)
  return meshes.create(config, devices(target) if found is None else found)


def check(config: ConfigDict | Mapping[str, int], target: Target) -> tuple[int, ...]:
  """Axis sizes for `target`; UserError when they cannot fill its devices and slices."""
  shape = meshes.shape(config, target.n_devices)
  if shape[0] % target.slices:
    raise UserError(
      f'mesh.replica={shape[0]} does not divide into {target.slices} slices, and only '
      f'replica may cross them: set mesh.replica={target.slices} or a multiple'
    )
  return shape
