"""Grouped-query attention under a causal document mask (sections 3.2, 3.3.2).

`attend` is the one entry. `dense` is the clear reference; `blockwise` never holds a
T x S array and skips the blocks that no query may see. Both run on the device's own
part: under context parallelism a device has its share of the queries and all keys,
and positions and segments travel as arrays, so any order of the rows is right.
"""

import functools

import jax
import jax.numpy as jnp

from llama3_jax import axes

LONG = 256  # from here on `auto` is blockwise: it took 14% less CPU time at 256


def attend(q, k, v, query, key, config):
  """Attention output [B,T,N,H].

  Args: q [B,T,N,H]; k, v [B,S,K,H]; query, key: (position, segment) int32 pairs,
  [B,T] and [B,S]. A query sees the keys of its own segment at its own or an earlier
  position; segment 0 is padding, sees nothing and gives zeros. Softmax in float32.
  """
  method = config.attention
  if method == 'auto':
    long = min(q.shape[1], k.shape[1]) >= LONG
    method = 'blockwise' if long else 'dense'
  function = dense
  if method == 'blockwise' and q.shape[1] > 1:
    function = functools.partial(blockwise, block=config.block)
  sides = (('BT', 'BT'), ('BS', 'BS'))
  return axes.local(function, ('BTNH', 'BSKH', 'BSKH', *sides), 'BTNH')(
    q, k, v, query, key
  )


def visible(query, key):
  """Mask, bool [B,T,S]: which keys a query may see."""
  (qp, qs), (kp, ks) = query, key
  same = (qs[:, :, None] == ks[:, None, :]) & (qs[:, :, None] > 0)
  return same & (qp[:, :, None] >= kp[:, None, :])


def dense(q, k, v, query, key):
  """The reference: all scores at once, [B,K,G,T,S] float32."""
  b, t, n, h = q.shape
  q = q.reshape(b, t, k.shape[2], -1, h)
  scores = jnp.einsum('BTKGH,BSKH->BKGTS', q, k, preferred_element_type=jnp.float32)
  mask = visible(query, key)[:, None, None]
  scores = jnp.where(mask, scores * h**-0.5, -jnp.inf)
  top = jnp.max(scores, -1, keepdims=True)
  p = jnp.exp(scores - jnp.where(jnp.isfinite(top), top, 0))
  p = p / jnp.maximum(jnp.sum(p, -1, keepdims=True), 1e-30)
  return jnp.einsum('BKGTS,BSKH->BTKGH', p.astype(v.dtype), v).reshape(b, t, n, h)


def blockwise(q, k, v, query, key, block):
  """Online softmax over blocks of keys, for one block of queries after another.

  A pair of blocks is skipped when its latest query is before its earliest key or
  their ranges of segments do not meet: then every score would be masked.
  """
  b, t, n, h = q.shape
  q = q.reshape(b, t, k.shape[2], -1, h)
  qs = jax.tree.map(lambda x: _blocks(x, block), (q, query))
  ks = jax.tree.map(lambda x: _blocks(x, block), (k, v, key))

  def row(_, q_block):
    return None, _row(q_block, ks)

  _, out = jax.lax.scan(jax.checkpoint(row), None, qs)
  out = jnp.moveaxis(out, 0, 1)  # [B, blocks, block, K, G, H]
  return out.reshape(b, -1, n, h)[:, :t]


def _blocks(x, block):
  """[B,T,...] -> [blocks,B,block,...], zeros (segment 0) at the end."""
  pad = [(0, 0), (0, -x.shape[1] % block)] + [(0, 0)] * (x.ndim - 2)
  x = jnp.pad(x, pad)
  return jnp.moveaxis(x.reshape(x.shape[0], -1, block, *x.shape[2:]), 1, 0)


def _row(q_block, ks):
  """One block of queries against all blocks of keys: [B,block,K,G,H]."""
  q, query = q_block
  b, t, n_kv, g, h = q.shape
  zero = jnp.zeros((b, n_kv, g, t), jnp.float32)
  carry = (zero - jnp.inf, zero, jnp.zeros((b, n_kv, g, t, h), jnp.float32))

  def step(carry, k_block):
    seen = functools.partial(_update, q, query)
    meet = _meet(query, k_block[2])
    return jax.lax.cond(meet, seen, lambda c, _: c, carry, k_block), None

  (_, total, out), _ = jax.lax.scan(jax.checkpoint(step), carry, ks)
  out = out / jnp.maximum(total, 1e-30)[..., None]
  return jnp.einsum('BKGTH->BTKGH', out).astype(q.dtype)


def _meet(query, key):
  """Whether some query of the block may see some key of the block, in any row."""
  (qp, qs), (kp, ks) = query, key
  big = jnp.iinfo(jnp.int32).max
  least = lambda x, s: jnp.min(jnp.where(s > 0, x, big), axis=1)
  most = lambda x, s: jnp.max(jnp.where(s > 0, x, -1), axis=1)
  after = most(qp, qs) >= least(kp, ks)
  overlap = (most(qs, qs) >= least(ks, ks)) & (most(ks, ks) >= least(qs, qs))
  return jnp.any(after & overlap)


def _update(q, query, carry, k_block):
  """Online softmax: fold one block of keys into (running max, sum, output)."""
  top, total, out = carry
  k, v, key = k_block
  scores = jnp.einsum('BTKGH,BSKH->BKGTS', q, k, preferred_element_type=jnp.float32)
  mask = visible(query, key)[:, None, None]
  scores = jnp.where(mask, scores * q.shape[-1] ** -0.5, -jnp.inf)
  new = jnp.maximum(top, jnp.max(scores, -1))
  base = jnp.where(jnp.isfinite(new), new, 0)
  p = jnp.exp(scores - base[..., None])
  shrink = jnp.exp(top - base)
  part = jnp.einsum('BKGTS,BSKH->BKGTH', p.astype(v.dtype), v)
  return new, total * shrink + jnp.sum(p, -1), out * shrink[..., None] + part
