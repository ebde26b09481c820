"""Kahneman-Tversky optimization, Ethayarajh et al. 2024, on pairs."""

import jax
import jax.numpy as jnp

from llama3_jax.post.losses.seen import Seen


def loss(seen: Seen, beta: float) -> jax.Array:
  """Mean of 1 - sigmoid(beta (chosen - z)) and 1 - sigmoid(beta (z - rejected)), [B].

  z, the point that gains and losses are counted from, is the mean change of the answers
  of the other kind in a microbatch, at least 0, and has no gradient. Here 'chosen' and
  'rejected' are changes of log-probability.
  """
  count = jnp.maximum(jnp.sum(seen.real), 1)
  mean = jnp.sum(seen.real[:, None] * seen.change, 0) / count
  z = jax.lax.stop_gradient(jnp.maximum(mean, 0))
  chosen = jax.nn.sigmoid(beta * (z[1] - seen.change[:, 0]))
  rejected = jax.nn.sigmoid(beta * (seen.change[:, 1] - z[0]))
  return (chosen + rejected) / 2
