"""The keys that a query sees, on every path: causal, document, window (3.2, 3.3.2)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

Side = tuple[jax.Array, jax.Array]  # position and segment of queries or keys, int32
Numbers = jax.Array | np.ndarray | np.generic | int
# Segment = document + BRANCH * number of the branch; branch 0 is the shared beginning.
BRANCH = 1 << 16


@dataclasses.dataclass(frozen=True)
class Rule:
  """A query sees the keys of its own document at its own position and before, of which
  the last `window` positions (0: all). Segment 0 is padding and sees nothing.

  branches: a document may split (4.2.1): tokens of one of its branches see that branch
  and what all share, and no token sees another branch.
  Sides are (position, segment) pairs of int32 arrays.
  """

  window: int = 0
  branches: bool = False

  def before(self, q: Numbers, k: Numbers) -> Numbers:
    """Whether queries at positions `q` may see keys at `k`, bool; shapes broadcast."""
    return (q >= k) & (q - k < self.window) if self.window else q >= k

  def visible(self, query: Side, key: Side) -> jax.Array:
    """Mask, bool [..., T, S], of sides [..., T] and [..., S]."""
    (qp, qs), (kp, ks) = query, key
    qs, ks = qs[..., :, None], ks[..., None, :]
    same = qs == ks
    if self.branches:
      same |= qs % BRANCH == ks  # a key of branch 0
    same &= qs > 0
    return same & self.before(qp[..., :, None], kp[..., None, :])

  def meets(self, query: Side, key: Side) -> jax.Array:
    """Whether some query of a block may see some key of a block: bool [...], of blocks
    [..., T] and [..., S] whose leading dims broadcast; never False by mistake."""
    (qp, qs), (kp, ks) = query, key
    most = jnp.iinfo(jnp.int32).max
    first = lambda x, s: jnp.min(jnp.where(s > 0, x, most), -1)
    last = lambda x, s: jnp.max(jnp.where(s > 0, x, -1), -1)
    near = last(qp, qs) >= first(kp, ks)
    if self.window:
      near &= first(qp, qs) - last(kp, ks) < self.window
    overlap = lambda q, k: (last(q, qs) >= first(k, ks)) & (last(k, ks) >= first(q, qs))
    if not self.branches:
      return near & overlap(qs, ks)
    branch = qs // BRANCH, ks // BRANCH
    near &= overlap(*branch) | (first(branch[1], ks) == 0)
    return near & overlap(qs % BRANCH, ks % BRANCH)

  def seen(self, length: int) -> float:
    """Mean number of keys that a query of a causal row of `length` tokens sees: half of
    the row, or w - w^2 / (2 length) with a window of w."""
    w = min(self.window or length, length)
    return w - w * w / (2 * length)
