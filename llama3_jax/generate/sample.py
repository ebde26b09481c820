"""Prefill and on-device decoding with a static cache; sampling of a token."""

import dataclasses
import functools
import math
import numbers
from collections.abc import Callable

import jax
import jax.numpy as jnp

from llama3_jax import axes
from llama3_jax.base.errors import UserError
from llama3_jax.config import ModelConfig
from llama3_jax.model import cache as kv
from llama3_jax.model import llama


@dataclasses.dataclass(frozen=True)
class Decoder:
  """The functions of a model that generation needs, with the arguments of llama's.

  The last argument of `forward` is a context, passed at every token.
  """

  forward: Callable = llama.forward
  logits: Callable = llama.logits


LLAMA = Decoder()
COLDEST = 1e-3  # below it, logits / temperature may overflow float32


@dataclasses.dataclass(frozen=True)
class Settings:
  """Settings of sampling; the defaults are those of the release code.

  temperature 0 is greedy; top_p 1 and top_k 0 keep every token; max_new: longest
  completion, tokens; vocab_size: that of the tokenizer, where the model may have more
  rows, which are then never sampled (0: sample from all rows). Static under jit: each
  new value compiles once. Raises UserError for a value without a meaning.
  """

  temperature: float = 0.6
  top_p: float = 0.9
  top_k: int = 0
  max_new: int = 256
  vocab_size: int = 0

  def __post_init__(self) -> None:
    for name in ('temperature', 'top_p', 'top_k', 'max_new', 'vocab_size'):
      value, whole = getattr(self, name), name not in ('temperature', 'top_p')
      if not isinstance(value, numbers.Integral if whole else numbers.Real):
        due = 'a whole number' if whole else 'a number'
        raise UserError(f'sample.{name}={value!r}: it must be {due}')
    warm = COLDEST <= self.temperature < math.inf
    rules = {
      'temperature': (warm or self.temperature == 0, f'0 or at least {COLDEST}'),
      'top_p': (0 < self.top_p <= 1, 'above 0 and at most 1'),
      'top_k': (self.top_k >= 0, 'at least 0 (0 keeps every token)'),
      'max_new': (self.max_new >= 1, 'at least 1'),
    }
    for name, (right, limits) in rules.items():
      if not right:
        raise UserError(f'sample.{name}={getattr(self, name)}: it must be {limits}')


def keep(logits: jax.Array, settings: Settings) -> jax.Array:
  """Logits over temperature, f32 [B,V], with -inf where top-k or top-p drops a token.

  top-p keeps the fewest most likely tokens whose probabilities reach top_p together.
  """
  logits = logits / settings.temperature
  if settings.top_k:
    k = min(settings.top_k, logits.shape[-1])
    least = jax.lax.top_k(logits, k)[0][:, -1:]
    logits = jnp.where(logits < least, -jnp.inf, logits)
  if settings.top_p < 1:
    ordered = -jnp.sort(-logits, axis=-1)
    p = jax.nn.softmax(ordered, axis=-1)
    before = jnp.cumsum(p, axis=-1) - p
    inside = before < settings.top_p
    least = jnp.min(jnp.where(inside, ordered, jnp.inf), axis=-1, keepdims=True)
    logits = jnp.where(logits < least, -jnp.inf, logits)
  return logits


def pick(
  logits: jax.Array, keys: jax.Array, settings: Settings
) -> tuple[jax.Array, jax.Array]:
  """Samples a token for each row, int32 [B], and its log-probability, f32 [B].

  logits f32 [B,V]; keys [B], a key a row, so that a row's sample does not depend on the
  other rows. The log-probability is that of temperature 1 without top-k or top-p, over
  all rows of the vocabulary, as in losses.
  """
  known = logits
  if settings.vocab_size:
    real = jnp.arange(logits.shape[-1]) < settings.vocab_size
    known = jnp.where(real, logits, -jnp.inf)
  if settings.temperature == 0:
    token = jnp.argmax(known, -1)
  else:
    noise = jax.vmap(lambda key: jax.random.gumbel(key, logits.shape[1:]))(keys)
    token = jnp.argmax(keep(known, settings) + axes.shard(noise, 'B_'), -1)
  chosen = jnp.arange(logits.shape[-1]) == token[:, None]
  logp = jnp.sum(jnp.where(chosen, jax.nn.log_softmax(logits, -1), 0), -1)
  return token.astype(jnp.int32), logp


@functools.partial(jax.jit, static_argnames=('config', 'size', 'samples', 'decoder'))
def prefill(
  params: llama.Params,
  tokens: jax.Array,
  length: jax.Array,
  config: ModelConfig,
  size: int,
  samples: int = 1,
  decoder: Decoder = LLAMA,
  context: object = None,
) -> tuple[jax.Array, kv.Cache]:
  """Logits after each prompt, f32 [B*samples,V], and the cache of `size` slots a row.

  context: inputs of `decoder.forward` besides tokens, arrays [B,...].

  tokens int32 [B,T], right-padded; length int32 [B], real tokens. Each prompt is read
  once and its cache row copied for its `samples`.
  """
  index = jnp.arange(tokens.shape[1], dtype=jnp.int32)
  position = axes.shard(jnp.broadcast_to(index, tokens.shape), 'BT')
  segment = axes.shard((index < length[:, None]).astype(jnp.int32), 'BT')
  cache = kv.create(config, tokens.shape[0], size)
  hidden, cache = decoder.forward(
    params, axes.shard(tokens, 'BT'), position, segment, config, cache, context
  )
  last = axes.shard(index == length[:, None] - 1, 'BT')
  # A mask instead of a gather: T may be sharded.
  hidden = jnp.sum(jnp.where(last[..., None], hidden, 0), 1, keepdims=True)
  logits = axes.shard(decoder.logits(params, hidden, config)[:, 0], 'B_')
  if samples > 1:
    rows = jnp.broadcast_to(logits[:, None], (len(length), samples, logits.shape[1]))
    logits, cache = rows.reshape(-1, logits.shape[1]), kv.repeat(cache, samples)
  return logits, cache


def advance(
  params: llama.Params,
  cache: kv.Cache,
  token: jax.Array,
  active: jax.Array,
  config: ModelConfig,
  decoder: Decoder = LLAMA,
  context: object = None,
) -> tuple[jax.Array, kv.Cache]:
  """Appends token int32 [B] to the rows that are `active` bool [B]; returns the next
  logits f32 [B,V] and the cache."""
  row = [axes.shard(x[:, None], 'BT') for x in (token, cache.length, active)]
  hidden, cache = decoder.forward(
    params, row[0], row[1], row[2].astype(jnp.int32), config, cache, context
  )
  return axes.shard(decoder.logits(params, hidden, config)[:, 0], 'B_'), cache


@functools.partial(
  jax.jit,
  static_argnames=('config', 'settings', 'stop_ids', 'decoder'),
  donate_argnames='cache',
)
def decode(
  params: llama.Params,
  cache: kv.Cache,
  logits: jax.Array,
  keys: jax.Array,
  active: jax.Array,
  config: ModelConfig,
  settings: Settings,
  stop_ids: tuple[int, ...],
  decoder: Decoder = LLAMA,
  context: object = None,
) -> tuple[jax.Array, jax.Array, jax.Array, kv.Cache]:
  """Completions of a prefilled batch, until every row has stopped or is full.

  keys [B]; active bool [B]: rows to continue, False for padding. Returns tokens int32
  [B,max_new], log-probabilities f32 [B,max_new], lengths int32 [B] (a stop token is
  the last and counts), and the cache, so that its memory is reused.
  """
  rows = logits.shape[0]
  shape = (rows, settings.max_new)
  stops = jnp.asarray(stop_ids, jnp.int32)

  def going(state):
    return (state[0] < settings.max_new) & jnp.any(state[1])

  def body(state):
    step, active, logits, cache, tokens, logps, lengths = state
    step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, step)
    token, logp = pick(logits, step_keys, settings)
    column = jnp.arange(settings.max_new) == step
    tokens = jnp.where(column & active[:, None], token[:, None], tokens)
    logps = jnp.where(column & active[:, None], logp[:, None], logps)
    lengths = lengths + active.astype(jnp.int32)
    active = active & ~jnp.any(token[:, None] == stops, -1)
    logits, cache = advance(params, cache, token, active, config, decoder, context)
    return step + 1, active, logits, cache, tokens, logps, lengths

  state = (
    jnp.int32(0),
    axes.shard(active, 'B'),
    logits,
    cache,
    axes.shard(jnp.zeros(shape, jnp.int32), 'B_'),
    axes.shard(jnp.zeros(shape, jnp.float32), 'B_'),
    axes.shard(jnp.zeros(rows, jnp.int32), 'B'),
  )
  state = jax.lax.while_loop(going, body, state)
  _, _, _, cache, tokens, logps, lengths = state
  return tokens, logps, lengths, cache


@functools.partial(
  jax.jit, static_argnames=('config', 'settings', 'decoder'), donate_argnames='cache'
)
def one(
  params: llama.Params,
  cache: kv.Cache,
  logits: jax.Array,
  key: jax.Array,
  step: jax.Array,
  config: ModelConfig,
  settings: Settings,
  decoder: Decoder = LLAMA,
  context: object = None,
) -> tuple[jax.Array, jax.Array, kv.Cache]:
  """One token of every row, for streaming: token int32 [B], next logits, cache."""
  step_keys = jax.vmap(jax.random.fold_in, (0, None))(key, step)
  token, _ = pick(logits, step_keys, settings)
  every = jnp.ones_like(token, bool)
  logits, cache = advance(params, cache, token, every, config, decoder, context)
  return token, logits, cache
