"""Odds ratio preference optimization, Hong et al. 2024: no reference."""

import jax
import jax.numpy as jnp

from llama3_jax.post.losses.seen import Seen

CERTAIN = -1e-6  # log-probabilities nearer to 0 have no finite odds in float32


def loss(seen: Seen, beta: float) -> jax.Array:
  """-beta * log sigmoid(log of the ratio of odds) of each pair, float32 [B].

  odds = p / (1 - p) with p the geometric mean of the probabilities of an answer's
  tokens. The paper adds the chosen answer's NLL with weight 1 (the field nll).
  """
  mean = jnp.minimum(seen.mean, CERTAIN)
  odds = mean - jnp.log(-jnp.expm1(mean))
  return beta * jax.nn.softplus(odds[:, 1] - odds[:, 0])
