"""What the losses on pairs of answers see of a batch (4.1.4)."""

import jax
from flax import struct


@struct.dataclass
class Seen:
  """Log-probabilities of pairs: column 0 is the chosen answer, 1 the rejected.

  logp: of the compared tokens of each answer (those of the format left out), float32
  [B,2]; change: the same less that under the reference, float32 [B,2]; tokens: how many
  they are, float32 [B,2], at least 1; real: 1, or 0 for an empty pair, float32 [B].
  """

  logp: jax.Array
  change: jax.Array
  tokens: jax.Array
  real: jax.Array

  @property
  def margin(self) -> jax.Array:
    """By how much more the chosen answer rose than the rejected, float32 [B]."""
    return self.change[:, 0] - self.change[:, 1]

  @property
  def mean(self) -> jax.Array:
    """Log-probability a token, float32 [B,2]."""
    return self.logp / self.tokens
