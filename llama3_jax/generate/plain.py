"""Generation in the plainest way: the reference of the engine (6.1).

A rectangle of rows, a slot for every token, one step of all rows at a time. It takes
the functions of any model, also one that reads more than tokens.
"""

import dataclasses
import functools
from collections.abc import Callable
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from llama3_jax import axes
from llama3_jax.config import ModelConfig
from llama3_jax.generate import draw
from llama3_jax.generate.settings import Settings
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

  tokens int32 [B,T], right-padded; length int32 [B], real tokens. Each prompt is read
  once and its cache row copied for its `samples`. context: inputs of `decoder.forward`
  besides tokens, arrays [B,...].
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


@functools.partial(
  jax.jit, static_argnames=('config', 'decoder'), donate_argnames='cache'
)
def advance(
  params: llama.Params,
  cache: kv.Cache,
  token: jax.Array,
  config: ModelConfig,
  decoder: Decoder = LLAMA,
  context: object = None,
) -> tuple[jax.Array, kv.Cache]:
  """Appends a token int32 [B] to every row; the next logits f32 [B,V] and the cache."""
  row = [axes.shard(x[:, None], 'BT') for x in (token, cache.length)]
  real = jnp.ones_like(row[0])
  hidden, cache = decoder.forward(params, *row, real, config, cache, context)
  return axes.shard(decoder.logits(params, hidden, config)[:, 0], 'B_'), cache


@jax.jit
def pick(
  logits: jax.Array,
  rules: draw.Rules,
  step: jax.Array,
  asked: jax.Array,
  sampled: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """A token int32 [B] of each row's logits f32 [B,V] and its log-probability f32 [B].

  rules: of [B,1]; step int32 [B,1]; asked, sampled: int32 [B,1,V], how often each token
  stands in the prompt and the answer.
  """
  logits = axes.shard(logits[:, None], 'B__')
  seen = (asked > 0) | (sampled > 0)
  changed = draw.adjusted(logits, rules, sampled, seen)
  token = draw.pick(changed + draw.fixed(rules, logits.shape[-1]), rules, step)
  return token[:, 0], draw.logps(logits, token, rules)[0][:, 0]


def generate(
  params: llama.Params,
  prompts: Sequence[Sequence[int]],
  config: ModelConfig,
  stop_ids: Sequence[int],
  settings: Settings = Settings(),
  seed: int = 0,
  samples: int = 1,
  decoder: Decoder = LLAMA,
  contexts: Sequence[object] | None = None,
) -> list[list[tuple[list[int], list[float]]]]:
  """(ids, log-probabilities) of `samples` answers of each prompt, the stop token last.

  contexts: inputs of `decoder.forward` besides tokens, a tree of arrays for each
  prompt, all of the same shapes.
  """
  width = max(map(len, prompts))
  tokens = np.zeros((len(prompts), width), np.int32)
  for row, prompt in zip(tokens, prompts):
    row[: len(prompt)] = prompt
  length = np.array(list(map(len, prompts)), np.int32)
  context = None
  if contexts is not None:
    context = jax.tree.map(lambda *x: jnp.stack(x), *contexts)
  size = width + settings.max_new
  read = tokens, length, config, size, samples, decoder, context
  logits, cache = prefill(params, *read)
  context = jax.tree.map(lambda x: jnp.repeat(x, samples, 0), context)
  rows = [(prompt, i) for prompt in prompts for i in range(samples)]
  rules, asked = _rules(rows, settings, stop_ids, seed, config.vocab_size)
  found = [([], []) for _ in rows]
  sampled = np.zeros_like(asked)
  for step in range(settings.max_new):
    steps = np.full((len(rows), 1), step, np.int32)
    token, logp = axes.fetch(pick(logits, rules, steps, asked, sampled))
    for i, (ids, logps) in enumerate(found):
      if not ids or ids[-1] not in stop_ids:
        ids.append(int(token[i]))
        logps.append(float(logp[i]))
        sampled[i, 0, token[i]] += 1
    logits, cache = advance(params, cache, token, config, decoder, context)
  return [found[i : i + samples] for i in range(0, len(found), samples)]


def _rules(rows, settings, stop_ids, seed, size):
  """draw.Rules of rows (prompt, number of the sample), and how often tokens of the
  vocabulary stand in each prompt."""
  rules = draw.rules((len(rows), 1))
  asked = np.zeros((len(rows), 1, size), np.int32)
  for i, (prompt, number) in enumerate(rows):
    settings.write(rules, (i, 0), stop_ids)
    rules.key[i, 0] = draw.key(seed, prompt, number)
    np.add.at(asked[i, 0], prompt, 1)
  return rules, asked
