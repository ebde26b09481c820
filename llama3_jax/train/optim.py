"""AdamW with the paper's values; what it leaves open is Llama 2's (3.4.1)."""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from llama3_jax.train import schedule


@dataclasses.dataclass(frozen=True)
class OptimConfig:
  peak: float = 3e-4
  warmup: int = 8000
  decay: int = 1_200_000
  floor: float = 0.01
  anneal_start: int = 0
  anneal_steps: int = 0
  b1: float = 0.9
  b2: float = 0.95
  eps: float = 1e-5
  weight_decay: float = 0.1
  clip: float = 1.0

  @property
  def schedule(self):
    names = [f.name for f in dataclasses.fields(schedule.Schedule)]
    return schedule.Schedule(**{n: getattr(self, n) for n in names})


def decayed(params):
  """Mask of weight decay: matrices yes, norm scales no (their names end in norm)."""

  def matrix(path, _):
    return not jax.tree_util.keystr(path, simple=True, separator='.').endswith('norm')

  return jax.tree_util.tree_map_with_path(matrix, params)


def create(c):
  """optax transformation: clip by global norm, AdamW, learning rate of the schedule."""
  return optax.chain(
    optax.clip_by_global_norm(c.clip),
    optax.adamw(
      lambda step: schedule.learning_rate(step, c.schedule),
      b1=c.b1,
      b2=c.b2,
      eps=c.eps,
      weight_decay=c.weight_decay,
      mask=decayed,
      mu_dtype=jnp.float32,
    ),
  )
