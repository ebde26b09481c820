"""Simple preference optimization, Meng et al. 2024: lengths count, no reference."""

import jax

from llama3_jax.post.losses.seen import Seen


def loss(seen: Seen, beta: float, target: float) -> jax.Array:
  """-log sigmoid(beta * difference of log-probabilities a token - target), [B]."""
  difference = seen.mean[:, 0] - seen.mean[:, 1]
  return jax.nn.softplus(target - beta * difference)
