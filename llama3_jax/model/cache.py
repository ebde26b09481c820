"""Key/value cache of a batch of rows that decode at their own lengths (section 6.1)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct

from llama3_jax import axes
from llama3_jax.config import ModelConfig
from llama3_jax.model import attention


@struct.dataclass
class Cache:
  """k, v [L,B,S,K,H]; position and segment of the token in each slot, int32 [B,S];
  length: number of slots in use, int32 [B]. Segment 0 marks an empty slot."""

  k: jax.Array
  v: jax.Array
  position: jax.Array
  segment: jax.Array
  length: jax.Array


def create(
  config: ModelConfig,
  batch: int,
  size: int,
  dtype: jax.typing.DTypeLike | None = None,
) -> Cache:
  """Empty cache for `batch` rows of `size` slots; `dtype` None: that of the config."""
  c = config
  shape = (c.n_layers, batch, size, c.n_kv_heads, c.d_head)
  dtype = dtype or c.dtype
  slots = axes.shard(jnp.zeros((batch, size), jnp.int32), 'BS')
  return Cache(
    k=axes.shard(jnp.zeros(shape, dtype), 'LBSKH'),
    v=axes.shard(jnp.zeros(shape, dtype), 'LBSKH'),
    position=slots,
    segment=slots,
    length=axes.shard(jnp.zeros((batch,), jnp.int32), 'B'),
  )


def write(slots: jax.Array, values: jax.Array, start: jax.Array) -> jax.Array:
  """`slots` [B,S,...] with `values` [B,T,...] written at start[b] + t of each row.

  start: int32 [B]. Values beyond slot S are dropped.
  """
  tail = 'KH'[: slots.ndim - 2]
  return axes.local(_write, ('BS' + tail, 'B_' + tail, 'B'), 'BS' + tail)(
    slots, values.astype(slots.dtype), start
  )


def _write(slots, values, start):
  rows = jnp.arange(slots.shape[0])[:, None]
  columns = start[:, None] + jnp.arange(values.shape[1])
  return slots.at[rows, columns].set(values, mode='drop')


def advance(cache: Cache, position: jax.Array, segment: jax.Array) -> Cache:
  """Cache with the position and segment (int32 [B,T]) of new tokens in their slots.

  Right padding (segment 0) is overwritten by the next write, because `length` counts
  real tokens only.
  """
  n = jnp.sum(segment > 0, axis=1, dtype=jnp.int32)
  return cache.replace(
    position=write(cache.position, position, cache.length),
    segment=write(cache.segment, segment, cache.length),
    length=cache.length + n,
  )


def appending(
  cache: Cache, position: jax.Array, segment: jax.Array, config: ModelConfig
) -> tuple[Callable[[tuple[jax.Array, jax.Array]], attention.Attend], Cache]:
  """(a layer's (k, v) -> how new tokens attend, appended to it; the cache without the
  layers' new ones) for position and segment int32 [B,T] of the new tokens."""
  start, cache = cache.length, advance(cache, position, segment)
  side, keys = (position, segment), (cache.position, cache.segment)

  def layer(stored):
    def attend(q, k, v):
      k, v = (write(old, new, start) for old, new in zip(stored, (k, v)))
      return attention.attend(q, k, v, side, keys, config), (k, v)

    return attend

  return layer, cache


def repeat(cache: Cache, k: int) -> Cache:
  """Cache with every row `k` times: K samples of a prompt share a prefill (4.2.2)."""

  def rows(x, dims):  # jnp.repeat does not work along a sharded dim
    axis = dims.index('B')
    shape = (*x.shape[: axis + 1], k, *x.shape[axis + 1 :])
    x = jnp.broadcast_to(jnp.expand_dims(x, axis + 1), shape)
    x = x.reshape(*shape[:axis], shape[axis] * k, *shape[axis + 2 :])
    return axes.shard(x, dims)

  kv = 'LBSKH'
  return jax.tree.map(
    rows, cache, Cache(kv, kv, position='BS', segment='BS', length='B')
  )
