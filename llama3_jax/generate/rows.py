"""Rows that decode, as arrays: how a token is drawn for each, and what it changes.

Everything here is of one group of chips, B=1, or of several without a mesh.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from llama3_jax.generate import draw
from llama3_jax.generate import paged


@struct.dataclass
class Rows:
  """What decodes: arrays [B,T], and those with a further dim as said.

  Attributes:
    token: int32, the last token, which is not in the pages yet.
    position: int32, its position.
    active: bool.
    drawn: int32, tokens that were sampled.
    most: int32, tokens that may be sampled.
    tables: paged.Tables.
    own: int32, the first column of the table that the row may write to.
    said: int32 [B,T,W], the tokens of prompt and answer that penalties count; -1: none.
    asked: int32, how many of `said` are of the prompt.
    allowed: uint32 [B,T,V/32], bits of the tokens that may be sampled, where `bound`.
    bound: bool, whether `allowed` counts.
    rules: draw.Rules.
  """

  token: jax.Array
  position: jax.Array
  active: jax.Array
  drawn: jax.Array
  most: jax.Array
  tables: paged.Tables
  own: jax.Array
  said: jax.Array
  asked: jax.Array
  allowed: jax.Array
  bound: jax.Array
  rules: draw.Rules


@struct.dataclass
class Drawn:
  """Results of a call, [B,T,N] of N steps: tokens int32; logps float32; real bool,
  whether the row was active; ids and values of alternatives [B,T,N,A]."""

  tokens: jax.Array
  logps: jax.Array
  real: jax.Array
  ids: jax.Array
  values: jax.Array


@struct.dataclass
class Kept:
  """What a call keeps beside the rows: how often tokens stand in the prompt and were
  sampled, int32 [B,T,V]; what is added to all logits, float32 [B,T,V]; its results."""

  asked: jax.Array
  sampled: jax.Array
  added: jax.Array
  drawn: Drawn


def begin(rows: Rows, size: int, steps: int) -> tuple[Rows, Kept]:
  """The rows and what a call of `steps` begins with; size: of the vocabulary."""
  b, t = rows.token.shape
  best = b, t, steps, min(draw.ALTERNATIVES, size)
  drawn = Drawn(
    tokens=jnp.zeros((b, t, steps), jnp.int32),
    logps=jnp.zeros((b, t, steps), jnp.float32),
    real=jnp.zeros((b, t, steps), bool),
    ids=jnp.zeros(best, jnp.int32),
    values=jnp.zeros(best, jnp.float32),
  )
  added = _forbidden(rows, size) + draw.fixed(rows.rules, size)
  return rows, Kept(*_counted(rows, size), added, drawn)


def spots(rows: Rows, page: int) -> paged.Spots:
  """Where the last tokens are written, in pages of `page` tokens."""
  column = (rows.position // page)[..., None]
  number = jnp.take_along_axis(rows.tables.page, column, -1)[..., 0]
  groups = jnp.arange(1, rows.token.shape[1] + 1)
  return paged.Spots(
    position=rows.position,
    group=jnp.where(rows.active, groups, 0),
    page=jnp.where(rows.active & (column[..., 0] >= rows.own), number, 0),
    slot=rows.position % page,
  )


def advance(
  i: jax.Array, logits: jax.Array, rows: Rows, kept: Kept
) -> tuple[Rows, Kept]:
  """Draws token i of a call from logits float32 [B,T,V] and writes it down."""
  b, t = rows.token.shape
  seen = (kept.asked > 0) | (kept.sampled > 0)
  changed = draw.adjusted(logits, rows.rules, kept.sampled, seen) + kept.added
  token = draw.pick(changed, rows.rules, rows.drawn)
  logp, best = draw.logps(logits, token, rows.rules)
  new = Drawn(token, logp, rows.active, *best)
  drawn = jax.tree.map(lambda all, x: all.at[:, :, i].set(x), kept.drawn, new)
  sampled = kept.sampled.at[jnp.arange(b)[:, None], jnp.arange(t), token].add(1)
  return after(rows, token), kept.replace(sampled=sampled, drawn=drawn)


def after(rows: Rows, token: jax.Array) -> Rows:
  """Rows after one more token; a stop token, or the last that is allowed, ends one."""
  drawn = rows.drawn + rows.active
  stopped = jnp.any(token[..., None] == rows.rules.stops, -1)
  return rows.replace(
    token=token,
    position=rows.position + rows.active,
    drawn=drawn,
    active=rows.active & ~stopped & (drawn < rows.most),
  )


def _counted(rows, size):
  """How often tokens stand in prompts and were sampled, int32 [B,T,V] each."""
  b, t, w = rows.said.shape
  place = jnp.arange(w)
  where = jnp.arange(b)[:, None, None], jnp.arange(t)[:, None]

  def count(mask):
    ids = jnp.where(mask & (rows.said >= 0), rows.said, size)
    return jnp.zeros((b, t, size), jnp.int32).at[*where, ids].add(1, mode='drop')

  asked = place < rows.asked[..., None]
  return count(asked), count(~asked)


def _forbidden(rows, size):
  """0 where a token may be sampled, else -inf, float32 [B,T,V]."""

  def bits():
    shifted = rows.allowed[..., None] >> jnp.arange(32, dtype=jnp.uint32)
    return (shifted & 1).astype(bool).reshape(*rows.bound.shape, -1)[..., :size]

  free = lambda: jnp.ones((*rows.bound.shape, size), bool)
  allowed = jax.lax.cond(jnp.any(rows.bound), bits, free)
  return jnp.where(allowed | ~rows.bound[..., None], 0, -jnp.inf)


def words(size: int) -> int:
  """uint32 numbers of a mask of the vocabulary."""
  return -(-size // 32)


def idle(groups: int, count: int, width: int, said: int, size: int) -> Rows:
  """Idle rows, numpy arrays that the caller fills. width: pages of a row; said: tokens
  that penalties may count; size: of the vocabulary."""
  shape = (groups, count)
  whole = lambda *more: np.zeros((*shape, *more), np.int32)
  return Rows(
    token=whole(),
    position=whole(),
    active=np.zeros(shape, bool),
    drawn=whole(),
    most=whole(),
    tables=paged.Tables(page=whole(width), first=whole()),
    own=whole(),
    said=np.full((*shape, said), -1, np.int32),
    asked=whole(),
    allowed=np.zeros((*shape, words(size)), np.uint32),
    bound=np.zeros(shape, bool),
    rules=draw.rules(shape),
  )
