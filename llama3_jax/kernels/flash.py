"""GPU attention: JAX's Pallas flash kernel with segment ids (section 3.2).

The kernel derives causality from the order of columns, so a device needs whole rows;
under context parallelism `attention.attend` uses the blockwise path.
"""

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.gpu import attention as pallas

from llama3_jax.kernels.rule import Side

BLOCK = 64  # lengths are multiples of it


def fits(t: int, s: int) -> bool:
  """Whether the kernel can take rows of `t` queries and `s` keys."""
  return t == s and t % BLOCK == 0


def attend(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  query: Side,
  key: Side,
  interpret: bool = False,
) -> jax.Array:
  """Attention output [B,T,N,H] of one device's rows.

  Args: q [B,T,N,H], k, v [B,T,K,H]; query, key: (position, segment) int32 pairs
  [B,T], of which segments are used. The kernel has no grouped queries: K and V are
  repeated.
  """
  group = q.shape[2] // k.shape[2]
  k, v = (jnp.repeat(x, group, axis=2) for x in (k, v))
  block = min(BLOCK, q.shape[1])
  sizes = pallas.BlockSizes(block, block, block, block, block, block)
  out = pallas.mha(
    q,
    k,
    v,
    query[1],
    q.shape[-1] ** -0.5,
    causal=True,
    block_sizes=sizes,
    interpret=interpret,
  )
  return jnp.where((query[1] > 0)[..., None, None], out, 0)
