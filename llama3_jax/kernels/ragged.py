"""TPU attention over pages: JAX's ragged paged kernel, for prompts and decoding (6.1).

Each sequence is some neighbouring queries, the last positions of its keys, and a table
of the pages that hold them. The kernel fetches pages by the table while it computes, so
that no copy of them is made.
"""

import jax
import jax.numpy as jnp

LANES = 128  # head sizes are multiples of it
QUERIES = 32  # of a block
KEYS = 512  # tokens of a block
BUFFER = 4 * 2**20  # bytes of a block of keys and values, of which the kernel has two
TABLE = 2**19  # bytes of the table, which is in scalar memory


def fits(kv_heads: int, size: int, cells: int, dtype: jax.typing.DTypeLike) -> bool:
  """Whether the kernel takes such arrays: heads of a device, their size, the cells of
  the table, and the dtype of queries, keys and values."""
  words, rest = divmod(2 * kv_heads * jnp.dtype(dtype).itemsize, 4)
  tiled = not rest and (words in (1, 2, 4) or words % 8 == 0)
  return size % LANES == 0 and tiled and 4 * cells <= TABLE


def attend(
  q: jax.Array,
  pages: jax.Array,
  lengths: jax.Array,
  table: jax.Array,
  starts: jax.Array,
  count: jax.Array,
  window: int = 0,
) -> jax.Array:
  """Attention output [T,N,H] of R sequences; of queries in none it is undefined.

  Args:
    q: [T,N,H], not scaled.
    pages: [P,S,2K,H], the key and the value of a head side by side.
    lengths: int32 [R], keys of each sequence, at least 1 and as many as its queries.
    table: int32 [R,W], its pages.
    starts: int32 [R+1], where its queries start, and those of the next.
    count: int32 [], sequences in use: with none, or none that has queries, the kernel
      would leave a fetch behind.
    window: last positions that a query sees; 0: all.
  """
  # Only a TPU needs it, and it takes as long to import as all else of the engine.
  from jax.experimental.pallas.ops.tpu import ragged_paged_attention as kernels

  _, size, heads, width = pages.shape
  most = min(KEYS * heads * width * pages.dtype.itemsize, BUFFER)
  page = size * heads * width * pages.dtype.itemsize
  # The sizes of blocks are given: the kernel's own table looks at the local devices,
  # which are not those of a mesh that is compiled ahead of time.
  return kernels.ragged_paged_attention(
    q,
    pages,
    lengths,
    table,
    starts,
    count[None],
    sm_scale=width**-0.5,
    sliding_window=window or None,
    num_kv_pages_per_block=min(max(most // page, 1), table.shape[1]),
    num_queries_per_block=min(QUERIES, len(q)),
  )
