"""A token of every row, from logits and the row's own settings (4.2.2).

Settings are arrays, so one program serves all of them. A draw uses one uniform number:
it is found in the cumulative probabilities, first of blocks of the vocabulary and then
inside one, so that nothing of the size of the vocabulary is sorted or drawn.
"""

import zlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

BLOCK = 128  # tokens
TOP = 256  # likeliest tokens that are sorted; a row that needs more looks at all
FEW = 8  # rows of a group that look at all tokens at a time
STOPS = 8  # stop tokens of a row
BIASED = 320  # tokens of a row that logit_bias may name
ALTERNATIVES = 20  # most log-probabilities beside that of the sampled token


@struct.dataclass
class Rules:
  """Settings of rows, arrays [B,T] and those with a further dim as said.

  key: uint32 [B,T,3]: seed, hash of the prompt, number of the sample. The others are
  fields of Settings; bias_ids int32 and bias [B,T,BIASED], unused ids are -1; stops
  int32 [B,T,STOPS], unused are -1.
  """

  key: jax.Array
  temperature: jax.Array
  top_p: jax.Array
  top_k: jax.Array
  min_p: jax.Array
  repetition: jax.Array
  presence: jax.Array
  frequency: jax.Array
  alternatives: jax.Array
  vocab_size: jax.Array
  stops: jax.Array
  bias_ids: jax.Array
  bias: jax.Array


def rules(rows: tuple[int, int]) -> Rules:
  """Rules of idle rows, numpy arrays that the caller fills."""
  f = lambda value: np.full(rows, value, np.float32)
  i = lambda *more: np.full((*rows, *more), -1, np.int32)
  return Rules(
    key=np.zeros((*rows, 3), np.uint32),
    temperature=f(0),
    top_p=f(1),
    top_k=np.zeros(rows, np.int32),
    min_p=f(0),
    repetition=f(1),
    presence=f(0),
    frequency=f(0),
    alternatives=np.zeros(rows, np.int32),
    vocab_size=np.zeros(rows, np.int32),
    stops=i(STOPS),
    bias_ids=i(BIASED),
    bias=np.zeros((*rows, BIASED), np.float32),
  )


def key(seed: int, prompt: Sequence[int], sample: int) -> tuple[int, int, int]:
  """What decides all draws of a sample: Rules.key."""
  return seed, zlib.crc32(np.asarray(prompt, np.int32).tobytes()), sample


def fixed(r: Rules, size: int) -> jax.Array:
  """What is added to logits at every step, float32 [B,T,V]: the bias of each token, and
  -inf for rows of the embedding that are no tokens."""
  b, t, _ = r.bias_ids.shape
  flat = jnp.zeros((b * t, size), jnp.float32)
  rows = jnp.arange(b * t)[:, None]
  ids = jnp.where(r.bias_ids < 0, size, r.bias_ids).reshape(b * t, -1)
  added = flat.at[rows, ids].add(r.bias.reshape(b * t, -1), mode='drop')
  tokens = jnp.where(r.vocab_size > 0, r.vocab_size, size)[..., None]
  return jnp.where(jnp.arange(size) < tokens, added.reshape(b, t, size), -jnp.inf)


def adjusted(
  logits: jax.Array, r: Rules, counts: jax.Array, seen: jax.Array
) -> jax.Array:
  """Logits with penalties, float32 [B,T,V].

  counts int32 [B,T,V]: how often each token was sampled; seen bool [B,T,V]: whether it
  stands in the prompt or the answer. Repetition divides positive logits of seen tokens
  and multiplies negative ones (CTRL); presence and frequency are subtracted, once and
  for every time it was sampled.
  """
  scale = r.repetition[..., None]
  shrunk = jnp.where(logits > 0, logits / scale, logits * scale)
  logits = jnp.where(seen, shrunk, logits)
  sampled = jnp.where(counts > 0, r.presence[..., None], 0)
  return logits - sampled - r.frequency[..., None] * counts


def _bisected(order, weights, due):
  """The largest key of `order` int32 [B,T,V] such that the weights of all tokens with
  that key or a larger one reach `due` [B,T]: 32 halvings, and no sort."""

  def halve(_, ends):
    low, high = ends  # low reaches it
    middle = (low >> 1) + (high >> 1) + ((low | high) & 1)
    reached = jnp.sum(jnp.where(order >= middle[..., None], weights, 0), -1) >= due
    return jnp.where(reached, middle, low), jnp.where(reached, high, middle - 1)

  ends = jnp.min(order, -1), jnp.max(order, -1)
  return jax.lax.fori_loop(0, 32, halve, ends)[0]


def _least_of_all(z, r, most):
  """As `_least`, from all tokens: the keys order floats as they are ordered."""
  bits = jax.lax.bitcast_convert_type(z, jnp.int32)
  order = bits ^ ((bits >> 31) & jnp.int32(2**31 - 1))
  count = jnp.where(r.top_k > 0, r.top_k, z.shape[-1]).astype(jnp.float32)
  of_rank = lambda: _bisected(order, jnp.ones_like(z), count)
  lowest = lambda: jnp.min(order, -1)
  ranked = jax.lax.cond(jnp.any(r.top_k > 0), of_rank, lowest)
  p = jnp.where(order >= ranked[..., None], jnp.exp(z - most[..., None]), 0)
  due = jnp.where(r.top_p < 1, r.top_p, 0) * jnp.sum(p, -1)
  least = _bisected(order, p, due)
  kept = (r.top_p >= 1)[..., None] | (order >= least[..., None])
  kept &= order >= ranked[..., None]
  return jnp.min(jnp.where(kept, z, jnp.inf), -1)


def _least_of_few(z, r, most, wanted):
  """`_least_of_all` for the rows that are `wanted`, bool [B,T], and 0 for the others:
  FEW rows of each group at a time, since those that look at all tokens are few."""
  size = min(FEW, wanted.shape[1])
  order = jnp.argsort(~wanted, 1, stable=True)

  def one(i, least):
    rows = jax.lax.dynamic_slice_in_dim(order, i * size, size, 1)
    take = lambda x: jnp.take_along_axis(x, rows, 1)
    own = r.replace(top_k=take(r.top_k), top_p=take(r.top_p))
    values = jnp.take_along_axis(z, rows[..., None], 1)
    found = _least_of_all(values, own, take(most))
    at = rows[..., None] == jnp.arange(wanted.shape[1])
    placed = jnp.sum(jnp.where(at, found[..., None], 0), 1)
    return jnp.where(jnp.any(at, 1), placed, least)

  turns = jnp.max(-(-jnp.sum(wanted, 1) // size))
  return jax.lax.fori_loop(0, turns, one, jnp.zeros_like(most))


def _least(z, r, most):
  """The smallest of logits over temperature [B,T,V] that top_k and top_p keep, [B,T].

  top_p keeps the fewest most likely tokens whose probabilities reach it together. The
  likeliest are sorted; where they do not reach it, all tokens are looked at.
  """
  top = jax.lax.top_k(z, min(TOP, z.shape[-1]))[0]
  kept = (r.top_k[..., None] == 0) | (jnp.arange(top.shape[-1]) < r.top_k[..., None])
  p = jnp.where(kept, jnp.exp(top - most[..., None]), 0)
  whole = jnp.sum(jnp.exp(z - most[..., None]), -1)
  share = p / jnp.where(r.top_k > 0, jnp.sum(p, -1), whole)[..., None]
  mass = jnp.cumsum(share, -1)
  inside = kept & ((mass - share < r.top_p[..., None]) | (r.top_p >= 1)[..., None])
  few = jnp.min(jnp.where(inside, top, jnp.inf), -1)

  every = (r.top_k == 0) & (r.top_p >= 1)
  ranked = (r.top_k > 0) & (r.top_k <= top.shape[-1])
  enough = ranked | ((r.top_k == 0) & (mass[..., -1] >= r.top_p))
  known = enough | every | (r.temperature == 0)
  many = _least_of_few(z, r, most, ~known)
  return jnp.where(every, -jnp.inf, jnp.where(enough, few, many))


def _found(p, u):
  """Index of the token at the share u of the cumulative weights, [B,T] of [B,T,V]."""
  *rows, size = p.shape
  blocks = jnp.pad(p, [(0, 0)] * len(rows) + [(0, -size % BLOCK)])
  blocks = blocks.reshape(*rows, -1, BLOCK)
  sums = blocks.sum(-1)
  edges = jnp.cumsum(sums, -1)
  target = u * edges[..., -1]

  def first(edges, target, weights):
    """The first index whose edge lies above the target; never one without weight."""
    i = jnp.sum(edges <= target[..., None], -1)
    last = weights.shape[-1] - 1 - jnp.argmax(weights[..., ::-1] > 0, -1)
    return jnp.minimum(i, last)

  block = first(edges, target, sums)
  take = lambda x: jnp.take_along_axis(x, block[..., None], -1)[..., 0]
  inside = jnp.take_along_axis(blocks, block[..., None, None], -2)[..., 0, :]
  rest = target - (take(edges) - take(sums))
  index = first(jnp.cumsum(inside, -1), rest, inside)
  return (block * BLOCK + index).astype(jnp.int32)


def _uniform(key, step):
  """A number in [0, 1) from uint32 [3] and the number of the draw."""
  folded = jax.random.key(key[0])
  for number in (key[1], key[2], step):
    folded = jax.random.fold_in(folded, number)
  return jax.random.uniform(folded)


def pick(adjusted: jax.Array, r: Rules, step: jax.Array) -> jax.Array:
  """A token for each row, int32 [B,T], of float32 [B,T,V]; -inf is never sampled.

  step int32 [B,T]: how many tokens the row has drawn. The token depends on the row's
  logits, settings and step alone.
  """
  greedy = jnp.argmax(adjusted, -1).astype(jnp.int32)
  warm = jnp.where(r.temperature > 0, r.temperature, 1)
  z = adjusted / warm[..., None]
  most = jnp.max(z, -1)
  least = jnp.maximum(_least(z, r, most), most + jnp.log(r.min_p))
  p = jnp.where(z >= least[..., None], jnp.exp(z - most[..., None]), 0)
  u = jax.vmap(jax.vmap(_uniform))(r.key, step)
  return jnp.where(r.temperature > 0, _found(p, u), greedy)


def logps(
  logits: jax.Array, token: jax.Array, r: Rules
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  """Log-probability of the tokens under the model, at temperature 1 and without any
  rule, float32 [B,T], over all rows of the vocabulary as in losses; and the likeliest
  alternatives, (int32, float32) [B,T,ALTERNATIVES], zeros where no row wants them."""
  total = jax.scipy.special.logsumexp(logits, -1)
  chosen = jnp.take_along_axis(logits, token[..., None], -1)[..., 0]
  count = min(ALTERNATIVES, logits.shape[-1])

  def best():
    values, ids = jax.lax.top_k(logits, count)
    return ids.astype(jnp.int32), values - total[..., None]

  empty = jnp.zeros((*token.shape, count))
  none = lambda: (empty.astype(jnp.int32), empty.astype(jnp.float32))
  return chosen - total, jax.lax.cond(jnp.any(r.alternatives > 0), best, none)
