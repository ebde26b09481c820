"""Attention over pages of keys and values (6.1).

Tokens are written to their pages first and then read like all others. On TPU a kernel
reads the pages of all (kernels/ragged.py), where it takes the sizes. Else there are two
ways to read, merged by log-sum-exp:

- by item: a page, or a run of them, that several tokens see is one product for all of
  them: prompts while they are read, and what the samples of a prompt share;
- by row: every token reads the pages of its own table: what it has decoded.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from llama3_jax import axes
from llama3_jax.generate import pool
from llama3_jax.generate.pool import LETTERS
from llama3_jax.generate.pool import Memory
from llama3_jax.kernels import ragged
from llama3_jax.kernels.rule import Rule

LOWEST = -1e30  # of scores that are not seen: finite, so that differences are
BLOCK = 64  # tokens of a block of queries, whose scores stay near the processor


@struct.dataclass
class Items:
  """Pages that are read for several tokens at a time, in N blocks of T/N tokens: page
  int32 [B,N,I]; first int32 [B,N,I], the position of its first token; who bool
  [B,N,I,G], the groups of tokens that see it, of which 0 is padding; count int32 [B,N],
  the items in use; table int32 [B,G-1,W] or None, all pages of the groups 1, 2, ...,
  each of which is a run of neighbouring tokens."""

  page: jax.Array
  first: jax.Array
  who: jax.Array
  count: jax.Array
  table: jax.Array | None = None


@struct.dataclass
class Spots:
  """Where tokens stand, int32 [B,T]: position; group (0: padding, which is written
  to the page 0); page and slot that they are written to."""

  position: jax.Array
  group: jax.Array
  page: jax.Array
  slot: jax.Array


@struct.dataclass
class Tables:
  """Pages that tokens read by row: page int32 [B,T,W], that of positions from w S on;
  first int32 [B,T], the first column that is read."""

  page: jax.Array
  first: jax.Array


# Letters of q, k, v, the pages, and the number of a layer's page 0.
SIDES = ('BTNH', 'BSKH', 'BSKH', Memory(LETTERS), '')


def _letters(cut, tree):
  """Letters of arrays [B,T,...], of which the first dims are cut."""
  return jax.tree.map(lambda x: cut + '_' * (x.ndim - len(cut)), tree)


def block(tokens: int, parts: int = 1) -> int:
  """Tokens of a block of queries, of `tokens` in all, in `parts` microbatches."""
  own = tokens // axes.parts('T') // parts
  return BLOCK if own % BLOCK == 0 else own


def items(groups: int, tokens: int, most: int, count: int, parts: int = 1) -> Items:
  """Empty items, numpy arrays that the caller fills: at most `most` for each block of
  `tokens` tokens, which have groups below `count`."""
  shape = (groups, tokens // block(tokens, parts), most)
  return Items(
    page=np.zeros(shape, np.int32),
    first=np.zeros(shape, np.int32),
    who=np.zeros((*shape, count), bool),
    count=np.zeros(shape[:2], np.int32),
  )


def attend(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  memory: Memory,
  base: jax.Array | int,
  spots: Spots,
  items: Items,
  tables: Tables | None,
  rule: Rule,
) -> tuple[jax.Array, Memory]:
  """Writes new keys and values, then attends: output [B,T,N,H] and the memory.

  q [B,T,N,H], k, v [B,T,K,H]; base: number of this layer's page 0. A token sees the
  positions that `rule` allows in items of its group and in its own table.
  """
  kernel = _kernel(k, items, tables)
  if items is not None and not kernel:
    items = items.replace(table=None)
  own = functools.partial(_letters, 'BT')
  inputs = *SIDES, _letters('B', spots), own(spots), own(items), own(tables)
  local = functools.partial(_attend, rule=rule, kernel=kernel)
  run = axes.local(local, inputs, ('BTNH', SIDES[3]))
  return run(q, k, v, memory, jnp.asarray(base), spots, spots, items, tables)


def _kernel(k, items, tables):
  """Whether the kernel for TPU is used."""
  if axes.platform() != 'tpu':
    return False
  table = items.table if tables is None else tables.page
  # A chunk that is cut over `context` has parts of sequences on each device.
  if table is None or (tables is None and axes.parts('T') > 1):
    return False
  cells = table.shape[1] * table.shape[2] // axes.parts('T')
  return ragged.fits(k.shape[2] // axes.parts('K'), k.shape[3], cells, k.dtype)


def _sequences(own, items, tables):
  """(lengths, table, starts, count) of ragged.attend: rows, or prompts of a chunk."""
  position, group = own.position[0], own.group[0]
  if tables is not None:
    rows = len(group)
    lengths = jnp.where(group > 0, position + 1, 1)  # an idle row sees one key
    return lengths, tables.page[0], jnp.arange(rows + 1), jnp.int32(rows)
  table = items.table[0]
  numbers = jnp.arange(len(table) + 1)
  member = group[:, None] == numbers[1:]
  lengths = jnp.max(jnp.where(member, position[:, None] + 1, 1), 0)
  ends = jnp.cumsum(jnp.sum(member, 0, jnp.int32))
  # Of a chunk that is empty, the first sequence is one token of padding.
  starts = jnp.maximum(jnp.pad(ends, (1, 0)), jnp.minimum(numbers, 1))
  return lengths, table, starts, jnp.maximum(jnp.max(group), 1)


def _attend(q, k, v, memory, base, spots, own, items, tables, rule, kernel):
  """One group of chips: B is 1. `spots` of all tokens and `own` of those of q."""
  page, slot = base + spots.page[0], spots.slot[0]
  memory = pool.written(memory, page, slot, *(x[0].astype(q.dtype) for x in (k, v)))
  if kernel:
    lengths, table, *rest = _sequences(own, items, tables)
    given = q[0], memory.kv[0], lengths, base + table, *rest
    out = ragged.attend(*given, window=rule.window).astype(k.dtype)
    return jnp.where(own.group[..., None, None] > 0, out[None], 0), memory
  t, n, h = q.shape[1:]
  q = (q[0] * h**-0.5).reshape(t, k.shape[2], -1, h)
  position, group = own.position[0], own.group[0]
  state = _empty(q)
  if items is not None:
    items = jax.tree.map(lambda x: x[0], items)
    state = _by_item(q, memory, base, position, group, items, rule, state)
  if tables is not None:
    tables = jax.tree.map(lambda x: x[0], tables)
    state = _by_row(q, memory, base, position, group, tables, rule, state)
  return _out(state, k.dtype, n), memory


@struct.dataclass
class Tree:
  """Tokens of a chunk as a tree of texts with common beginnings, int32 [B,T].

  number: in the order of a depth-first walk; leave: the number after the branch.

  A token sees those whose branch it is in.
  """

  number: jax.Array
  leave: jax.Array


def attend_tree(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  memory: Memory,
  base: jax.Array | int,
  spots: Spots,
  items: Items,
  tree: Tree,
  rule: Rule,
) -> jax.Array:
  """As `attend`, of tokens that see a tree among themselves, and pages before them;
  nothing is written. Output [B,T,N,H]."""
  own, sides = functools.partial(_letters, 'BT'), (spots, tree)
  inputs = *SIDES, own(sides), _letters('B', sides), own(items)
  run = axes.local(functools.partial(_attend_tree, rule=rule), inputs, 'BTNH')
  return run(q, k, v, memory, jnp.asarray(base), sides, sides, items)


def _attend_tree(q, k, v, memory, base, own, every, items, rule):
  """One group of chips: B is 1; the tokens of q, and those of k and v."""
  first = lambda x: jax.tree.map(lambda x: x[0], x)
  (spots, tree), (keys, branches), items = first(own), first(every), first(items)
  t, n, h = q.shape[1:]
  q = (q[0] * h**-0.5).reshape(t, k.shape[2], -1, h)
  state = _by_item(q, memory, base, spots.position, spots.group, items, rule, _empty(q))
  size = t // items.count.shape[0]
  parts = lambda x: x.reshape(-1, size, *x.shape[1:])
  k, v, keys, branches = jax.tree.map(parts, (k[0], v[0], keys, branches))

  def among(i, given):
    take = lambda x: jax.lax.dynamic_index_in_dim(x, i, 0, False)
    key, branch, tree = take(keys.position), jax.tree.map(take, branches), given['tree']
    seen = rule.before(given['position'][:, None], key)
    number = tree.number[:, None]
    seen &= (branch.number <= number) & (number < branch.leave)
    return take(k), take(v), seen

  cut = {'position': spots.position, 'tree': tree}
  last = jnp.max(tree.number.reshape(-1, size), 1)
  counts = jnp.minimum(last // size + 1, len(k))
  return _out(_blocks(q, cut, {}, among, counts, state), k.dtype, n)


def _out(state, dtype, heads):
  """Output [1,T,N,H] of a state."""
  _, total, out = state
  out = out / jnp.maximum(total, 1e-30)[..., None]
  return out.astype(dtype).reshape(1, out.shape[0], heads, out.shape[-1])


def _empty(q):
  """(largest score, sum of exponentials, weighted values) over no keys, float32."""
  rows = q.shape[:-1]
  zeros = jnp.zeros(q.shape, jnp.float32)
  return jnp.full(rows, LOWEST, jnp.float32), jnp.zeros(rows, jnp.float32), zeros


def _merge(state, scores, seen, weigh):
  """The state with more keys: scores [...,S] where `seen`; weigh(p) is the sum of the
  values with weights p."""
  most, total, out = state
  scores = jnp.where(seen, scores, LOWEST)
  new = jnp.maximum(most, jnp.max(scores, -1))
  p = jnp.where(seen, jnp.exp(scores - new[..., None]), 0)
  old = jnp.exp(most - new)
  return new, total * old + jnp.sum(p, -1), out * old[..., None] + weigh(p)


def _by_item(q, memory, base, position, group, items, rule, state):
  """The state after the pages of the items; q [T,K,G,H]."""
  size = memory.kv.shape[2]

  def keys(i, given):
    number = base + given['items'].page[i]
    places = given['items'].first[i] + jnp.arange(size)
    seen = rule.before(given['position'][:, None], places)
    seen &= given['items'].who[i][given['group']][:, None]
    return *pool.apart(memory, number), seen

  cut = {'position': position, 'group': group}
  return _blocks(q, cut, {'items': items}, keys, items.count, state)


def _blocks(q, cut, blocks, keys, counts, state):
  """The state after all keys that blocks of queries see, one block after the other.

  q [T,K,G,H] and the arrays [T,...] of `cut` are cut into N blocks, those of `blocks`
  are [N,...]; counts int32 [N]. keys(i, given) -> the i-th keys and values of a block,
  [S,K,H], and which query sees which, bool [T/N,S]; given: its part of the arrays.
  """
  (t, k, g, _), n = q.shape, counts.shape[0]
  divide = lambda x: x.reshape(n, t // n, *x.shape[1:])
  # [N,K,rows G,...]: the heads that share keys are rows of one product.
  turn = lambda x: jnp.moveaxis(divide(x), 2, 1)
  turned = lambda x: turn(x).reshape(n, k, t // n * g, *x.shape[3:])
  back = lambda x: jnp.moveaxis(x.reshape(n, k, t // n, g, *x.shape[3:]), 1, 2)
  sums = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)

  def one(given):
    q, state, count = given['q'], given['state'], given['count']

    def part(i, state):
      k, v, seen = keys(i, given)
      scores = sums('KTH,SKH->KTS', q, k)
      weigh = lambda p: sums('KTS,SKH->KTH', p.astype(v.dtype), v)
      return _merge(state, scores, jnp.repeat(seen, g, 0)[None], weigh)

    with jax.named_scope('by_item'):
      return jax.lax.fori_loop(0, count, part, state)

  given = {'q': turned(q), 'state': jax.tree.map(turned, state), 'count': counts}
  given |= jax.tree.map(divide, cut) | blocks
  state = jax.lax.map(one, given)
  return jax.tree.map(lambda x: back(x).reshape(t, k, g, *x.shape[3:]), state)


def _by_row(q, memory, base, position, group, tables, rule, state):
  size = memory.kv.shape[2]
  columns = position // size
  real = group > 0
  start = jnp.min(jnp.where(real, tables.first, tables.page.shape[1]))
  if rule.window:
    oldest = jnp.maximum(position - rule.window + 1, 0) // size
    start = jnp.maximum(start, jnp.min(jnp.where(real, oldest, tables.page.shape[1])))
  stop = jnp.max(jnp.where(real, columns + 1, 0))

  def one(i, state):
    page = base + jax.lax.dynamic_index_in_dim(tables.page, i, 1, False)
    k, v = pool.apart(memory, page)  # [T,S,K,H]
    places = i * size + jnp.arange(size)
    seen = rule.before(position[:, None], places) & (tables.first <= i)[:, None]
    scores = jnp.einsum('TKGH,TSKH->TKGS', q, k, preferred_element_type=jnp.float32)
    weigh = lambda p: jnp.einsum(
      'TKGS,TSKH->TKGH', p.astype(v.dtype), v, preferred_element_type=jnp.float32
    )
    return _merge(state, scores, seen[:, None, None], weigh)

  with jax.named_scope('by_row'):
    return jax.lax.fori_loop(start, stop, one, state)
