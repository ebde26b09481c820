"""Bad steps: not finite, or a spike; judged inside the compiled step (section 3.3.4).

The window that a spike is measured against is part of the training state, so that a run
that was stopped judges as one that was not. `train.on_bad_step` says what happens to a
bad step:

  off     no step is judged
  skip    the step changes no parameter and no moment; its data is lost
  clip    a spike of the gradient is scaled down to the limit; else as skip
  rewind  the loop goes back to an earlier save, and continues with the data after this
          step
  stop    the run ends with one line; the same command runs the same step again
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import struct

from llama3_jax.base.errors import UserError

POLICIES = ('off', 'skip', 'clip', 'rewind', 'stop')
WINDOW = 128  # good steps that a spike is measured against
WARM = 16  # good steps before any step is judged a spike
FLOOR = 0.01  # of the mean: the least spread, for a window of equal values


@dataclasses.dataclass(frozen=True)
class Guard:
  """When a step is bad; sigma: spreads above the mean from which on it is a spike (0:
  never)."""

  policy: str = 'skip'
  sigma: float = 0.0


@struct.dataclass
class Health:
  """The last good steps, and counts int32: good, bad, bad ones in a row until now."""

  losses: jax.Array  # float32 [WINDOW]
  norms: jax.Array  # of the gradient, float32 [WINDOW]
  good: jax.Array
  bad: jax.Array
  streak: jax.Array


def fresh() -> Health:
  """The Health of a run without steps."""
  # Separate buffers: train_step donates each.
  window = lambda: jnp.zeros(WINDOW, jnp.float32)
  zero = lambda: jnp.zeros((), jnp.int32)
  return Health(window(), window(), good=zero(), bad=zero(), streak=zero())


def create(train: object) -> Guard | None:
  """The Guard of the `train` part of a config, or None; UserError for a bad value."""
  if train.on_bad_step not in POLICIES:
    raise UserError(
      f'train.on_bad_step={train.on_bad_step!r} must be one of {", ".join(POLICIES)}'
    )
  if train.spike_sigma < 0:
    raise UserError(f'train.spike_sigma={train.spike_sigma}: 0 (no spikes) or more')
  if train.on_bad_step == 'off':
    return None
  return Guard(train.on_bad_step, float(train.spike_sigma))


def judge(
  guard: Guard, health: Health, grads: object, metrics: Mapping[str, jax.Array]
) -> tuple[object, jax.Array, Health]:
  """Whether a step is bad: (gradients, bad: bool [], the health after it).

  `metrics` has grad_norm and, for most losses, loss: float32 scalars. The gradients are
  `grads`, scaled down where the policy is clip and the step a spike.
  """
  norm = metrics['grad_norm']
  loss = metrics.get('loss', norm)
  finite = jnp.isfinite(loss) & jnp.isfinite(norm)
  bad, clipped = ~finite, jnp.bool(False)
  if guard.sigma:
    ready = finite & (health.good >= WARM)
    limit = _limit(health.norms, health.good, guard.sigma)
    if guard.policy == 'clip':
      clipped = ready & (norm > limit)
      scale = jnp.where(clipped, limit / norm, 1)
      grads = jax.tree.map(lambda g: g * scale.astype(g.dtype), grads)
      norm = jnp.where(clipped, limit, norm)
    else:
      high = (norm > limit) | (loss > _limit(health.losses, health.good, guard.sigma))
      bad |= ready & high
  count = lambda x: x.astype(jnp.int32)
  return (
    grads,
    bad,
    Health(
      losses=_push(health.losses, health.good, loss, bad),
      norms=_push(health.norms, health.good, norm, bad),
      good=health.good + count(~bad),
      bad=health.bad + count(bad | clipped),
      streak=jnp.where(bad, health.streak + 1, 0),
    ),
  )


def _limit(window, good, sigma):
  """Mean plus `sigma` spreads of the values in the window."""
  n = jnp.minimum(good, WINDOW)
  seen = jnp.arange(WINDOW) < n
  n = jnp.maximum(n, 1)
  mean = jnp.sum(jnp.where(seen, window, 0)) / n
  spread = jnp.sqrt(jnp.sum(jnp.where(seen, window - mean, 0) ** 2) / n)
  return mean + sigma * jnp.maximum(spread, FLOOR * jnp.abs(mean))


def _push(window, good, value, bad):
  here = jnp.arange(WINDOW) == good % WINDOW
  return jnp.where(here & ~bad, value, window)


def unless(bad: jax.Array, new: object, old: object) -> object:
  """`new`, or `old` where the step is bad; counts of steps are always `new`, for the
  schedule."""

  def pick(new, old):
    counts = old.ndim == 0 and jnp.issubdtype(old.dtype, jnp.integer)
    return new if counts else jnp.where(bad, old, new)

  return jax.tree.map(pick, new, old)
