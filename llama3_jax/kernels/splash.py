"""TPU attention: JAX's splash kernel under a causal document mask (section 3.3.2).

The kernel derives causality from a table of blocks, and documents from segment ids. The
table has the order of columns under context parallelism, so the blocks that no query
of a device sees are skipped there too.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.experimental.pallas.ops.tpu.splash_attention import (
  splash_attention_kernel as kernel_lib,
)
from jax.experimental.pallas.ops.tpu.splash_attention import (
  splash_attention_mask as masks,
)
from jax.experimental.pallas.ops.tpu.splash_attention import (
  splash_attention_mask_info as mask_info,
)

from llama3_jax import axes
from llama3_jax import feed
from llama3_jax.kernels.rule import Rule
from llama3_jax.kernels.rule import Side

LANES = 128  # the kernel's blocks are multiples of it
# The fused backward pass keeps a dq of every block of keys: 8 GiB at 8B and 131,072.
FUSED_BLOCKS = 8


def fits(t: int, s: int) -> bool:
  """Whether `t` queries and `s` keys a device can be cut into the kernel's blocks."""
  return t % LANES == 0 and s % LANES == 0


def attend(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  query: Side,
  key: Side,
  rule: Rule = Rule(),
  block: int = 0,
  interpret: bool = False,
) -> jax.Array:
  """Attention output [B,T,N,H] of rows whose columns are in the batch's order.

  Args: q [B,T,N,H], k, v [B,S,K,H], all columns of a row; query, key: (position,
  segment) pairs, of which segments are used: inside a document the order of columns
  is that of positions. `block`: largest block, 0: 1,024.
  """
  m = axes.mesh()
  context, tensor = axes.parts('T'), axes.parts('N')
  t, s, n, h = q.shape[1], k.shape[1], q.shape[2], q.shape[3]
  largest = _block(t // context, s, block or 1024)
  kernel = _kernel(t, n, context, tensor, rule, largest, interpret)

  def local(kernel, q, k, v, query, key):
    if context > 1:  # the kernel needs keys in the order of the row
      k, v, key = (_restore(x, context) for x in (k, v, key))
    heads_first = lambda x: jnp.moveaxis(x, 2, 1)
    q, k, v = heads_first(q * jnp.asarray(h**-0.5, q.dtype)), *map(heads_first, (k, v))
    out = jax.vmap(lambda q, k, v, a, b: kernel(q, k, v, kernel_lib.SegmentIds(a, b)))(
      q, k, v, query, key
    )
    out = jnp.where((query > 0)[:, None, :, None], out, 0)
    return jnp.moveaxis(out, 1, 2)

  arrays = (q, k, v, query[1], key[1])
  if m is None:
    return local(kernel, *arrays)
  dims = ('BTNH', 'BSKH', 'BSKH', 'BT', 'BS')
  layout = jax.sharding.NamedSharding(m, axes.spec('NT'))
  table = kernel.manual_sharding_spec(layout)
  kernel = jax.tree.map(jax.reshard, kernel, table)
  arrays = tuple(map(axes.shard, arrays, dims))
  # Gathered over `context`; saved for the backward pass they are gathered only once.
  gathered = (checkpoint_name(arrays[i], n) for i, n in ((1, 'keys'), (2, 'values')))
  arrays = (arrays[0], *gathered, *arrays[3:])
  return jax.shard_map(
    local,
    in_specs=(table, *map(axes.spec, dims)),
    out_specs=axes.spec('BTNH'),
    axis_names=set(m.axis_names) - set(m.manual_axes),
    check_vma=False,
  )(kernel, *arrays)


def _block(t, s, largest):
  """The largest multiple of LANES up to `largest` that divides both lengths."""
  block = max(min(largest, t, s) // LANES, 1) * LANES
  while t % block or s % block:
    block -= LANES
  return block


def _restore(x, context):
  """[B,S,...] from the order of context parallelism to that of the row, by chunks."""
  chunks = 2 * context
  size = x.shape[1] // chunks
  inverse = np.argsort(feed.order(chunks))
  return jnp.concatenate([x[:, i * size : (i + 1) * size] for i in inverse], 1)


class Mask(masks._ComputableMask):
  """The rule for queries in the batch's order, with a fast path for whole blocks."""

  def __init__(self, t: int, context: int, rule: Rule) -> None:
    super().__init__((t, t), rule.before, shard_count=context)
    self.q_sequence, self.rule = feed.order(t).astype(np.int32), rule

  def __getitem__(self, index):
    rows, columns = index
    q = self.q_sequence[rows]
    first, last = columns.start, columns.stop - 1
    # If it holds for the nearest and the farthest pair, it holds for all of them.
    if self.rule.before(q.min(), last) and self.rule.before(q.max(), first):
      return np.ones((1, 1), bool)
    if q.max() < first or self.rule.window and q.min() - last >= self.rule.window:
      return np.zeros((1, 1), bool)
    return super().__getitem__(index)

  def __eq__(self, other):
    return self is other

  def __hash__(self):
    return id(self)


@functools.lru_cache(maxsize=16)
def _kernel(t, n, context, tensor, rule, block, interpret):
  """The kernel with tables of numpy: absent devices cannot hold arrays of jax."""
  fused = t // block <= FUSED_BLOCKS
  dq = {} if fused else dict(block_q_dq=block, block_kv_dq=block)
  sizes = kernel_lib.BlockSizes(
    block_q=block,
    block_kv=block,
    block_kv_compute=block,
    block_q_dkv=block,
    block_kv_dkv=block,
    block_kv_dkv_compute=block,
    use_fused_bwd_kernel=fused,
    **dq,
  )
  mask = masks.MultiHeadMask([Mask(t, context, rule)] * n)
  shards = dict(head_shards=tensor, q_seq_shards=context)
  forward, function = mask_info.process_mask(mask, (block, block), **shards)
  back_q = None if fused else forward
  back_kv, _ = mask_info.process_mask_dkv(
    mask, (block, block), shrink_grid=not fused, **shards
  )
  return kernel_lib.SplashAttentionKernel(
    forward,
    back_q,
    back_kv,
    block_sizes=sizes,
    is_mqa=False,
    save_residuals=False,
    mask_value=kernel_lib.DEFAULT_MASK_VALUE,
    attn_logits_soft_cap=None,
    residual_checkpoint_name='attention',
    mask_function=function,
    interpret=interpret,
  )
