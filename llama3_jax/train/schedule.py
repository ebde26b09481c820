"""Learning rate and batch/sequence ramp as pure functions (sections 3.4.1, 3.4.3)."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from llama3_jax.base.errors import UserError


@dataclasses.dataclass(frozen=True)
class Schedule:
  """Warm-up, cosine, linear to zero; in steps. `anneal_steps` = 0: no annealing.

  The 405B: peak 8e-5, warmup 8,000, decay 1,200,000, floor 0.01 (8e-7).
  """

  peak: float
  warmup: int
  decay: int  # step at which the cosine reaches floor * peak; 0: constant after warm-up
  floor: float = 0.01
  anneal_start: int = 0
  anneal_steps: int = 0


def filled(warmup: int, decay: int, steps: int) -> dict[str, int]:
  """{'optim.warmup', 'optim.decay'} where 0 means: as `steps` suggest, a twentieth of
  them (at most 100; of a single step none, since the first step of a warm-up has rate
  0 and would train nothing) and all of them."""
  warm = warmup or min(max(steps // 20, 1), 100, max(steps - 1, 0))
  return {'optim.warmup': warm, 'optim.decay': decay or steps}


def learning_rate(step: int | jax.Array, s: Schedule) -> jax.Array:
  """Learning rate, float32 scalar, at `step` (int or int32 scalar) of Schedule `s`."""
  step = jnp.asarray(step, jnp.float32)
  rate = _main(step, s)
  if s.anneal_steps:
    start = _main(jnp.float32(s.anneal_start), s)
    left = 1 - (step - s.anneal_start) / s.anneal_steps
    rate = jnp.where(step < s.anneal_start, rate, start * jnp.clip(left, 0, 1))
  return rate


def _main(step, s):
  rise = s.peak * step / max(s.warmup, 1)
  if not s.decay:
    return jnp.where(step < s.warmup, rise, s.peak)
  done = jnp.clip((step - s.warmup) / max(s.decay - s.warmup, 1), 0, 1)
  cosine = s.floor + (1 - s.floor) * 0.5 * (1 + jnp.cos(jnp.pi * done))
  return jnp.where(step < s.warmup, rise, s.peak * cosine)


@dataclasses.dataclass(frozen=True)
class Phase:
  """After `tokens` consumed tokens, batches have `batch` rows of `length` tokens."""

  tokens: int
  batch: int
  length: int


# 405B: 4M tokens x 4,096, 8M x 8,192 after 252M, 16M after 2.87T (section 3.4.1).
PAPER_RAMP = (
  Phase(0, 1024, 4096),
  Phase(252_000_000, 1024, 8192),
  Phase(2_870_000_000_000, 2048, 8192),
)


def ramp(config: object) -> tuple[Phase, ...]:
  """Phases of `train.ramp` = ((tokens, batch, length), ...), or a single one.

  config: TrainConfig, or a ConfigDict of its fields.
  """
  rows = getattr(config, 'ramp', None) or ((0, config.batch, config.length),)
  phases = tuple(Phase(*map(int, r)) for r in rows)
  starts = [p.tokens for p in phases]
  if starts[0] != 0 or starts != sorted(set(starts)):
    raise UserError(f'train.ramp must start at 0 tokens and rise, got {starts}')
  return phases


def phase(phases: Sequence[Phase], tokens: int) -> Phase:
  """The phase that is active after `tokens` consumed tokens."""
  return [p for p in phases if p.tokens <= tokens][-1]
