"""Token log-probabilities and next-token loss, without an array of B x T x V logits."""

import jax
import jax.numpy as jnp

from llama3_jax import feed
from llama3_jax.config import ModelConfig
from llama3_jax.kernels import cross_entropy
from llama3_jax.model import llama


def logprobs(
  params: llama.Params,
  hidden: jax.Array,
  targets: jax.Array,
  config: ModelConfig,
  chunk: int = 1024,
) -> tuple[jax.Array, jax.Array]:
  """Log-probability of each target, and log-sum-exp of the logits, float32 [B,T] each.

  Args: hidden [B,T,D]; targets int32 [B,T]; chunk: tokens a device whose logits exist
  at one time (0: all).
  """
  head, dims = llama.head(params)
  how = (dims, 0.0, chunk, config.reduce_dtype)
  return cross_entropy.logprobs(hidden, head, targets, how)


def next_token(
  params: llama.Params,
  batch: feed.Tokens,
  config: ModelConfig,
  z_loss: float = 0.0,
  chunk: int = 1024,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Weighted cross entropy in nats, summed over supervised tokens, plus the z-loss.

  batch: feed.Tokens. Returns (scalar sum, metric sums): `count` supervised tokens,
  `loss` without the z-loss.
  """
  hidden, _ = llama.forward(params, batch.tokens, batch.position, batch.segment, config)
  return head_loss(params, hidden, batch, config, z_loss, chunk)


def head_loss(
  params: llama.Params,
  hidden: jax.Array,
  batch: feed.Tokens,
  config: ModelConfig,
  z_loss: float = 0.0,
  chunk: int = 1024,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """As `next_token`, of hidden states [B,T,D] that are computed already."""
  head, dims = llama.head(params)
  how = (dims, z_loss, chunk, config.reduce_dtype)
  total, loss = cross_entropy.total(hidden, head, batch.targets, batch.weight, how)
  return total, {'loss': loss, 'count': jnp.sum(batch.weight)}
