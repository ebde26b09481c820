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
  """Parameters as the programs read them: in the compute dtype, and on a CPU each layer
  by itself, because a loop would copy its weights at every step.

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
  params, alone = cast(params, config), axes.platform() == 'cpu'
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
  """Hidden states [B,T,D] after the last layer, and the memory that `attend` leaves.

  attend(q, k, v, memory, number of the layer's page 0, rule) -> (output, memory).
  """
  x = embedding.embed(params, tokens, config, cache=memory)
  angles = rope.angles(axes.shard(position, 'BT'), config)
  rule = Rule(config.window)
  stride = memory.kv.shape[1] // config.n_layers

  def layer(carry, scanned):
    x, memory = carry
    p, number = scanned
    own = lambda q, k, v: attend(q, k, v, memory, number * stride, rule)
    return llama.layer(p, x, angles, own, 'BTD', config), None

  x, memory = through(layer, (x, memory), params)
  return x, memory


def _paged(spots, items, tables):
  """How tokens that are written to pages attend."""
  return lambda q, k, v, memory, base, rule: paged.attend(
    q, k, v, memory, base, spots, items, tables, rule
  )


@functools.partial(jax.jit, static_argnames='config', donate_argnames='memory')
def read(
  params: llama.Params,
  memory: paged.Memory,
  tokens: jax.Array,
  spots: paged.Spots,
  items: paged.Items,
  config: ModelConfig,
) -> paged.Memory:
  """The memory with the keys and values of a chunk of prompts, int32 [B,T].

  No logits are computed: a row decodes the last token of its prompt again.
  """
  attend = _paged(spots, items, None)
  return _hidden(params, tokens, spots.position, memory, config, attend)[1]


@functools.partial(
  jax.jit, static_argnames=('config', 'steps'), donate_argnames='memory'
)
def decode(
  params: llama.Params,
  memory: paged.Memory,
  rows: Rows,
  items: paged.Items,
  copies: tuple[jax.Array, jax.Array],
  limit: jax.Array,
  config: ModelConfig,
  steps: int,
) -> tuple[paged.Memory, Drawn]:
  """Up to `limit` (int32 [], at most `steps`) tokens of every active row.

  copies: pages that samples start with, as in paged.copied.
  """
  memory = paged.copied(memory, *copies, config.n_layers)
  begin = functools.partial(rows_lib.begin, size=config.vocab_size, steps=steps)

  def going(state):
    i, rows, _, _ = state
    return (i < limit) & jnp.any(rows.active)

  def one(state):
    i, rows, kept, memory = state
    logits, memory = _logits(params, memory, rows, items, config)
    return i + 1, *_each(rows_lib.advance, i, logits, rows, kept), memory

  state = (jnp.int32(0), *_each(begin, rows), memory)
  _, _, kept, memory = jax.lax.while_loop(going, one, state)
  return memory, kept.drawn


def _each(function, *trees):
  """function(*trees) on every group of chips by itself: arrays are cut by B alone."""
  letters = lambda x: 'B' + '_' * (len(x.shape) - 1) if x.shape else ''
  shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), trees)
  made = jax.tree.map(letters, jax.eval_shape(function, *shapes))
  inputs = jax.tree.map(letters, shapes)
  return axes.local(function, inputs, made)(*trees)


def _logits(params, memory, rows, items, config):
  """Logits after the last token of each row, float32 [B,T,V]; the memory with it."""
  size = memory.kv.shape[2]
  spots = _each(functools.partial(rows_lib.spots, page=size), rows)
  tokens = axes.shard(rows.token, 'BT')
  attend = _paged(spots, items, rows.tables)
  x, memory = _hidden(params, tokens, spots.position, memory, config, attend)
  x = axes.shard(llama.rms_norm(x, params.norm, config.norm_eps), 'BTD')
  return axes.shard(llama.logits(params, x, config), 'B__'), memory


@functools.partial(jax.jit, static_argnames='config')
def score(
  params: llama.Params,
  memory: paged.Memory,
  tokens: jax.Array,
  spots: paged.Spots,
  items: paged.Items,
  tree: paged.Tree,
  wanted: tuple[jax.Array, jax.Array, jax.Array],
  config: ModelConfig,
) -> jax.Array:
  """Log-probabilities of tokens after others of a chunk [B,T], float32 [B,E].

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
    states = _each(
      lambda x, at: jnp.take_along_axis(x, at[..., None], 1), x, part(before)
    )
    logits = axes.shard(llama.logits(params, axes.shard(states, 'B__'), config), 'B__')
    new = _each(_logp, logits, part(token))
    return _each(
      lambda all, new, i: jax.lax.dynamic_update_slice_in_dim(all, new, i * size, 1),
      *(found, new, i),
    )

  found = axes.shard(jnp.zeros(before.shape, jnp.float32), 'B_')
  return jax.lax.fori_loop(0, -(-most // size), some, found)


def _logp(logits, token):
  chosen = jnp.take_along_axis(logits, token[..., None], -1)[..., 0]
  return chosen - jax.scipy.special.logsumexp(logits, -1)
