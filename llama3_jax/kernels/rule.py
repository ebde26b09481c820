"""The keys that a query sees, on every path: causal, document, window (3.2, 3.3.2)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

Side = tuple[jax.Array, jax.Array]  # position and segment of queries or keys, int32
Numbers = jax.Array | np.ndarray | np.generic | int


@dataclasses.dataclass(frozen=True)
class Rule:
  """A query sees the keys of its own document at its own position and before, of which
  the last `window` positions (0: all). Segment 0 is padding and sees nothing.

  Sides are (position, segment) pairs of int32 arrays.
  """

  window: int = 0

  def before(self, q: Numbers, k: Numbers) -> Numbers:
    """Whether queries at positions `q` may see keys at `k`, bool; shapes broadcast."""
    return (q >= k) & (q - k < self.window) if self.window else q >= k

  def visible(self, query: Side, key: Side) -> jax.Array:
    """Mask, bool [..., T, S], of sides [..., T] and [..., S]."""
    (qp, qs), (kp, ks) = query, key
    same = (qs[..., :, None] == ks[..., None, :]) & (qs[..., :, None] > 0)
    return same & self.before(qp[..., :, None], kp[..., None, :])

  def meets(self, query: Side, key: Side) -> jax.Array:
    """Whether some query of a block [T] may see some key of a block [S]: bool [], never
    False by mistake."""
    (qp, qs), (kp, ks) = query, key
    most = jnp.iinfo(jnp.int32).max
    first = lambda x, s: jnp.min(jnp.where(s > 0, x, most))
    last = lambda x, s: jnp.max(jnp.where(s > 0, x, -1))
    near = last(qp, qs) >= first(kp, ks)
    if self.window:
      near &= first(qp, qs) - last(kp, ks) < self.window
    return near & (last(qs, qs) >= first(ks, ks)) & (last(ks, ks) >= first(qs, qs))

  def seen(self, length: int) -> float:
    """Mean number of keys that a query of a causal row of `length` tokens sees: half of
    the row, or w - w^2 / (2 length) with a window of w."""
    w = min(self.window or length, length)
    return w - w * w / (2 * length)
