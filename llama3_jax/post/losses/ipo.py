"""Identity preference optimization, Azar et al. 2023: the margin has a target."""

import jax
import jax.numpy as jnp

from llama3_jax.post.losses.seen import Seen


def loss(seen: Seen, beta: float) -> jax.Array:
  """(margin a token - 1 / (2 beta))^2 of each pair, float32 [B].

  A token: the changes are divided by the lengths, as the authors do in code.
  """
  change = seen.change / seen.tokens
  return jnp.square(change[:, 0] - change[:, 1] - 1 / (2 * beta))
