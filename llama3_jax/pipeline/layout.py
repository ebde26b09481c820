"""Assignment of layers to chunks; parameters in the order of the stages (3.3.2).

Stored for a pipeline, a leaf of `Params.layers` is [chunks of the model, slots, ...]
instead of [layers, ...]; the first dim is on `stage`, row s * V + v holds chunk
v * stages + s. Chunks with fewer layers than slots are filled with zeros. A layer of
zeros passes its input on and has gradients of zero, so the optimizer leaves it at zero.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from llama3_jax import axes
from llama3_jax import parameters
from llama3_jax.base.errors import UserError
from llama3_jax.model import llama


@dataclasses.dataclass(frozen=True)
class Layout:
  """How `n_layers` are cut into `chunks` for each of `stages`.

  `bare`: the first chunk holds the embedding only, the last the head only, as in the
  405B (126 layers, 16 stages, 8 chunks). Otherwise chunks are as equal as possible and
  the shorter ones are at the ends, next to the embedding and the head.
  """

  n_layers: int
  stages: int
  chunks: int = 1
  bare: bool = False

  def __post_init__(self) -> None:
    holders = self.depth - 2 if self.bare else self.depth
    if holders < 1 or self.n_layers < holders:
      least = 'pipeline.bare leaves' if self.bare else 'mesh.stage x pipeline.chunks is'
      raise UserError(
        f'model.n_layers={self.n_layers} cannot fill the pipeline: {least} {holders} '
        'chunks for layers: change mesh.stage, pipeline.chunks or pipeline.bare'
      )

  @property
  def depth(self) -> int:
    """Chunks of the whole model."""
    return self.stages * self.chunks

  @functools.cached_property
  def counts(self) -> np.ndarray:
    """Layers of each chunk, in the order of the model, int [depth]."""
    n = self.depth - 2 if self.bare else self.depth
    share, rest = divmod(self.n_layers, n)
    first = (n - rest + 1) // 2
    counts = np.full(n, share)
    counts[first : first + rest] += 1
    return np.pad(counts, 1) if self.bare else counts

  @property
  def slots(self) -> int:
    """Layers of the longest chunk."""
    return int(self.counts.max())

  @functools.cached_property
  def lengths(self) -> list[int]:
    """The distinct numbers of layers of the chunks, rising."""
    return sorted(set(self.counts.tolist()))

  @functools.cached_property
  def source(self) -> np.ndarray:
    """Layer in each row and slot of the stored order, int [depth, slots]; -1: none."""
    layers = np.full((self.depth, self.slots), -1)
    start = np.cumsum(self.counts) - self.counts
    for c, n in enumerate(self.counts):
      v, stage = divmod(c, self.stages)
      layers[stage * self.chunks + v, :n] = start[c] + np.arange(n)
    return layers

  @functools.cached_property
  def place(self) -> tuple[np.ndarray, np.ndarray]:
    """Row and slot of each layer, two int [n_layers]."""
    rows, slots = np.nonzero(self.source >= 0)
    by_layer = np.argsort(self.source[rows, slots])
    return rows[by_layer], slots[by_layer]


def arrange(tree: object, layout: Layout) -> object:
  """Every Params in `tree` (parameters, or a State) from [L, ...] to stored order.

  Works on arrays and under jit; `restore` is the exact inverse.
  """
  source = jnp.asarray(layout.source)

  def leaf(x, dims):
    sharding = {} if axes.mesh() is None else dict(out_sharding=axes.spec('C' + dims))
    index = jnp.where(source < 0, layout.n_layers, source)
    return x.at[index].get(mode='fill', fill_value=0, **sharding)

  return _each(tree, leaf)


def restore(tree: object, layout: Layout) -> object:
  """Every Params in `tree` from stored order to [L, ...], laid out by its letters."""
  rows, slots = map(jnp.asarray, layout.place)

  def leaf(x, dims):
    if axes.mesh() is None:
      return x[rows, slots]
    whole = jax.reshard(x, axes.spec('_' + dims))
    return whole.at[rows, slots].get(out_sharding=axes.spec(dims))

  return _each(tree, leaf)


def abstract(
  params: llama.Params,
  layout: Layout,
  mesh: jax.sharding.Mesh | jax.sharding.AbstractMesh | None = None,
) -> llama.Params:
  """`arrange` of an abstract Params; with `mesh`, leaves have their NamedSharding."""

  def leaf(x, dims):
    shape = (layout.depth, layout.slots, *x.shape[1:])
    sharding = mesh and jax.sharding.NamedSharding(mesh, axes.spec('C' + dims))
    return jax.ShapeDtypeStruct(shape, x.dtype, sharding=sharding or None)

  return _each(params, leaf)


def convert(tree: object, then: Layout | None, now: Layout | None) -> object:
  """Every Params in `tree` from the stored order `then` to `now`; None: natural."""
  if then is not None:
    tree = restore(tree, then)
  return tree if now is None else arrange(tree, now)


def saved(
  state: object,
  now: Layout | None,
  then: Layout | None,
  mesh: jax.sharding.Mesh | jax.sharding.AbstractMesh,
) -> object:
  """Abstract state to restore a checkpoint of the order `then` into, for `convert`.

  state: arrays or ShapeDtypeStructs in the order `now`. The layers of the result are
  laid out by their letters, on every stage, as `then` need not divide over `mesh`.
  """
  lead = 1 if now is None else 2

  def leaf(x, dims):
    first = (now.n_layers if now else x.shape[0],)
    letters = dims
    if then is not None:
      first, letters = (then.depth, then.slots), '_' + dims
    sharding = jax.sharding.NamedSharding(mesh, axes.spec(letters))
    return jax.ShapeDtypeStruct((*first, *x.shape[lead:]), x.dtype, sharding=sharding)

  here = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
  )
  return _each(here, leaf)


def _each(tree, leaf):
  """`tree` with leaf(x, dims) applied to the layers of every Params in it."""
  is_params = lambda x: isinstance(x, llama.Params)

  def convert(x):
    if not is_params(x):
      return x
    letters = parameters.build(llama.Params, lambda name, dims, std: dims).layers
    return x.replace(layers=jax.tree.map(leaf, x.layers, letters))

  return jax.tree.map(convert, tree, is_leaf=is_params)
