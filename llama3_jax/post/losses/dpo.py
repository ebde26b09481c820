"""Direct preference optimization, Rafailov et al. 2023 (4.1.4)."""

import jax

from llama3_jax.post.losses.seen import Seen


def loss(seen: Seen, beta: float) -> jax.Array:
  """-log sigmoid(beta * margin) of each pair, float32 [B]."""
  return jax.nn.softplus(-beta * seen.margin)
