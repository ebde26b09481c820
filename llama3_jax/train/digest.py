"""Digests of arrays and files, so that data damaged on disk is never used (3.3.4).

The digest of an array is two sums mod 2^32 over its words, each word mixed with its
index. A sum does not depend on the order, hence not on how the array is sharded, and
every device sums its own shard.
"""

import hashlib
import json
import math

import jax
import jax.numpy as jnp
import numpy as np

# Odd constants of MurmurHash3's finalizer, and 2^32 over the golden ratio.
MIX = 0x85EBCA6B, 0xC2B2AE35
GOLDEN = 0x9E3779B9


def arrays(tree: object) -> dict[str, list[str]]:
  """{name: [dtype, 16 hex digits]} of every leaf; all processes must call it."""
  leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
  leaves = [(p, x if isinstance(x, jax.Array) else np.asarray(x)) for p, x in leaves]
  bare = [_bare(x) for _, x in leaves]
  # One program, started when earlier ones have finished: on a CPU whose devices are
  # threads, programs that sum over devices at the same time can deadlock.
  sums = _all(jax.block_until_ready(bare))
  return {
    name(path): [str(x.dtype), '{:08x}{:08x}'.format(*(int(s) for s in pair))]
    for (path, x), pair in zip(leaves, jax.device_get(sums))
  }


def name(path: jax.tree_util.KeyPath) -> str:
  """Name of a leaf in messages and files, such as 'params.layers.wq'."""
  return jax.tree_util.keystr(path, simple=True, separator='.')


def value(data: object) -> str:
  """sha256 (hex) of a JSON-able value, the same before writing and after reading."""
  return content(json.dumps(data, sort_keys=True).encode())


def content(data: bytes) -> str:
  """sha256 (hex) of bytes."""
  return hashlib.sha256(data).hexdigest()


def _bare(x):
  """The array of a leaf; of a PRNG key, its data."""
  if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
    return jax.random.key_data(x)
  return x


@jax.jit
def _all(leaves):
  return [_sums(x) for x in leaves]


@jax.jit  # traced once for all leaves of a shape
def _sums(x):
  """The two sums of an array, uint32 each.

  A word w at index i becomes h = mix(w + i GOLDEN), which is one to one in w: one
  changed word always changes the first sum. The second mixes h with i once more.
  """
  bits = x.dtype.itemsize * 8
  if x.dtype == jnp.bool_:
    words = x.astype(jnp.uint32)
  elif bits == 64:
    words = jax.lax.bitcast_convert_type(x, jnp.uint32)
  else:
    unsigned = {8: jnp.uint8, 16: jnp.uint16, 32: jnp.uint32}[bits]
    words = jax.lax.bitcast_convert_type(x, unsigned).astype(jnp.uint32)
  i = _places(words)
  h = words + i * np.uint32(GOLDEN)
  h ^= h >> 16
  h *= np.uint32(MIX[0])
  h ^= h >> 13
  h *= np.uint32(MIX[1])
  h ^= h >> 16
  g = (h ^ i) * np.uint32(MIX[0])
  g ^= g >> 15
  # One reduction for both: XLA's CPU loop is then twenty times as fast as jnp.sum's.
  zero, add = np.uint32(0), lambda a, b: (a[0] + b[0], a[1] + b[1])
  return jax.lax.reduce((h, g), (zero, zero), add, tuple(range(h.ndim)))


def _places(words):
  """Row-major index of every word, uint32 mod 2^32, with the layout of `words`."""
  index = jnp.zeros_like(words)
  for dim in range(words.ndim):
    stride = math.prod(words.shape[dim + 1 :]) % 2**32
    sharding = jax.typeof(words).sharding
    i = jax.lax.broadcasted_iota(
      jnp.uint32,
      words.shape,
      dim,
      out_sharding=None if sharding.mesh.empty else sharding,
    )
    index += i * np.uint32(stride)
  return index
