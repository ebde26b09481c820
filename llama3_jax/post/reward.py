"""Reward model (4.1.2): scalar head on the language model, ranking loss, scores."""

import functools
import os
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from llama3_jax import axes
from llama3_jax import feed
from llama3_jax import parameters
from llama3_jax.config import ModelConfig
from llama3_jax.model import linear
from llama3_jax.model import llama
from llama3_jax.post import preference
from llama3_jax.train import models


@struct.dataclass
class Reward:
  """The language model and the head: reward of a token = hidden state . head."""

  model: llama.Params
  head: jax.Array = parameters.weight('D', 'in')


def init(key: jax.Array, model: llama.Params, config: ModelConfig) -> Reward:
  """A reward model that starts from `model`, the pre-trained checkpoint."""
  head = parameters.init_leaf(key, 'reward_head', 'D', 'in', config.sizes)
  return Reward(model=model, head=head)


def dims(config: ModelConfig) -> Reward:
  """The letters of every parameter, as a Reward of strings."""
  return Reward(model=llama.dims(config), head='D')


def abstract(
  config: ModelConfig,
  dtype: jax.typing.DTypeLike = jnp.float32,
  mesh: jax.sharding.Mesh | jax.sharding.AbstractMesh | None = None,
) -> Reward:
  """Reward of jax.ShapeDtypeStruct, to restore a checkpoint into."""
  sharding = mesh and jax.sharding.NamedSharding(mesh, axes.spec('D'))
  head = jax.ShapeDtypeStruct((config.d_model,), dtype, sharding=sharding or None)
  return Reward(model=llama.abstract(config, dtype, mesh), head=head)


def load(
  workdir: str | os.PathLike, field: str = 'reward_from'
) -> tuple[Reward, ModelConfig]:
  """A trained reward model from a finished stage, laid out over the ambient mesh."""
  config = models.config(workdir, field)
  mesh = jax.sharding.get_mesh()
  target = None if mesh.empty else mesh
  return models.load_params(workdir, abstract(config, mesh=target), field), config


def token_rewards(
  params: Reward,
  tokens: jax.Array,
  position: jax.Array,
  segment: jax.Array,
  config: ModelConfig,
  branches: bool = False,
) -> jax.Array:
  """Reward at every token, float32 [B,T]; arguments as of `llama.forward`."""
  hidden, _ = llama.forward(
    params.model, tokens, position, segment, config, branches=branches
  )
  return linear.einsum('BTD,D->BT', hidden.astype(jnp.float32), params.head)


def response_rewards(
  params: Reward, batch: feed.Ranked, config: ModelConfig, branches: bool = False
) -> jax.Array:
  """Rewards of the ranked responses, float32 as `batch.ends`; 0 where there is none.

  branches: whether they are branches of one row (mode 'exact').
  """
  inputs = map(feed.flat, (batch.tokens, batch.position, batch.segment))
  rewards = token_rewards(params, *inputs, config, branches)
  rewards = axes.shard(rewards.reshape(batch.tokens.shape), 'BAT')
  # A mask instead of a gather: T may be sharded.
  at_end = feed.order(batch.tokens.shape[-1]) == batch.ends[..., None]
  return jnp.sum(jnp.where(axes.shard(at_end, 'B_T'), rewards, 0), -1)


def loss(
  params: Reward, batch: feed.Ranked, config: ModelConfig, branches: bool = False
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """-log sigmoid(r(better) - r(worse) - margin), summed over ordered pairs.

  2 responses make 1 pair, 3 make 3. Metric sums over pairs: loss, accuracy (ties count
  one half), margin, better and worse rewards, count of pairs.
  """
  apart = lambda x: x.reshape(len(x), -1, preference.MOST)  # by prompt: [B,n,3]
  margin = apart(jnp.broadcast_to(batch.margin, batch.ends.shape))
  rewards = apart(response_rewards(params, batch, config, branches))
  present = apart(batch.ends) >= 0
  better, worse = np.triu_indices(preference.MOST, 1)
  difference = rewards[..., better] - rewards[..., worse]
  weight = (present[..., better] & present[..., worse]).astype(jnp.float32)
  total = jnp.sum(weight * jax.nn.softplus(margin - difference))
  won = (difference > 0) + 0.5 * (difference == 0)
  metrics = {
    'loss': total,
    'accuracy': jnp.sum(weight * won),
    'margin': jnp.sum(weight * difference),
    'better': jnp.sum(weight * rewards[..., better]),
    'worse': jnp.sum(weight * rewards[..., worse]),
    'count': jnp.sum(weight),
  }
  return total, metrics


@functools.partial(jax.jit, static_argnames='config')
def _last(params, tokens, length, config):
  """Reward at the last token of each right-padded row, float32 [B]; columns in the
  order of the mesh."""
  index = jnp.asarray(feed.order(tokens.shape[1]))
  position = axes.shard(jnp.broadcast_to(index, tokens.shape), 'BT')
  segment = axes.shard((index < length[:, None]).astype(jnp.int32), 'BT')
  tokens = axes.shard(tokens, 'BT')
  rewards = token_rewards(params, tokens, position, segment, config)
  last = axes.shard(index == length[:, None] - 1, 'BT')
  return jnp.sum(jnp.where(last, rewards, 0), -1)


def score(
  params: Reward,
  dialogs: Sequence[Sequence[int]],
  config: ModelConfig,
  batch_size: int = 16,
  bucket: int = 64,
) -> np.ndarray:
  """Reward of each dialog (token ids up to the response's eot), float32 [N].

  Rows are padded to a multiple of `bucket` tokens, so few shapes are compiled.
  """
  order = sorted(range(len(dialogs)), key=lambda i: len(dialogs[i]))
  rewards = np.zeros(len(dialogs), np.float32)
  for start in range(0, len(order), batch_size):
    picked = order[start : start + batch_size]
    longest = -(-max(len(dialogs[i]) for i in picked) // bucket) * bucket
    tokens = np.zeros((batch_size, longest), np.int32)
    length = np.zeros(batch_size, np.int32)
    for row, i in enumerate(picked):
      tokens[row, : len(dialogs[i])] = dialogs[i]
      length[row] = len(dialogs[i])
    tokens = tokens[:, feed.order(longest)]
    rewards[picked] = np.asarray(_last(params, tokens, length, config))[: len(picked)]
  return rewards


@functools.partial(jax.jit, static_argnames=('config', 'branches'))
def _batch_rewards(params, batch, config, branches):
  return response_rewards(params, batch, config, branches)


def of_rows(
  params: Reward,
  rows: feed.Ranked,
  config: ModelConfig,
  batch_size: int = 16,
  branches: bool = False,
) -> np.ndarray:
  """`response_rewards` of all rows, float32 as `rows.ends`."""
  found = [
    np.asarray(_batch_rewards(params, batch, config, branches))
    for batch in feed.batches(rows, batch_size)
  ]
  return np.concatenate([np.zeros((0, rows.ends.shape[-1]), np.float32), *found])[
    : len(rows.tokens)
  ]
