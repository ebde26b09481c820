"""Token log-probabilities and the next-token loss, never holding B x T x V logits."""

import jax.numpy as jnp

from llama3_jax.kernels import cross_entropy
from llama3_jax.model import llama


def logprobs(params, hidden, targets, config, chunk=1024):
  """Log-probability of each target and log of the softmax's sum, float32 [B,T] each.

  Args: hidden [B,T,D]; targets int32 [B,T]; chunk: tokens a device whose logits exist
  at one time (0: all).
  """
  head, dims = llama.head(params)
  how = (dims, 0.0, chunk, config.reduce_dtype)
  return cross_entropy.logprobs(hidden, head, targets, how)


def next_token(params, batch, config, z_loss=0.0, chunk=1024):
  """Weighted cross entropy, summed over supervised tokens, plus the z-loss.

  batch: feed.Tokens. Returns (scalar sum, metric sums): `count` supervised tokens,
  `loss` without the z-loss.
  """
  hidden, _ = llama.forward(params, batch.tokens, batch.position, batch.segment, config)
  return head_loss(params, hidden, batch, config, z_loss, chunk)


def head_loss(params, hidden, batch, config, z_loss=0.0, chunk=1024):
  """`next_token` from the hidden states [B,T,D] on."""
  head, dims = llama.head(params)
  how = (dims, z_loss, chunk, config.reduce_dtype)
  total, loss = cross_entropy.total(hidden, head, batch.targets, batch.weight, how)
  return total, {'loss': loss, 'count': jnp.sum(batch.weight)}
