"""The two programs of generation: read a chunk of prompts, decode a few steps (6.1).

Both take tokens [B,T]: B groups of chips, each with its own pages; T is a chunk of
packed prompts, or the rows that decode. Shapes are those of the engine, whatever is
asked of it.
"""

import functools
import typing
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from llama3_jax import axes
from llama3_jax.base.errors import UserError
from llama3_jax.config import ModelConfig
from llama3_jax.generate import paged
from llama3_jax.generate import pool
from llama3_jax.generate import rows as rows_lib
from llama3_jax.generate.rows import Drawn
from llama3_jax.generate.rows import Rows
from llama3_jax.kernels.rule import Rule
from llama3_jax.model import embedding
from llama3_jax.model import llama
from llama3_jax.model import rope
from llama3_jax.model import rowwise

T = typing.TypeVar('T')
SCORED = 64  # tokens whose logits exist at a time


def cast(params: llama.Params, config: ModelConfig) -> llama.Params:
  """Parameters in the compute dtype, cast once instead of at every token."""
  dtype = jnp.dtype(config.dtype)
  if all(x.dtype == dtype for x in jax.tree.leaves(params)):
    return params
  return _cast(params, dtype)


@functools.partial(jax.jit, static_argnums=1)
def _cast(params, dtype):
  return jax.tree.map(lambda x: x.astype(dtype), params)


def prepared(
  params: llama.Params, config: ModelConfig, weights: str = ''
) -> llama.Params:
  """Parameters as the programs read them: in the compute dtype, and on CPUs and GPUs
  each layer by itself, because a loop would copy its weights at every step.

  weights: '', or a name of rowwise.KINDS for the feed-forward weights of all layers but
  the first and the last (6.2). Raises UserError where there is no layer between them.
  """
  rowwise.check(weights)
  if isinstance(params.layers, tuple):
    kinds = {getattr(p.w_up, 'kind', '') for p in params.layers[1:-1]}
    if weights and kinds != {weights}:
      raise UserError(f'weights={weights!r}: these parameters were prepared otherwise')
    return params
  if weights and config.n_layers < 3:
    raise UserError(f'weights={weights!r}: the first and last layer keep theirs')
  params, alone = cast(params, config), axes.platform() != 'tpu'
  return _split(params, config.n_layers, alone, weights) if alone or weights else params


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _split(params, n_layers, alone, weights):
  """Layers as a tuple: each alone, or the first, those between, the last."""
  last = n_layers - 1
  take = lambda i: jax.tree.map(lambda x: x[i], params.layers)
  parts = [take(i) for i in ((0, *range(1, last)) if alone else (0, np.s_[1:last]))]
  parts += [take(last)] if last else []
  if weights:
    small = functools.partial(rowwise.layer, kind=weights)
    parts[1:-1] = [small(p) if alone else jax.vmap(small)(p) for p in parts[1:-1]]
  return params.replace(layers=tuple(parts))


def depth(params: llama.Params) -> int:
  """Layers of `params`, prepared or not."""
  parts = params.layers if isinstance(params.layers, tuple) else (params.layers,)
  return sum(1 if p.attn_norm.ndim == 1 else len(p.attn_norm) for p in parts)


def through(
  layer: Callable[[T, tuple[llama.Layer, jax.Array]], tuple[T, None]],
  carry: T,
  params: llama.Params,
) -> T:
  """The carry after layer(carry, (parameters, number)) of all, prepared or not."""
  one, number = jax.jit(layer), 0  # traced once, not for each
  parts = params.layers if isinstance(params.layers, tuple) else (params.layers,)
  for p in parts:
    if p.attn_norm.ndim == 1:
      carry, _ = one(carry, (p, jnp.int32(number)))
      number += 1
    else:
      numbers = number + jnp.arange(len(p.attn_norm))
      carry, _ = jax.lax.scan(layer, carry, (p, numbers))
      number += len(p.attn_norm)
  return carry


def _hidden(params, tokens, position, memory, config, attend):
  """Hidden states [B,T,D] of tokens after the last layer, and the memory: `stack`."""
  x = embedding.embed(params, tokens, config, cache=memory)
  return stack(params, x, position, memory, config, attend)


def stack(
  params: llama.Params,
  x: jax.Array,
  position: jax.Array,
  memory: pool.Memory,
  config: ModelConfig,
  attend: Callable,
) -> tuple[jax.Array, pool.Memory]:
  """Hidden states [B,T,D] after the layers of `params`, and the memory that they leave.

  attend(q, k, v, memory, number of the layer's page 0, rule) -> (output, memory).
  """
  angles = rope.angles(axes.shard(position, 'BT'), config)
  rule = Rule(config.window)
  stride = memory.kv.shape[1] // depth(params)

  def layer(carry, scanned):
    x, memory = carry
    p, number = scanned
    own = lambda q, k, v: attend(q, k, v, memory, number * stride, rule)
    return llama.layer(p, x, angles, own, 'BTD', config), None

  x, memory = through(layer, (x, memory), params)
  return x, memory


def paging(
  spots: paged.Spots, items: paged.Items, tables: paged.Tables | None
) -> Callable:
  """How tokens that are written to pages attend, for `stack`."""
  return lambda q, k, v, memory, base, rule: paged.attend(
    q, k, v, memory, base, spots, items, tables, rule
  )


@functools.partial(jax.jit, static_argnames='config', donate_argnames='memory')
def read(
  params: llama.Params,
  memory: pool.Memory,
  tokens: jax.Array,
  spots: paged.Spots,
  items: paged.Items,
  config: ModelConfig,
) -> pool.Memory:
  """The memory with the keys and values of a chunk of prompts, int32 [B,T].

  No logits are computed: a row decodes the last token of its prompt again.
  """
  attend = paging(spots, items, None)
  return _hidden(params, tokens, spots.position, memory, config, attend)[1]


@functools.partial(
  jax.jit, static_argnames=('config', 'steps'), donate_argnames='memory'
)
def decode(
  params: llama.Params,
  memory: pool.Memory,
  rows: Rows,
  items: paged.Items,
  copies: tuple[jax.Array, jax.Array],
  limit: jax.Array,
  config: ModelConfig,
  steps: int,
) -> tuple[pool.Memory, Drawn]:
  """Up to `limit` (int32 [], at most `steps`) tokens of every active row.

  copies: pages that samples start with, as in pool.copied.
  """
  memory = pool.copied(memory, *copies, config.n_layers)

  def going(state):
    i, rows, _, _ = state
    return (i < limit) & jnp.any(rows.active)

  def one(state):
    i, rows, kept, memory = state
    scores, memory = _logits(params, memory, rows, items, config)
    return i + 1, *each(rows_lib.advance, i, scores, rows, kept), memory

  state = (jnp.int32(0), *begin(rows, config, steps), memory)
  with jax.named_scope('steps'):
    _, _, kept, memory = jax.lax.while_loop(going, one, state)
  return memory, kept.drawn


def begin(rows: Rows, config: ModelConfig, steps: int) -> tuple[Rows, rows_lib.Kept]:
  """The rows, and what a call of `steps` keeps of them, see rows.begin."""
  size = config.vocab_size
  return each(functools.partial(rows_lib.begin, size=size, steps=steps), rows)


def each(function: Callable, *trees: object) -> object:
  """function(*trees) on every group of chips by itself: arrays are cut by B alone."""
  letters = lambda x: 'B' + '_' * (len(x.shape) - 1) if x.shape else ''
  shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), trees)
  made = jax.tree.map(letters, jax.eval_shape(function, *shapes))
  inputs = jax.tree.map(letters, shapes)
  return axes.local(function, inputs, made)(*trees)


def _logits(params, memory, rows, items, config):
  """Logits after the last token of each row, float32 [B,T,V]; the memory with it."""
  size = memory.kv.shape[2]
  spots = each(functools.partial(rows_lib.spots, page=size), rows)
  tokens = axes.shard(rows.token, 'BT')
  attend = paging(spots, items, rows.tables)
  x, memory = _hidden(params, tokens, spots.position, memory, config, attend)
  return logits(params, x, config), memory


def logits(params: llama.Params, x: jax.Array, config: ModelConfig) -> jax.Array:
  """float32 [B,T,V] after hidden states [B,T,D] of the last layer, whole for rows."""
  x = axes.shard(llama.rms_norm(x, params.norm, config.norm_eps), 'BTD')
  return axes.shard(llama.logits(params, x, config), 'B__')


@functools.partial(jax.jit, static_argnames='config')
def score(
  params: llama.Params,
  memory: pool.Memory,
  tokens: jax.Array,
  spots: paged.Spots,
  items: paged.Items,
  tree: paged.Tree,
  wanted: tuple[jax.Array, jax.Array, jax.Array],
  config: ModelConfig,
) -> jax.Array:
  """Log-probabilities of tokens after others of a chunk [B,T], and those of the
  likeliest tokens there, float32 [B,E,2].

  wanted: (index of the token before, the token, how many are in use), int32 [B,E],
  [B,E], [B]. Logits exist for some of them at a time.
  """

  def attend(q, k, v, memory, base, rule):
    return paged.attend_tree(q, k, v, memory, base, spots, items, tree, rule), memory

  x, _ = _hidden(params, tokens, spots.position, memory, config, attend)
  x = axes.shard(llama.rms_norm(x, params.norm, config.norm_eps), 'B__')
  before, token, count = wanted
  size = min(SCORED, before.shape[1])
  most = jnp.max(count)

  def some(i, found):
    part = lambda x: jax.lax.dynamic_slice_in_dim(x, i * size, size, 1)
    states = each(
      lambda x, at: jnp.take_along_axis(x, at[..., None], 1), x, part(before)
    )
    scores = axes.shard(llama.logits(params, axes.shard(states, 'B__'), config), 'B__')
    new = each(_logp, scores, part(token))
    return each(
      lambda all, new, i: jax.lax.dynamic_update_slice_in_dim(all, new, i * size, 1),
      *(found, new, i),
    )

  found = axes.shard(jnp.zeros((*before.shape, 2), jnp.float32), 'B__')
  return jax.lax.fori_loop(0, -(-most // size), some, found)


def _logp(logits, token):
  chosen = jnp.take_along_axis(logits, token[..., None], -1)
  pair = jnp.concatenate([chosen, jnp.max(logits, -1, keepdims=True)], -1)
  return pair - jax.scipy.special.logsumexp(logits, -1, keepdims=True)
