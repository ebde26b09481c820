"""Batches: their fields, the rows that a process loads, the order of the columns."""

import dataclasses
import math
import typing
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from llama3_jax import axes

Batch = typing.TypeVar('Batch')  # a struct whose fields are made by `field`


def order(length: int) -> np.ndarray:
  """For each column of a batch the column of the row, int [length].

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


def field(dims: str, dtype: type = np.int32, fill: int = 0) -> dataclasses.Field:
  """Field of a batch: letters and dtype of its array, and its value in empty rows."""
  return struct.field(metadata=dict(dims=dims, dtype=dtype, fill=fill))


@struct.dataclass
class Tokens:
  """Rows of documents, several or one a row (3.2, 4.1.3)."""

  tokens: jax.Array = field('BT')
  targets: jax.Array = field('BT')  # the token after each
  segment: jax.Array = field('BT')  # number of the document in its row; 0: padding
  position: jax.Array = field('BT')  # of RoPE, and of causality inside a segment
  weight: jax.Array = field('BT', np.float32)  # of each target in the loss


@struct.dataclass
class Pairs:
  """Chosen and rejected answers of prompts, a row each: A is 2 (4.1.4)."""

  tokens: jax.Array = field('BAT')
  targets: jax.Array = field('BAT')
  segment: jax.Array = field('BAT')
  position: jax.Array = field('BAT')
  weight: jax.Array = field('BAT', np.float32)  # 1: a target of the response
  contrast: jax.Array = field('BAT', np.float32)  # 1: of those, not a format token
  ref_logp: jax.Array = field('BA', np.float32)  # of the response under the reference


@struct.dataclass
class Joined:
  """As Pairs, but both answers are branches of one row after their prompt
  (kernels/rule.py): segments of branch 1 are the chosen answer's, of 2 the other's."""

  tokens: jax.Array = field('BT')
  targets: jax.Array = field('BT')
  segment: jax.Array = field('BT')
  position: jax.Array = field('BT')
  weight: jax.Array = field('BT', np.float32)
  contrast: jax.Array = field('BT', np.float32)
  ref_logp: jax.Array = field('BA', np.float32)


@struct.dataclass
class Ranked:
  """Two or three answers of prompts, best first (4.1.2, 4.2.1): A is 1 where they share
  a row, else each has a row.

  ends and margin have three values a prompt, one prompt after the other where several
  share a row. margin: by which the better one should win in the pairs (0, 1), (0, 2),
  (1, 2).
  """

  tokens: jax.Array = field('BAT')
  targets: jax.Array = field('BAT')
  segment: jax.Array = field('BAT')
  position: jax.Array = field('BAT')
  weight: jax.Array = field('BAT', np.float32)  # 1: the last token of a response
  ends: jax.Array = field('B_', fill=-1)  # its column, best first; -1: no such response
  margin: jax.Array = field('B_', np.float32)


Rows = Tokens | Pairs | Joined | Ranked  # of post-training


def letters(batch: object) -> object:
  """The struct with the letters of each field of a batch, or of a class of batches."""
  kind = batch if isinstance(batch, type) else type(batch)
  fields = dataclasses.fields(kind)
  return kind(**{f.name: f.metadata['dims'] for f in fields})


def empty(kind: type[Batch], sizes: Mapping[str, int]) -> Batch:
  """A numpy batch of rows with no weight in any loss; sizes: {letter: size}."""
  arrays = {}
  for f in dataclasses.fields(kind):
    shape = [sizes[d] for d in f.metadata['dims']]
    arrays[f.name] = np.full(shape, f.metadata['fill'], f.metadata['dtype'])
  return kind(**arrays)


def abstract(
  kind: type[Batch],
  mesh: jax.sharding.Mesh | jax.sharding.AbstractMesh,
  sizes: Mapping[str, int],
) -> Batch:
  """As `empty`, of jax.ShapeDtypeStruct laid out over a mesh, which may be absent."""

  def one(x, dims):
    layout = jax.sharding.NamedSharding(mesh, axes.spec(dims))
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=layout)

  return jax.tree.map(one, jax.eval_shape(lambda: empty(kind, sizes)), letters(kind))


def batches(arrays: Batch, size: int) -> list[Batch]:
  """All rows in order, `size` a batch; the last batch is padded with rows that have no
  weight in any loss."""
  result, kind = [], type(arrays)
  fill = {f.name: f.metadata['fill'] for f in dataclasses.fields(kind)}
  for start in range(0, len(arrays.tokens), size):

    def part(x, value, start=start):
      x = x[start : start + size]
      more = np.full((size - len(x), *x.shape[1:]), value, x.dtype)
      return np.concatenate([x, more])

    result.append(jax.tree.map(part, arrays, kind(**fill)))
  return result


def flat(x: jax.Array) -> jax.Array:
  """[B,A,T] -> [B*A,T], laid out as rows of the model; [B,T] is unchanged."""
  return axes.shard(x.reshape(-1, x.shape[-1]), 'BT')


def share() -> tuple[int, int]:
  """(i, n): this process loads the i-th of n equal slices of a batch's rows.

  Processes that differ in `context`, `stage` or `tensor` only need the same rows.
  """
  m = jax.sharding.get_mesh()
  if m.empty or len({d.process_index for d in m.devices.flat}) == 1:
    return 0, 1
  parts = math.prod(m.shape[a] for a in axes.over('B'))
  layout = jax.sharding.NamedSharding(m, axes.spec('B'))
  ranges = [
    i[0].indices(parts)
    for i in layout.addressable_devices_indices_map((parts,)).values()
  ]
  first, last = min(i[0] for i in ranges), max(i[1] for i in ranges)
  width = last - first
  if parts % width or first % width:
    return 0, 1
  return first // width, parts // width


def place(batch: Batch, share: tuple[int, int] = (0, 1)) -> Batch:
  """One global batch on the ambient mesh.

  batch: a struct of numpy rows; with share=(i, n) part i of n equal parts of the rows.
  Columns of the tokens are put in the mesh's `order`.
  """
  i, n = share
  columns = order(batch.tokens.shape[-1]) if axes.parts('T') > 1 else slice(None)

  def one(x, dims):
    x = x[..., columns] if dims[-1] == 'T' else x
    if axes.mesh() is None:
      return jnp.asarray(x)
    layout = jax.sharding.NamedSharding(jax.sharding.get_mesh(), axes.spec(dims))
    whole = (x.shape[0] * n, *x.shape[1:])

    def part(index):
      start, stop, _ = index[0].indices(whole[0])
      offset = i * x.shape[0]
      return x[(slice(start - offset, stop - offset), *index[1:])]

    return jax.make_array_from_callback(whole, layout, part)

  return jax.tree.map(one, batch, letters(batch))
