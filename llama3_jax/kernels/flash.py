"""GPU attention: JAX's Pallas flash kernel with segment ids (section 3.2).

The kernel takes causality from the order of columns, so a device must have whole rows:
under context parallelism `attention.attend` uses the blockwise path.
"""

import jax.numpy as jnp
from jax.experimental.pallas.ops.gpu import attention as pallas

BLOCK = 64  # lengths are multiples of it


def fits(t, s):
  return t == s and t % BLOCK == 0


def attend(q, k, v, query, key, interpret=False):
  """Attention output [B,T,N,H] of one device's rows.

  Args: q [B,T,N,H], k, v [B,T,K,H]; query, key: (position, segment) int32 pairs, of
  which segments are used. The kernel has no grouped queries: K and V are repeated.
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
