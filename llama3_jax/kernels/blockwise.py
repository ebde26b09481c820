"""Attention in blocks with an online softmax, forward and backward (section 3.3.2).

The path of CPUs and of any mask. No T x S array ever exists, and a pair of blocks that
no query may see is skipped: causality halves the work, and short documents in a long
row reduce it to that of the documents. Positions and segments are arrays, so any order
of the columns is valid (context parallelism cuts a row into 2 x CP chunks).

A block of queries is [K,R,H]: its G heads a KV head and `block` positions are one dim
R, so that each product is one matrix product a KV head.
"""

import functools

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from llama3_jax.kernels import bits
from llama3_jax.kernels.rule import Rule
from llama3_jax.kernels.rule import Side

SHORT = (
  512  # keys; up to this number blocks of 64 cost less CPU time than blocks of 128
)
LOW = -1e30  # in the place of minus infinity: its differences are never NaN


def attend(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  query: Side,
  key: Side,
  rule: Rule = Rule(),
  block: int = 0,
) -> jax.Array:
  """Attention output [B,T,N,H] of one device's part.

  Args: q [B,T,N,H]; k, v [B,S,K,H]; query, key: (position, segment) int32 pairs [B,T]
  and [B,S]. The output of a query that sees no key by the `rule` is zero. Rows run one
  after the other, so that each skips the blocks that its documents rule out. `block`
  tokens or nearly so, see `even`; 0: by the number of keys.
  """
  t, s = q.shape[1], k.shape[1]
  block = even(s, block or (64 if s <= SHORT else 128))
  q, query = _pad((q, query), block)
  k, v, key = _pad((k, v, key), block)
  return _rows((rule, block), q, k, v, query, key)[:, :t]


def even(length: int, block: int) -> int:
  """The size of equal blocks of a row, a multiple of 8 near `block`, so that little is
  padded: a row of 88 tokens is one block of 88, not two of 64 with a third of padding.

  Up to one and a half times `block` a row is one block, which costs less than two.
  """
  if length % block == 0:
    return block
  count = 1 if 2 * length <= 3 * block else -(-length // block)
  return -(-length // count // 8) * 8


def _pad(tree, block):
  """Pads rows to a multiple of `block` with zeros, that is segment 0."""

  def one(x):
    pad = [(0, 0), (0, -x.shape[1] % block)] + [(0, 0)] * (x.ndim - 2)
    return jnp.pad(x, pad) if pad[1][1] else x

  return jax.tree.map(one, tree)


def _cut(tree, block):
  """[S,K,H] -> [blocks,K,block,H] and [S] -> [blocks,block]."""

  def one(x):
    x = x.reshape(-1, block, *x.shape[1:])
    return x if x.ndim == 2 else jnp.moveaxis(x, 2, 1)

  return jax.tree.map(one, tree)


def _queries(q, k, block):
  """[T,N,H] -> [blocks,K,G*block,H]."""
  t, n, h = q.shape
  q = q.reshape(t // block, block, k.shape[1], -1, h)
  return jnp.einsum('ITKGH->IKGTH', q).reshape(t // block, k.shape[1], -1, h)


def _join(out, q):
  """[blocks,K,G*block,H] -> [T,N,H], shaped as `q`."""
  blocks, n_kv, _, h = out.shape
  out = out.reshape(blocks, n_kv, q.shape[1] // n_kv, -1, h)
  return jnp.einsum('IKGTH->ITKGH', out).reshape(q.shape)


def _scores(rule, q, k, query, key, low):
  """Scaled scores [K,R,S] float32, `low` where masked."""
  see = rule.visible(query, key)
  s = jnp.einsum('KRH,KSH->KRS', q, k, preferred_element_type=jnp.float32)
  s = s.reshape(s.shape[0], -1, *see.shape)
  s = jnp.where(see, s * q.shape[-1] ** -0.5, low)
  return s.reshape(s.shape[0], -1, s.shape[-1])


def _times(expression, a, b):
  return jnp.einsum(expression, a, b, preferred_element_type=jnp.float32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _rows(how, q, k, v, query, key):
  """Rows of whole blocks: arguments and output as in `attend`; how: (rule, block)."""
  return _forward(how, q, k, v, query, key)[0]


def _pairs(rule, query, key):
  """Which blocks of queries meet which of keys, bool [I,J]."""
  rows = tuple(x[:, None] for x in query)
  return rule.meets(rows, key)


def _held(x, query, key):
  """The arguments and LOW, all as if they depended on `x`.

  Masks do not depend on what is trained, so the scan over layers would make those of
  all pairs of blocks at once and keep them: T x S arrays again.
  """
  return jax.lax.optimization_barrier((x, query, key, jnp.float32(LOW)))


def _forward(how, q, k, v, query, key):
  rule, block = how
  cut = functools.partial(_cut, block=block)

  def row(x):
    q, k, v, query, key = x
    blocks = _queries(q, k, block), cut(k), cut(v), cut(query), cut(key)
    out, logz = _row(rule, *blocks)
    return bits.kept(_join(bits.used(out), q)), logz

  out, logz = jax.lax.map(row, (q, k, v, query, key))
  out, logz = (checkpoint_name(x, 'attention') for x in (bits.used(out), logz))
  return out, (q, k, v, query, key, out, logz)


def _row(rule, q, k, v, query, key):
  """One row: q [I,K,R,H] blocks, k, v [J,K,S,H] blocks -> output [I,K,R,H], `kept`, and
  log of the sum [I,K,R]."""
  meet = _pairs(rule, query, key)
  held, query, key, low = _held(q, query, key)

  def one(_, q_block):
    out, logz = _attend_block(rule, *q_block, k, v, key, low)
    return None, (bits.kept(out), logz)

  return jax.lax.scan(one, None, (held, query, meet))[1]


def _attend_block(rule, q, query, meet, k, v, key, low):
  """A block of queries against all blocks of keys, of which it meets those of `meet`
  [J]: output and log of the sum."""
  zero = jnp.zeros(q.shape[:2], jnp.float32)
  carry = (zero + LOW, zero, jnp.zeros(q.shape, jnp.float32))

  def step(carry, block):
    *block, meets = block
    fold = functools.partial(_fold, rule, q, query, block, low)
    return jax.lax.cond(meets, fold, lambda c: c, carry), None

  (top, total, out), _ = jax.lax.scan(step, carry, (k, v, key, meet))
  seen = total > 0
  out = out / jnp.where(seen, total, 1)[..., None]
  logz = jnp.where(seen, top + jnp.log(jnp.where(seen, total, 1)), -LOW)
  return out.astype(q.dtype), logz


def _fold(rule, q, query, block, low, carry):
  """Online softmax: one block of keys into (running maximum, sum, output)."""
  k, v, key = block
  top, total, out = carry
  s = _scores(rule, q, k, query, key, low)
  new = jnp.maximum(top, jnp.max(s, -1))
  p = jnp.exp(s - jnp.maximum(new, LOW / 2)[..., None])
  shrink = jnp.exp(top - new)
  out = out * shrink[..., None] + _times('KRS,KSH->KRH', p.astype(v.dtype), v)
  return new, total * shrink + jnp.sum(p, -1), out


def _backward(how, saved, g):
  """Recomputes the probabilities of a pair of blocks from the saved log-sum."""
  rule, block = how
  cut = functools.partial(_cut, block=block)

  def row(x):
    q, k, v, query, key, out, logz, g = x
    mean = jnp.sum(g.astype(jnp.float32) * out.astype(jnp.float32), -1)
    queries = _queries(q, k, block), cut(query), _queries(g, k, block), logz
    queries = *queries, _queries(mean[..., None], k, block)[..., 0]
    dq, dk, dv = _row_back(rule, *queries, cut(k), cut(v), cut(key))
    back = lambda x, like: bits.kept(_whole(x, like))
    return bits.kept(_join(bits.used(dq), q)), back(dk, k), back(dv, v)

  gradients = jax.lax.map(row, (*saved, g))
  return *map(bits.used, gradients), None, None


def _whole(x, like):
  """[J,K,S,H] -> [S,K,H] as `like`."""
  return jnp.moveaxis(x, 1, 2).reshape(like.shape).astype(like.dtype)


def _row_back(rule, q, query, g, logz, mean, k, v, key):
  """Gradients of one row's blocks: dq [I,K,R,H], `kept`; dk, dv [J,K,S,H] float32."""
  zero = jnp.zeros(k.shape, jnp.float32)
  meet = _pairs(rule, query, key)
  g, query, key, low = _held(g, query, key)

  def one(carry, q_block):
    *q_block, meet = q_block

    def step(dq, block):
      *block, dk, dv, meets = block
      fold = functools.partial(_fold_back, rule, q_block, block, low)
      dq, *rest = jax.lax.cond(meets, fold, lambda *x: x, dq, dk, dv)
      return dq, tuple(rest)

    start = jnp.zeros(q_block[0].shape, jnp.float32)
    dq, carry = jax.lax.scan(step, start, (k, v, key, *carry, meet))
    return carry, bits.kept(dq.astype(q.dtype))

  (dk, dv), dq = jax.lax.scan(one, (zero, zero), (q, query, g, logz, mean, meet))
  return dq, dk, dv


def _fold_back(rule, q_block, k_block, low, dq, dk, dv):
  """Adds the gradients of one pair of blocks, in float32."""
  q, query, g, logz, mean = q_block
  k, v, key = k_block
  p = jnp.exp(_scores(rule, q, k, query, key, low) - logz[..., None])
  ds = p * (_times('KRH,KSH->KRS', g, v) - mean[..., None]) * q.shape[-1] ** -0.5
  p, ds = p.astype(q.dtype), ds.astype(q.dtype)
  dq = dq + _times('KRS,KSH->KRH', ds, k)
  dk = dk + _times('KRS,KRH->KSH', ds, q)
  return dq, dk, dv + _times('KRS,KRH->KSH', p, g)


_rows.defvjp(_forward, _backward)
