"""Provably robust DPO, Chowdhury et al. 2024: some labels are wrong."""

import jax

from llama3_jax.post.losses.seen import Seen


def loss(seen: Seen, beta: float, flipped: float) -> jax.Array:
  """DPO's loss, unbiased where a share `flipped` (< 1/2) of the pairs is swapped, [B].

  ((1 - flipped) L(margin) - flipped L(-margin)) / (1 - 2 flipped), where L is that of
  post/losses/dpo.py.
  """
  right = jax.nn.softplus(-beta * seen.margin)
  swapped = jax.nn.softplus(beta * seen.margin)
  return ((1 - flipped) * right - flipped * swapped) / (1 - 2 * flipped)
