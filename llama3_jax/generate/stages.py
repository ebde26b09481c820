"""The two programs of generation over the stages of a pipeline (6.1).

Each stage has consecutive layers, and the pages of them. The rows that decode, and the
tokens of a chunk of prompts, are cut into microbatches, so that the stages work on
different ones at the same time. Everything runs in ticks, in all of which every stage
does the same: its layers for one microbatch, the head, and a message to the next stage.
A stage without a microbatch does so for nothing, which takes no time: it would wait
for the others.

A token of microbatch j is drawn by the last stage and comes back to the first, which
begins with it R ticks after it began with the one before: R is the number of stages or
of microbatches, whichever is larger.
"""

import collections
import functools

import jax
import jax.numpy as jnp
from flax import struct

from llama3_jax import axes
from llama3_jax.base.errors import UserError
from llama3_jax.config import ModelConfig
from llama3_jax.generate import paged
from llama3_jax.generate import pool
from llama3_jax.generate import programs
from llama3_jax.generate import rows as rows_lib
from llama3_jax.model import embedding
from llama3_jax.model import llama
from llama3_jax.pipeline import layout


def prepared(
  params: llama.Params, config: ModelConfig, weights: str = ''
) -> llama.Params:
  """As programs.prepared; with S stages the layers are [S,L/S,...], or L/S of [S,...].

  Where the layers do not divide, the shorter stages are filled with layers of zeros,
  which pass their input on. UserError for weights of few bits, which the first and the
  last stage would have other layers of than those between.
  """
  stages = axes.parts('C')
  if stages == 1:
    return programs.prepared(params, config, weights)
  if weights:
    raise UserError(f'weights={weights!r}: weights of few bits need mesh.stage=1')
  parts = params.layers if isinstance(params.layers, tuple) else (params.layers,)
  if isinstance(params.layers, tuple) or parts[0].attn_norm.ndim == 3:
    if any(len(p.attn_norm) != stages or p.attn_norm.ndim < 2 for p in parts):
      raise UserError(f'mesh.stage={stages}: these parameters were prepared otherwise')
    return params
  made = layout.Layout(config.n_layers, stages)
  alone = axes.platform() != 'tpu'
  return _arranged(programs.cast(params, config), made, alone)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _arranged(params, made, alone):
  params = layout.arrange(params, made)
  if not alone:
    return params
  take = lambda i: jax.tree.map(lambda x: x[:, i], params.layers)
  return params.replace(layers=tuple(map(take, range(made.slots))))


def slots(config: ModelConfig) -> int:
  """Layers of a stage, also of those that are filled."""
  return -(-config.n_layers // axes.parts('C'))


@struct.dataclass
class _Message:
  """What a stage tells the next, of one microbatch: hidden states [B,n,D]; the tokens
  that are being read, or were drawn, int32 [B,n]."""

  hidden: jax.Array
  token: jax.Array


def _over_stages(function, params, memory, *others):
  """function(layers, outer, memory, others) on every stage; it gives (memory, y), y the
  same on all stages."""
  staged, whole = axes.spec('C'), axes.spec('')
  pages = axes.spec('_C')
  mapped = jax.shard_map(
    lambda layers, *given: function(jax.tree.map(lambda x: x[0], layers), *given),
    in_specs=(staged, whole, pages, whole),
    out_specs=(pages, whole),
    axis_names=set(axes.over('C')),
    check_vma=False,
  )
  return mapped(params.layers, params.replace(layers=None), memory, others)


def _send(message):
  """The message of the stage before, in a ring."""
  n = axes.parts('C')
  ring = [(i, (i + 1) % n) for i in range(n)]
  send = lambda x: jax.lax.ppermute(x, axes.over('C'), ring)
  return jax.tree.map(send, message)


def _split(tree, parts):
  """[B,T,...] -> [B,M,T/M,...]: microbatches of consecutive rows or tokens."""

  def divide(x):
    x = x.reshape(x.shape[0], parts, -1, *x.shape[2:])
    return axes.shard(x, 'B' + '_' * (x.ndim - 1))

  return jax.tree.map(divide, tree)


def _take(tree, j):
  """Microbatch j, [B,n,...]."""
  take = lambda x: jax.lax.dynamic_index_in_dim(x, j, 1, False)
  return jax.tree.map(take, tree)


def _put(tree, j, part, real):
  """The tree with `part` as its microbatch j, where it is real."""

  def put(x, new):
    new = jnp.where(real, new, _take(x, j))
    return jax.lax.dynamic_update_index_in_dim(x, new, j, 1)

  return jax.tree.map(put, tree, part)


def _layers(params, layers, message, position, memory, config, attend):
  """Hidden states after the layers of this stage, and the memory."""
  first = axes.device_index('C') == 0
  x = embedding.embed(params, message.token, config, cache=memory)
  x = jnp.where(first, x, message.hidden)
  return programs.stack(
    params.replace(layers=layers), x, position, memory, config, attend
  )


def _empty(tokens, config):
  """A message of no microbatch, for arrays like `tokens` [B,n]."""
  shape = *tokens.shape, config.d_model
  hidden = axes.shard(jnp.zeros(shape, config.dtype), 'BTD')
  return _Message(hidden, axes.shard(jnp.zeros(tokens.shape, jnp.int32), 'BT'))


def read(
  params: llama.Params,
  memory: pool.Memory,
  tokens: jax.Array,
  spots: paged.Spots,
  items: paged.Items,
  config: ModelConfig,
  parts: int,
) -> pool.Memory:
  """As programs.read, in `parts` microbatches: consecutive tokens of the chunk, which
  later ones of a prompt find in the pages of each stage."""

  # The pages of whole prompts are of no use for parts of them.
  items = items.replace(table=None)

  def stage(layers, outer, memory, given):
    split = _split(given, parts)
    index, stages = axes.device_index('C'), axes.parts('C')

    def tick(t, carry):
      message, memory = carry
      j = jnp.clip(t - index, 0, parts - 1)
      tokens, spots, items = _take(split, j)
      real = j == t - index
      spots = spots.replace(
        group=jnp.where(real, spots.group, 0), page=jnp.where(real, spots.page, 0)
      )
      message = message.replace(token=axes.shard(tokens, 'BT'))
      attend = programs.paging(spots, items, None)
      given = message, spots.position, memory, config, attend
      x, memory = _layers(outer, layers, *given)
      return _send(message.replace(hidden=x)), memory

    start = _empty(split[0][:, 0], config), memory
    ticks = parts + stages - 1
    with jax.named_scope('ticks'):
      return jax.lax.fori_loop(0, ticks, tick, start)[1], ()

  return _over_stages(stage, params, memory, tokens, spots, items)[0]


def decode(
  params: llama.Params,
  memory: pool.Memory,
  rows: rows_lib.Rows,
  items: paged.Items,
  copies: tuple[jax.Array, jax.Array],
  limit: jax.Array,
  config: ModelConfig,
  steps: int,
  parts: int,
) -> tuple[pool.Memory, rows_lib.Drawn]:
  """As programs.decode, with the rows in `parts` microbatches."""

  def stage(layers, outer, memory, given):
    rows, items, copies, limit = given
    memory = pool.copied(memory, *copies, slots(config))
    rows, kept = programs.begin(rows, config, steps)
    work = _Decode(layers, outer, config, parts, memory.kv.shape[2])
    rows, kept, items = (_split(x, parts) for x in (rows, kept, items))
    arrived = jnp.zeros_like(rows.token)
    message = _empty(arrived[:, 0], config)
    start = jnp.int32(0), message, _State(rows, kept, arrived, memory)
    period, stages = max(parts, axes.parts('C')), axes.parts('C')

    def going(carry):
      t, _, state = carry
      busy = axes.device_sum(jnp.any(state.rows.active).astype(jnp.int32), 'C')
      return (t < period * (limit - 1) + parts + stages - 1) & (busy > 0)

    def tick(carry):
      t, message, state = carry
      return t + 1, *work.tick(t, limit, items, message, state)

    with jax.named_scope('steps'):
      _, _, state = jax.lax.while_loop(going, tick, start)
    last = axes.device_index('C') == stages - 1
    join = lambda x: x.reshape(x.shape[0], -1, *x.shape[3:])
    drawn = jax.tree.map(join, state.kept.drawn)
    chosen = jax.tree.map(lambda x: jnp.where(last, x, jnp.zeros_like(x)), drawn)
    return state.memory, axes.device_sum(chosen, 'C')

  return _over_stages(stage, params, memory, rows, items, copies, limit)


@struct.dataclass
class _State:
  """Of one stage: rows [B,M,n,...] as they were when it last had them, what is kept of
  them (of use on the last stage), the tokens that arrived [B,M,n], its pages."""

  rows: rows_lib.Rows
  kept: rows_lib.Kept
  arrived: jax.Array
  memory: pool.Memory


class _Decode:
  """Ticks of the decode program on one stage."""

  def __init__(self, layers, outer, config, parts, page):
    self.layers, self.outer, self.config = layers, outer, config
    self.parts, self.page = parts, page
    self.index, self.stages = axes.device_index('C'), axes.parts('C')
    self.period = max(parts, self.stages)

  def tick(self, t, limit, items, message, state):
    """(message of the stage before, state) after tick t, int32 []."""
    # The sender's microbatch: of the stage before this, or the last for the first.
    sent = t - 1 - (self.index - 1) % self.stages
    j, _, real = self._at(sent, limit)
    arrived = _put(state.arrived, j, axes.shard(message.token, 'B_'), real)
    j, step, real = self._at(t - self.index, limit)
    rows, kept = _take((state.rows, state.kept), j)
    # Every stage follows the rows by the tokens that were drawn.
    token = _take(arrived, j)
    after = programs.each(rows_lib.after, rows, token)
    rows = jax.tree.map(lambda a, b: jnp.where(real & (step > 0), a, b), after, rows)
    working = rows.replace(active=rows.active & real)
    message = message.replace(token=axes.shard(rows.token, 'BT'))
    x, memory = self._layers(message, working, _take(items, j), j, state.memory)
    drawn, new = self._draw(x, step, working, kept)
    kept = jax.tree.map(lambda a, b: jnp.where(real, a, b), new, kept)
    old = state.rows, state.kept
    rows, kept = _put(old, j, (rows, kept), True)
    last = self.index == self.stages - 1
    drawn = axes.shard(drawn, 'BT')
    message = _Message(x, jnp.where(last, drawn, message.token))
    return _send(message), _State(rows, kept, arrived, memory)

  def _at(self, age, limit):
    """(microbatch, step, whether there is one) `age` ticks after a stage's first."""
    j, step = age % self.period, age // self.period
    real = (age >= 0) & (j < self.parts) & (step < limit)
    return jnp.minimum(j, self.parts - 1), step, real

  def _layers(self, message, rows, items, j, memory):
    given = functools.partial(rows_lib.spots, page=self.page)
    spots = programs.each(given, rows)
    count = rows.token.shape[1]
    group = jnp.where(spots.group > 0, spots.group + j * count, 0)
    attend = programs.paging(spots.replace(group=group), items, rows.tables)
    given = message, spots.position, memory, self.config, attend
    return _layers(self.outer, self.layers, *given)

  def _draw(self, x, step, rows, kept):
    """Tokens int32 [B,n] after hidden states [B,n,D], and what is kept."""
    logits = programs.logits(self.outer, x, self.config)
    rows, kept = programs.each(rows_lib.advance, step, logits, rows, kept)
    return rows.token, kept


Programs = collections.namedtuple('Programs', ('read', 'decode'))


def chosen(parts: int) -> Programs:
  """The programs of the ambient mesh, in `parts` microbatches where it has stages.

  UserError for meshes and microbatches that do not go together.
  """
  if axes.parts('C') == 1:
    if parts > 1:
      raise UserError(f'microbatches={parts} is for mesh.stage above 1')
    return Programs(programs.read, programs.decode)
  if axes.parts('T') > 1:
    raise UserError('mesh.stage above 1 needs mesh.context=1')
  return Programs(*_compiled(parts))


@functools.cache
def _compiled(parts):
  """(read, decode) in `parts` microbatches."""
  own = functools.partial(jax.jit, donate_argnames='memory')
  return (
    own(functools.partial(read, parts=parts), static_argnames='config'),
    own(functools.partial(decode, parts=parts), static_argnames=('config', 'steps')),
  )
