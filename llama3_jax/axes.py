"""The alphabet: the letter of a dim gives its size, its sharding and its einsum index.

Mesh axes, outermost first: replica (between slices), fsdp, stage, context, tensor:
the paper's [TP, CP, PP, DP] (section 3.3.2) from the inside out. Only this file and
mesh.py use their names and partition specs. Without a mesh (a notebook) everything
here is plain single-device arithmetic.
"""

import functools
import math
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

AXES = ('replica', 'fsdp', 'stage', 'context', 'tensor')
# L is scanned, so it is on no axis; C, the chunks of a pipeline, is on `stage`.
# D of a weight is also cut over `context`, as in the paper: its ranks see one batch.
# U is T in the residual stream: under tensor parallelism its rows are cut further.
# R is the rank of adapters, O all inputs or outputs of their product as one dim; A an
# answer; M the width of an encoder of images or sound, P its patches, E its frames.
# T is on `context` and S is not: resharding K and V from 'BTKH' to 'BSKH' *is* the
# all-gather of context parallelism (section 3.3.2).
RULES = dict(
  B=('replica', 'fsdp'),
  T=('context',),
  U=('context', 'tensor'),
  V=('tensor',),
  N=('tensor',),
  K=('tensor',),
  F=('tensor',),
  D=('fsdp', 'context'),
  O=('fsdp', 'context'),
  C=('stage',),
)


LANES = 128  # of a register of TPUs: other sections of a dim would be copied
SECTION = 2**28  # bytes of a section of a gradient, see `sections`


def mesh() -> jax.sharding.AbstractMesh | None:
  """The ambient abstract mesh, or None when there is none."""
  m = jax.sharding.get_abstract_mesh()
  return None if m.empty else m


def over(dims: str) -> tuple[str, ...]:
  """The mesh axes that cut `dims`: over('BT') are those of the tokens of a batch."""
  return tuple(dict.fromkeys(a for d in dims for a in RULES.get(d, ())))


def parts(dims: str, sizes: Mapping[str, int] | None = None) -> int:
  """Number of parts into which the mesh cuts `dims`; 1 without a mesh.

  `sizes`: {axis: size} of a mesh that is not the ambient one.
  """
  if sizes is None:
    m = mesh()
    sizes = {} if m is None else dict(zip(m.axis_names, m.axis_sizes))
  return math.prod(sizes.get(a, 1) for a in over(dims))


def platform() -> str:
  """'cpu', 'gpu' or 'tpu': that of the mesh's devices, which may be absent ones."""
  m = mesh()
  device = m and m.abstract_device
  name = device.platform if device else jax.default_backend()
  return 'gpu' if name in ('cuda', 'rocm') else name


def spec(dims: str, gathered: bool = False) -> jax.P:
  """PartitionSpec of `dims`, e.g. 'BTD'; an axis goes to the first dim that it may cut.

  `gathered` leaves D's axes out: the spec of a weight while it is used.
  """
  taken = set(RULES['D']) if gathered else set()
  parts = []
  for d in dims:
    axes = tuple(a for a in RULES.get(d, ()) if a not in taken)
    taken.update(axes)
    parts.append(axes or None)
  return jax.P(*parts)


def shard(x: jax.Array, dims: str, gathered: bool = False) -> jax.Array:
  """`x` laid out by `dims`; moves data where the present layout differs."""
  return x if mesh() is None else jax.reshard(x, spec(dims, gathered))


def shard_scale(x: jax.Array, dims: str) -> jax.Array:
  """As `shard`, for the scales of a quantised array: a dim of size 1 is not cut."""
  if mesh() is None:
    return x
  parts = (None if n == 1 else p for n, p in zip(x.shape, spec(dims)))
  return jax.reshard(x, jax.P(*parts))


def gather(w: jax.Array, dims: str, dtype: jax.typing.DTypeLike) -> jax.Array:
  """A weight as it is used: cast while it is cut, then gathered over the axes of D."""
  return checkpoint_name(shard(w.astype(dtype), dims, gathered=True), 'weight')


def local(
  function: Callable, inputs: tuple, outputs: object, weights: Sequence[int] = ()
) -> Callable:
  """`function` mapped over the devices, each with its own part; its shapes are local.

  Used where the algorithm is written for one device (attention blocks, cache writes,
  the loss). `inputs` and `outputs` are trees of letters; arguments are laid out by them
  first. `weights`: indices of arguments that are gathered. Axes that are manual already
  (pipeline stages) stay so.
  """
  m = mesh()
  if m is None:
    return function
  inside = tuple(
    jax.tree.map(functools.partial(spec, gathered=i in weights), x)
    for i, x in enumerate(inputs)
  )
  mapped = jax.shard_map(
    function,
    in_specs=inside,
    out_specs=jax.tree.map(spec, outputs, is_leaf=lambda x: x == ()),
    axis_names=set(m.axis_names) - set(m.manual_axes),
    check_vma=False,
  )
  return lambda *arguments: mapped(*jax.tree.map(jax.reshard, arguments, inside))


def device_sum(tree: object, dims: str) -> object:
  """Inside `local`: the sum over the devices that have other parts of `dims`."""
  return tree if mesh() is None else jax.lax.psum(tree, over(dims))


def device_max(x: jax.Array, dims: str) -> jax.Array:
  """Inside `local`: the maximum over the devices that have other parts of `dims`."""
  return x if mesh() is None else jax.lax.pmax(x, over(dims))


def device_index(dims: str) -> jax.Array | int:
  """Inside `local`: the index of the device's part of `dims`."""
  return 0 if mesh() is None else jax.lax.axis_index(over(dims))


def device_scatter(x: jax.Array, letters: str, dims: str) -> jax.Array:
  """Inside `local`: the sum of `x` over the parts of `dims`, cut as the weight.

  x has the shape of the gathered weight, whose dims are `letters`; each device keeps
  its part of D.
  """
  if mesh() is None:
    return x
  cut = over('D')
  x = jax.lax.psum_scatter(x, cut, scatter_dimension=letters.index('D'), tiled=True)
  return jax.lax.psum(x, tuple(a for a in over(dims) if a not in cut))


def sections(size: int, width: int) -> int:
  """Sections of a weight's gradient, so that a device never has the whole of it.

  Each is computed and summed over the devices before the next. Args: size: bytes of the
  whole gradient on a device; width: of the dim that is cut, into whole LANES. Returns
  the most of at least SECTION bytes each that divide the dim; 1 where the mesh does not
  cut weights.
  """
  lanes, rest = divmod(width, LANES)
  if parts('D') == 1 or rest:
    return 1
  return max(n for n in range(1, -(-size // SECTION) + 1) if lanes % n == 0)


def fetch(tree: object) -> object:
  """Whole numpy arrays of `tree` on every process; all processes call it."""
  if jax.process_count() == 1:
    return jax.device_get(tree)
  from jax.experimental import multihost_utils

  return multihost_utils.process_allgather(tree, tiled=True)


def each(function: Callable[[jax.Array], jax.Array], tree: object) -> jax.Array:
  """function(local part) of every leaf on every device, [devices, leaves].

  The devices are in the order of the mesh; `function` gives a scalar. Under jit only.
  """
  leaves = jax.tree.leaves(tree)
  if mesh() is None:
    return jnp.stack([function(x) for x in leaves])[None]
  mapped = jax.shard_map(
    lambda parts: jnp.stack([function(x) for x in parts])[None],
    in_specs=([jax.typeof(x).sharding.spec for x in leaves],),
    out_specs=jax.P(AXES),
    check_vma=False,
  )
  return jax.reshard(mapped(leaves), jax.P())
