"""Only tokens that count reach the head: prompts have no logits (4.1.3, 4.1.4).

The head is a fifth of the work of a small model, and half of a row of dialogs or more
is prompts and padding. How many tokens of a row count at most is known before training,
so shapes stay fixed.
"""

import jax
import jax.numpy as jnp
import numpy as np

from llama3_jax import axes

MULTIPLE = 64  # tokens: kernels like round sizes
WORTH = 0.8  # of a row: with more than that, picking saves nothing


def most(*batches: object) -> int:
  """Tokens of a row that have weight in any of `batches` (structs of np arrays with
  `weight` [...,T]), rounded up; 0 where that is nearly the whole row."""
  batches = [b for b in batches if b.weight.size]
  counts = [int(np.max(np.sum(b.weight > 0, -1))) for b in batches]
  kept = -(-max(counts, default=0) // MULTIPLE) * MULTIPLE
  length = max((b.weight.shape[-1] for b in batches), default=0)
  return kept if 0 < kept < WORTH * length else 0


def pick(
  kept: int, weight: jax.Array, *arrays: jax.Array
) -> tuple[jax.Array, jax.Array, tuple[jax.Array, ...]]:
  """The first `kept` tokens of each row that have weight, or all tokens for kept=0 and
  where rows are cut over devices.

  Args: weight float32 [B,T]; arrays [B,T] or [B,T,D].
  Returns: (places int32 [B,K] in the row, weight [B,K], arrays with K for T). A row in
  which more tokens count has NaN for weights: no sum is ever short of some in silence.
  """
  if not kept or axes.parts('T') > 1 or kept >= weight.shape[1]:
    places = jnp.broadcast_to(jnp.arange(weight.shape[1]), weight.shape)
    return axes.shard(places, 'BT'), weight, arrays

  def local(weight, *arrays):
    counts = weight != 0
    places = jnp.argsort(~counts, axis=-1, stable=True)[:, :kept]
    lost = jnp.sum(counts, -1, keepdims=True) > kept
    rows = jnp.arange(len(places))[:, None]
    weight = jnp.where(lost, jnp.nan, weight[rows, places])
    return places, weight, tuple(x[rows, places] for x in arrays)

  letters = ('BT', *('BTD' if x.ndim == 3 else 'BT' for x in arrays))
  places = ('BT', 'BT', letters[1:])
  return axes.local(local, letters, places)(weight, *arrays)


def spread(values: jax.Array, places: jax.Array, length: int) -> jax.Array:
  """Values [B,K] of picked tokens in their places of rows [B,T]; 0 elsewhere."""
  if values.shape[1] == length:
    return values

  def local(values, places):
    rows = jnp.arange(len(places))[:, None]
    empty = jnp.zeros((len(places), length), values.dtype)
    return empty.at[rows, places].set(values)

  return axes.local(local, ('BT', 'BT'), 'BT')(values, places)
