"""The pages of keys and values on the device (6.1).

Each layer has its own pages; page i of layer l is number l P + i of one array, so that
a loop over layers carries it and writes in place.
"""

import functools

import jax
import jax.numpy as jnp
from flax import struct
from jax.experimental.layout import Layout
from jax.experimental.layout import with_layout_constraint

from llama3_jax import axes
from llama3_jax.config import ModelConfig
from llama3_jax.kernels import bits

LETTERS = 'BPSKH'  # of the pages; the other arrays are small and cut by B alone


@struct.dataclass
class Memory:
  """Keys and values, [B,L*P,S,2K,H]: B groups of chips with P pages of S tokens each.
  On TPU the key and the value of a head are side by side, as the kernel reads them;
  elsewhere all keys of a page on a device come before its values, which is faster.

  On a CPU bfloat16 is kept as the integers with its bits (kernels/bits.py).
  """

  kv: jax.Array


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def create(config: ModelConfig, pages: int, size: int, groups: int = 1) -> Memory:
  """Empty memory of `pages` pages of `size` tokens, and page 0; each stage of a
  pipeline has those of its layers."""
  c, dtype, stages = config, bits.dtype(config.dtype), axes.parts('C')
  layers = -(-c.n_layers // stages) * stages
  shape = (groups, layers * (pages + 1), size, 2 * c.n_kv_heads, c.d_head)
  letters = LETTERS if stages == 1 else LETTERS.replace('P', 'C')
  return Memory(axes.shard(jnp.zeros(shape, dtype), letters))


def apart(memory: Memory, number: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Keys and values, [...,S,K,H] each, of pages int32 [...]."""
  pages = memory.kv[0]
  _, s, k, h = pages.shape
  if axes.platform() == 'tpu':
    read = pages[number]
    # Else the compiler lays out all pages, a copy, for the product that reads a few.
    order = Layout(tuple(range(read.ndim)))
    read = with_layout_constraint(read, order)
    both = read.reshape(*number.shape, s, k // 2, 2, h)
    return both[..., 0, :], both[..., 1, :]
  pages = pages.reshape(-1, 2, s, k // 2, h)
  return bits.used(pages[number, 0]), bits.used(pages[number, 1])


def written(
  memory: Memory, page: jax.Array, slot: jax.Array, k: jax.Array, v: jax.Array
) -> Memory:
  """Memory with keys and values [T,K,H] in slots [T] of pages [T]."""
  old, new = memory.kv, bits.kept(jnp.stack((k, v), 2))
  t, heads, _, h = new.shape
  if axes.platform() == 'tpu':
    return Memory(old.at[0, page, slot].set(new.reshape(t, 2 * heads, h)))
  pages = old.reshape(-1, 2, old.shape[2], heads, h)
  if t == 1:
    # XLA makes one write a slice's update, fuses that into all that read the pages, and
    # copies these for each; of two that are the same it writes in place.
    page, slot, new = (jnp.resize(x, (2, *x.shape[1:])) for x in (page, slot, new))
  pages = pages.at[page, :, slot].set(jnp.moveaxis(new, 2, 1))
  return Memory(pages.reshape(old.shape))


def copied(memory: Memory, pairs: jax.Array, count: jax.Array, layers: int) -> Memory:
  """Memory with pages copied in all layers: pairs int32 [B,N,2] of (from, to), of which
  count [B] are in use. Each sample has a page of its own with the end of its prompt."""

  def local(memory, pairs, count):
    stride = memory.kv.shape[1] // layers

    def one(i, memory):
      layer, pair = i % layers, pairs[0, i // layers]
      old, new = layer * stride + pair

      def copy(x):
        page = jax.lax.dynamic_slice_in_dim(x, old, 1, 1)
        return jax.lax.dynamic_update_slice_in_dim(x, page, new, 1)

      return jax.tree.map(copy, memory)

    with jax.named_scope('copies'):
      return jax.lax.fori_loop(0, count[0] * layers, one, memory)

  pages = Memory(LETTERS)
  return axes.local(local, (pages, 'B__', 'B'), pages)(memory, pairs, count)
