"""The alphabet: one letter a dim says its shape, its sharding and its einsum.

Mesh axes, outermost first: replica (between slices), fsdp, stage, context, tensor:
the paper's [TP, CP, PP, DP] (section 3.3.2) read from the inside. This is the only
file that knows partition specs. Without a mesh (a notebook) everything here is plain
single-device arithmetic.
"""

import dataclasses
import functools
import math
import typing
import zlib

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.ad_checkpoint import checkpoint_name

from llama3_jax import quant

AXES = ('replica', 'fsdp', 'stage', 'context', 'tensor')
# L is scanned, so it is on no axis; C, the chunks of a pipeline, is on `stage`.
# D of a weight is also cut over `context`, as in the paper: its ranks see one batch.
# U is T in the residual stream: under tensor parallelism its rows are cut further.
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
  C=('stage',),
)


def mesh():
  """The ambient abstract mesh, or None when there is none."""
  m = jax.sharding.get_abstract_mesh()
  return None if m.empty else m


def size(axis):
  """Number of parts a mesh axis has; 1 without a mesh."""
  m = mesh()
  return 1 if m is None else dict(zip(m.axis_names, m.axis_sizes)).get(axis, 1)


def platform():
  """'cpu', 'gpu' or 'tpu': of the mesh's devices, which may be absent ones."""
  m = mesh()
  device = m and m.abstract_device
  found = device.platform if device else jax.default_backend()
  return 'gpu' if found in ('cuda', 'rocm') else found


def order(length):
  """Which column of its row each column of a batch is, int [length].

  Under context parallelism a row is cut into 2 x CP chunks and rank i has chunks i and
  2 x CP - 1 - i (section 3.3.2): every rank sees the same area of the causal mask. The
  kernels rely on it, so every array of rows goes through `batch`.
  """
  parts = size('context')
  if parts == 1:
    return np.arange(length)
  chunks = np.arange(length).reshape(2 * parts, -1)
  pairs = [chunks[[i, 2 * parts - 1 - i]] for i in range(parts)]
  return np.concatenate(pairs).reshape(-1)


def spec(dims, gathered=False):
  """PartitionSpec of `dims`, e.g. 'BTD'; a mesh axis goes to the first dim that asks.

  `gathered` leaves D's axes out: the spec of a weight while it is being used.
  """
  taken = set(RULES['D']) if gathered else set()
  parts = []
  for d in dims:
    axes = tuple(a for a in RULES.get(d, ()) if a not in taken)
    taken.update(axes)
    parts.append(axes or None)
  return jax.P(*parts)


def shard(x, dims, gathered=False):
  """`x` laid out by `dims`; moves data where the present layout differs."""
  return x if mesh() is None else jax.reshard(x, spec(dims, gathered))


# The arrays of a batch that are 'BT'; of others only the B is laid out.
TOKENS = ('tokens', 'targets', 'segment', 'position', 'weight')


def share():
  """(i, n): the part i of n equal parts of a batch's rows that this process needs.

  Processes that differ in `context`, `stage` or `tensor` only need the same rows.
  """
  m = jax.sharding.get_mesh()
  if m.empty or len({d.process_index for d in m.devices.flat}) == 1:
    return 0, 1
  parts = math.prod(m.shape[a] for a in RULES['B'])
  place = jax.sharding.NamedSharding(m, spec('B'))
  mine = [
    i[0].indices(parts)
    for i in place.addressable_devices_indices_map((parts,)).values()
  ]
  first, last = min(i[0] for i in mine), max(i[1] for i in mine)
  width = last - first
  if parts % width or first % width:
    return 0, 1
  return first // width, parts // width


def batch(arrays, share=(0, 1)):
  """One global batch on the ambient mesh.

  `arrays`: numpy rows; part i of n equal parts of the rows when share=(i, n). The
  columns of those that are as long as the tokens are put in the mesh's `order`.
  """
  i, n = share
  placed = {}
  columns = order(arrays['tokens'].shape[-1])
  for name, x in arrays.items():
    if size('context') > 1 and x.ndim > 1 and x.shape[-1] == len(columns):
      x = x[..., columns]
    dims = 'BT' if x.ndim == 2 and name in TOKENS else 'B'
    if mesh() is None:
      placed[name] = jnp.asarray(x)
      continue
    place = jax.sharding.NamedSharding(jax.sharding.get_mesh(), spec(dims))
    whole = (x.shape[0] * n, *x.shape[1:])

    def part(index, x=x, rows=whole[0], offset=i * x.shape[0]):
      start, stop, _ = index[0].indices(rows)
      return x[(slice(start - offset, stop - offset), *index[1:])]

    placed[name] = jax.make_array_from_callback(whole, place, part)
  return placed


def einsum(
  expression, x, w, dtype=None, place=None, keep=False, reduce='float32', quant=''
):
  """Einsum of an activation with a weight: casts and gathers it, places the result.

  The weight is cast to the activation's dtype while it is cut, then gathered over the
  axes of D, so that the gather moves the small dtype.

  Args:
    dtype: of the result; None: as `x`. float32 for logits.
    place: letters the result is laid out by; those of the expression when None.
    keep: whether the gathered weight is kept for the backward pass (the paper's FSDP,
      section 3.3.2); else it is gathered a second time.
    reduce: dtype in which the weight's gradient is made and summed over devices;
      float32 in section 3.3.2.
    quant: '', or the small type the products run in (quant.py).
  """
  inputs, output = expression.split('->')
  dtype = dtype or x.dtype.name
  how = _How(expression, place or output, dtype, keep, reduce, quant, w.dtype.name)
  return _linear(x, shard(w, inputs.split(',')[1]), how)


class _How(typing.NamedTuple):
  """What is static in a product with a weight."""

  expression: str
  place: str
  dtype: str  # of the result
  keep: bool
  reduce: str
  quant: str
  kind: str  # dtype of the parameter


def _dot(inputs, output, x, w, dtype, place, kind, gradient=False):
  """Einsum that accumulates in float32 and is laid out by `place`, then cast."""
  where = {} if mesh() is None else dict(out_sharding=spec(place))
  if kind:

    def lay(scale):  # a dim of one cannot be cut
      if mesh() is None:
        return scale
      parts = (None if n == 1 else p for n, p in zip(scale.shape, spec(place)))
      return jax.reshard(scale, jax.P(*parts))

    return quant.dot(inputs, output, x, w, kind, gradient, where, lay).astype(dtype)
  # Chips sum in float32 whatever they write; a CPU is twice as fast when it writes it.
  written = jnp.float32 if platform() == 'cpu' else dtype
  expression = f'{inputs}->{output}'
  y = jnp.einsum(expression, x, w, preferred_element_type=written, **where)
  return y.astype(dtype)


def gather(w, dims, dtype):
  """A weight as it is used: cast while it is cut, then whole over the axes of D."""
  return checkpoint_name(shard(w.astype(dtype), dims, gathered=True), 'weight')


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _linear(x, w, how):
  return _linear_forward(x, w, how)[0]


def _linear_forward(x, w, how):
  inputs, output = how.expression.split('->')
  used = gather(w, inputs.split(',')[1], x.dtype)
  y = _dot(inputs, output, x, used, how.dtype, how.place, how.quant)
  return y, (x, used if how.keep else w)


def _linear_backward(how, saved, g):
  """The gradient of the weight is made in `reduce` and lands sharded as the weight."""
  inputs, output = how.expression.split('->')
  left, right = inputs.split(',')
  x, w = saved
  g = shard(g.astype(x.dtype), output)
  used = w if how.keep else gather(w, right, x.dtype)

  def input_gradient(g):
    return _dot(f'{output},{right}', left, g, used, x.dtype, left, how.quant, True)

  def weight_gradient(g):
    return _dot(f'{output},{left}', right, g, x, how.reduce, right, how.quant, True)

  # One after the other, so that few whole weights and gradients live at one time: the
  # 405B on 1,024 chips takes 48.6 GiB a chip instead of 50.2 to 51.0. The gathered
  # weight goes first where it is large; the product that comes last stays free to be
  # fused with what uses it.
  if 'F' in right:
    dx = input_gradient(g)
    g, dx = jax.lax.optimization_barrier((g, dx))
    dw = weight_gradient(g)
  else:
    dw = weight_gradient(g)
    g, dw = jax.lax.optimization_barrier((g, dw))
    dx = input_gradient(g)
  return dx, dw.astype(how.kind)


_linear.defvjp(_linear_forward, _linear_backward)


def local(function, inputs, outputs, weights=()):
  """`function` run on every device's own part; dims by letter, shapes are local.

  Used where the algorithm is written for one device (attention blocks, cache writes,
  the loss). Arguments are first laid out by their dims; `weights`: which of them come
  gathered. Axes that are manual already (pipeline stages) stay so.
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


def device_sum(tree, names):
  """Inside `local`: the sum over the devices of mesh axes `names`."""
  return tree if mesh() is None else jax.lax.psum(tree, names)


def device_max(x, names):
  return x if mesh() is None else jax.lax.pmax(x, names)


def device_index(names):
  return 0 if mesh() is None else jax.lax.axis_index(names)


def device_scatter(x, dims, names):
  """Inside `local`: a whole weight's sum over `names`, of which each keeps its part."""
  if mesh() is None:
    return x
  parts = RULES['D']
  x = jax.lax.psum_scatter(x, parts, scatter_dimension=dims.index('D'), tiled=True)
  return jax.lax.psum(x, tuple(n for n in names if n not in parts))


def fetch(tree):
  """Whole numpy arrays of `tree` on every process; all of them call it."""
  if jax.process_count() == 1:
    return jax.device_get(tree)
  from jax.experimental import multihost_utils

  return multihost_utils.process_allgather(tree, tiled=True)


def each(function, tree):
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


def weight(dims, std=None):
  """Field of a parameter struct: its dims and its initial spread.

  `std`: a number, 'ones', or the name of a rule in `_spread`.
  """
  return struct.field(metadata=dict(dims=dims, std=std))


def stack(cls, dims):
  """Field that holds a struct whose every leaf has the leading `dims`."""
  return struct.field(metadata=dict(dims=dims, of=cls))


def build(cls, leaf, prefix='', lead=''):
  """The parameter struct `cls` filled with leaf(name, dims, std)."""
  values = {}
  for field in dataclasses.fields(cls):
    m, name = field.metadata, prefix + field.name
    if 'of' in m:
      values[field.name] = build(m['of'], leaf, name + '.', lead + m['dims'])
    else:
      values[field.name] = leaf(name, lead + m['dims'], m['std'])
  return cls(**values)


def shape(dims, sizes):
  return tuple(sizes[d] for d in dims)


def _spread(std, dims, sizes):
  if std == 'in':  # keeps the size of a normed input; 0.0156 for the 8B
    return sizes['D'] ** -0.5
  if std == 'out':  # residual branches: the sum of 2L of them keeps its size
    fan_in = math.prod(sizes[d] for d in dims if d not in 'LD')
    return (fan_in * 2 * sizes['L']) ** -0.5
  return std


def init_leaf(key, name, dims, std, sizes):
  """One float32 leaf; its values depend on the key and its name only."""
  if std == 'ones':
    x = jnp.ones(shape(dims, sizes), jnp.float32)
  else:
    key = jax.random.fold_in(key, zlib.crc32(name.encode()))
    x = jax.random.truncated_normal(key, -3, 3, shape(dims, sizes), jnp.float32)
    x = x * _spread(std, dims, sizes)
  return shard(x, dims)
