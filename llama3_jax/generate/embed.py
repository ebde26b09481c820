"""Embeddings of texts: the mean of the final hidden states, of length 1."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from llama3_jax import axes
from llama3_jax.config import ModelConfig
from llama3_jax.generate import programs
from llama3_jax.generate.engine import Engine
from llama3_jax.model import attention
from llama3_jax.model import embedding
from llama3_jax.model import llama
from llama3_jax.model import rope

ROWS = 4  # texts of a call, of each group of chips; fewer where they are long
TOKENS = 4_096  # of a call, padded; more only for one text that is longer
SHORTEST = 64  # tokens of a row; longer ones have four times as many, and so on


@functools.partial(jax.jit, static_argnames='config')
def pooled(
  params: llama.Params, tokens: jax.Array, count: jax.Array, config: ModelConfig
) -> jax.Array:
  """float32 [B,D] of rows int32 [B,T], of which the first `count` int32 [B] are text.

  params: as programs.prepared gives them.
  """
  position = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
  segment = (position < count[:, None]).astype(jnp.int32)
  side = axes.shard(position, 'BT'), axes.shard(segment, 'BT')
  attend = attention.among(side, config)
  # As in generation: no text is cut over the chips of a group.
  x = embedding.embed(params, tokens, config, cache=params)
  angles = rope.angles(side[0], config)

  def layer(x, scanned):
    return llama.layer(scanned[0], x, angles, attend, 'BTD', config)[0], None

  x = programs.through(layer, x, params)
  x = llama.rms_norm(x, params.norm, config.norm_eps).astype(jnp.float32)
  real = axes.shard(segment[..., None] > 0, 'B__')
  total = jnp.sum(jnp.where(real, axes.shard(x, 'B__'), 0), 1)
  size = jnp.sqrt(jnp.sum(total * total, -1, keepdims=True))
  return total / jnp.maximum(size, 1e-9)


def lengths(longest: int) -> list[int]:
  """Lengths of padded rows, powers of two up to one that holds `longest` tokens."""
  found = [SHORTEST]
  while found[-1] < longest:
    found.append(found[-1] * 4)
  return found


def width(longest: int, length: int) -> int:
  """Tokens of a row for texts of at most `longest`; length: most that are read."""
  return next(n for n in lengths(length) if n >= longest)


def rows(tokens: int) -> int:
  """Texts of a call whose rows have so many tokens."""
  return axes.parts('B') * max(1, min(ROWS, TOKENS // tokens))


def texts(engine: Engine, prompts: Sequence[Sequence[int]]) -> np.ndarray:
  """float32 [N,D] of at most rows(width(...)) token lists, none of them empty."""
  size = width(max(map(len, prompts)), engine.sizes.length)
  tokens = np.zeros((rows(size), size), np.int32)
  count = np.ones(len(tokens), np.int32)
  for i, ids in enumerate(prompts):
    tokens[i, : len(ids)], count[i] = ids, len(ids)
  made = axes.fetch(pooled(engine.params, tokens, count, engine.config))
  return np.asarray(made)[: len(prompts)]
