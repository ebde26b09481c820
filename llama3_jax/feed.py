"""Batches on the mesh: which rows a process loads, in which order columns lie."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from llama3_jax import axes


def order(length):
  """Which column of its row each column of a batch is, int [length].

  Under context parallelism a row is cut into 2 x CP chunks and rank i has chunks i and
  2 x CP - 1 - i (section 3.3.2): every rank sees the same area of the causal mask. The
  kernels rely on it, so every array of rows goes through `place`.
  """
  parts = axes.parts('T')
  if parts == 1:
    return np.arange(length)
  chunks = np.arange(length).reshape(2 * parts, -1)
  pairs = [chunks[[i, 2 * parts - 1 - i]] for i in range(parts)]
  return np.concatenate(pairs).reshape(-1)


# The arrays of a batch that are 'BT'; of others only the B is laid out.
TOKENS = ('tokens', 'targets', 'segment', 'position', 'weight')


def share():
  """(i, n): this process loads the i-th of n equal slices of a batch's rows.

  Processes that differ in `context`, `stage` or `tensor` only need the same rows.
  """
  m = jax.sharding.get_mesh()
  if m.empty or len({d.process_index for d in m.devices.flat}) == 1:
    return 0, 1
  parts = math.prod(m.shape[a] for a in axes.over('B'))
  layout = jax.sharding.NamedSharding(m, axes.spec('B'))
  mine = [
    i[0].indices(parts)
    for i in layout.addressable_devices_indices_map((parts,)).values()
  ]
  first, last = min(i[0] for i in mine), max(i[1] for i in mine)
  width = last - first
  if parts % width or first % width:
    return 0, 1
  return first // width, parts // width


def place(arrays, share=(0, 1)):
  """One global batch on the ambient mesh.

  `arrays`: numpy rows; part i of n equal parts of the rows when share=(i, n). The
  columns of those that are as long as the tokens are put in the mesh's `order`.
  """
  i, n = share
  placed = {}
  columns = order(arrays['tokens'].shape[-1])
  for name, x in arrays.items():
    if axes.parts('T') > 1 and x.ndim > 1 and x.shape[-1] == len(columns):
      x = x[..., columns]
    dims = 'BT' if x.ndim == 2 and name in TOKENS else 'B'
    if axes.mesh() is None:
      placed[name] = jnp.asarray(x)
      continue
    layout = jax.sharding.NamedSharding(jax.sharding.get_mesh(), axes.spec(dims))
    whole = (x.shape[0] * n, *x.shape[1:])

    def part(index, x=x, rows=whole[0], offset=i * x.shape[0]):
      start, stop, _ = index[0].indices(rows)
      return x[(slice(start - offset, stop - offset), *index[1:])]

    placed[name] = jax.make_array_from_callback(whole, layout, part)
  return placed
