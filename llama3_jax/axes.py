"""The alphabet: one letter a dim says its shape, its sharding and its einsum.

Mesh axes, outermost first: replica (between slices), fsdp, stage, context, tensor:
the paper's [TP, CP, PP, DP] (section 3.3.2) read from the inside. This is the only
file that knows partition specs. Without a mesh (a notebook) everything here is plain
single-device arithmetic.
"""

import dataclasses
import math
import zlib

import jax
import jax.numpy as jnp
from flax import struct

AXES = ('replica', 'fsdp', 'stage', 'context', 'tensor')
# L is scanned, so it is on no axis: `stage` waits for the pipeline (section 3.3.2).
# T is on `context` and S is not: resharding K and V from 'BTKH' to 'BSKH' *is* the
# all-gather of context parallelism (section 3.3.2).
RULES = dict(
  B=('replica', 'fsdp'),
  T=('context',),
  V=('tensor',),
  N=('tensor',),
  K=('tensor',),
  F=('tensor',),
  D=('fsdp',),
)


def mesh():
  """The ambient abstract mesh, or None when there is none."""
  m = jax.sharding.get_abstract_mesh()
  return None if m.empty else m


def spec(dims, gathered=False):
  """PartitionSpec of `dims`, e.g. 'BTD'; a mesh axis goes to the first dim that asks.

  `gathered` leaves `fsdp` out: the spec of a weight while it is being used.
  """
  taken = {'fsdp'} if gathered else set()
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


def batch(arrays):
  """A process's numpy rows as one global batch on the ambient mesh."""
  placed = {}
  for name, x in arrays.items():
    dims = 'BT' if x.ndim == 2 and name in TOKENS else 'B'
    if mesh() is None:
      placed[name] = jnp.asarray(x)
      continue
    place = jax.sharding.NamedSharding(jax.sharding.get_mesh(), spec(dims))
    placed[name] = jax.make_array_from_process_local_data(place, x)
  return placed


def einsum(expression, x, *weights, dtype=None):
  """Einsum of an activation with weights: casts and gathers them, places the result.

  The first operand is an activation. A further operand without a B is a weight: it is
  cast to the activation's dtype while sharded, then gathered over `fsdp`, so that the
  gather moves the small dtype. `dtype` is the result's, for float32 logits.
  """
  inputs, output = expression.split('->')
  used = []
  for dims, w in zip(inputs.split(',')[1:], weights):
    w = w.astype(x.dtype)
    used.append(w if 'B' in dims else shard(w, dims, gathered=True))
  place = {} if mesh() is None else dict(out_sharding=spec(output))
  return jnp.einsum(expression, x, *used, preferred_element_type=dtype, **place)


def local(function, inputs, outputs):
  """`function` run on every device's own part; dims by letter, shapes are local.

  Used where the algorithm is written for one device (attention blocks, cache writes).
  Arguments are first laid out by their dims.
  """
  if mesh() is None:
    return function
  mapped = jax.shard_map(
    function,
    in_specs=jax.tree.map(spec, inputs),
    out_specs=jax.tree.map(spec, outputs),
    check_vma=False,
  )
  return lambda *arguments: mapped(*jax.tree.map(shard, arguments, inputs))


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
