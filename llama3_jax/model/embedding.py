"""Inputs of the decoder: embedded tokens, or hidden states in their place (7, 8)."""

import functools
import typing

import jax
import jax.numpy as jnp
from flax import struct

from llama3_jax import axes
from llama3_jax.config import ModelConfig
from llama3_jax.model import linear
from llama3_jax.model.cache import Cache


@struct.dataclass
class Splice:
  """Hidden states in the place of token embeddings, e.g. of an encoder of speech.

  Attributes:
    hidden: [B,S,D], by column of the row (with a cache: by slot).
    at: bool [B,S]; where it is True, `hidden` replaces the embedding of the token.
    extra: [E,D], embeddings of special tokens that the vocabulary lacks; their ids
      start at vocab_size, and they have no logits.
  """

  hidden: jax.Array | None = None
  at: jax.Array | None = None
  extra: jax.Array | None = None


def stream(x: jax.Array, cache: object) -> str:
  """Letters of the residual stream of `x` [B,T,...]; `cache` is None in training.

  In training its rows are also cut over `tensor`, so that norms and saved inputs are
  not repeated there (section 3.3.2).
  """
  parts = axes.parts('U')
  return 'BUD' if cache is None and x.shape[1] % parts == 0 else 'BTD'


def embed(
  params: object,
  tokens: jax.Array,
  config: ModelConfig,
  cache: Cache | None = None,
  splice: Splice | None = None,
) -> jax.Array:
  """Embeddings [B,T,D] in the compute dtype, laid out as the residual stream.

  Args: params: llama.Params, or another struct with `embed`; tokens int32 [B,T].
  """
  letters = stream(tokens, cache)
  if splice is None:
    return axes.shard(_look_up(params.embed, tokens, config, letters), letters)
  known = jnp.minimum(tokens, config.vocab_size - 1)
  x = axes.shard(_look_up(params.embed, known, config, 'BTD'), 'BTD')
  if splice.extra is not None:
    row = tokens - config.vocab_size
    where = {} if axes.mesh() is None else dict(out_sharding=axes.spec('BTD'))
    extra = axes.shard(splice.extra.astype(x.dtype), '__')
    own = extra.at[jnp.maximum(row, 0)].get(mode='clip', **where)
    x = jnp.where((row >= 0)[..., None], own, x)
  if splice.hidden is not None:
    start = None if cache is None else cache.length
    hidden, at = _columns(splice, tokens.shape[1], start)
    x = jnp.where(at[..., None], hidden.astype(x.dtype), x)
  return axes.shard(x, letters)


def _columns(splice, length, start):
  """hidden [B,T,D] and at [B,T] in the columns of the tokens."""
  if start is None:
    return axes.shard(splice.hidden, 'BTD'), axes.shard(splice.at, 'BT')

  def take(hidden, at, start):
    column = start[:, None] + jnp.arange(length)
    inside = column < at.shape[1]
    column = jnp.minimum(column, at.shape[1] - 1)
    rows = jnp.arange(len(at))[:, None]
    return hidden[rows, column], at[rows, column] & inside

  # With a cache every device has all slots of its rows.
  hidden, at = axes.local(take, ('B__', 'B_', 'B'), ('B__', 'B_'))(
    splice.hidden, splice.at, start
  )
  return axes.shard(hidden, 'BTD'), axes.shard(at, 'BT')


def _look_up(table, tokens, config, letters):
  if config.embedding == 'onehot':
    hot = jax.nn.one_hot(tokens, config.vocab_size, dtype=config.dtype)
    return linear.einsum('BTV,VD->BTD', axes.shard(hot, 'BTV'), table, place=letters)
  how = _How(config.dtype, config.reduce_dtype, table.dtype.name, len(table))
  return _rows(table, tokens, how)


class _How(typing.NamedTuple):
  """Static arguments of `_rows`: a key of the compilation cache."""

  dtype: str  # of the result
  reduce: str  # in which the table's gradient is summed
  kind: str  # dtype of the table
  size: int  # of the vocabulary


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _rows(table, tokens, how):
  """Rows of the table [V,D] for tokens [B,T]: [B,T,D]."""
  table = axes.shard(table.astype(how.dtype), 'VD', gathered=True)
  if axes.mesh() is None:
    return table[tokens]
  if axes.parts('V') > 1:
    x = axes.local(_own_rows, ('VD', 'BT'), 'VBTD', weights=(0,))(table, tokens)
    return jnp.sum(x, 0)
  return table.at[tokens].get(out_sharding=axes.spec('BTD'))


def _rows_forward(table, tokens, how):
  return _rows(table, tokens, how), tokens


def _rows_backward(how, tokens, g):
  """A frequent token's rows, and those of all devices, are added in `reduce`."""
  size = how.size // axes.parts('V')

  def local(g, tokens):
    g = g.astype(how.reduce)
    n = axes.sections(size * g.shape[-1] * g.dtype.itemsize, size)
    width = size // n

    def one(i):
      row = tokens - axes.device_index('V') * size - i * width
      row = jnp.where((row >= 0) & (row < width), row, width)
      section = jnp.zeros((width, g.shape[-1]), g.dtype).at[row].add(g, mode='drop')
      return axes.device_scatter(section, 'VD', 'BT')

    found = one(0)[None] if n == 1 else jax.lax.map(one, jnp.arange(n))
    return found.reshape(size, -1)

  return axes.local(local, ('BTD', 'BT'), 'VD')(g, tokens).astype(how.kind), None


_rows.defvjp(_rows_forward, _rows_backward)


def _own_rows(table, tokens):
  """[1,B,T,D]: rows of one device's part of the vocabulary; zeros for other tokens.

  XLA of jax 0.12 aborts when it partitions this look-up itself inside a pipeline.
  """
  row = tokens - axes.device_index('V') * len(table)
  row = jnp.where((row >= 0) & (row < len(table)), row, len(table))
  return table.at[row].get(mode='fill', fill_value=0)[None]
