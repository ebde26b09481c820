"""Checks that a training config fits the model and the mesh, before data is read."""

from ml_collections import ConfigDict

from llama3_jax import axes
from llama3_jax import mesh as meshes
from llama3_jax import quant
from llama3_jax.base.errors import UserError
from llama3_jax.config import ModelConfig
from llama3_jax.model import remat
from llama3_jax.pipeline.plans import Plan
from llama3_jax.reliable import guard as guards
from llama3_jax.reliable import health
from llama3_jax.train import boards
from llama3_jax.train import config as configs
from llama3_jax.train import schedule


def check(
  config: configs.RunConfig | ConfigDict, model: ModelConfig, plan: Plan | None = None
) -> tuple[schedule.Phase, ...]:
  """Phases of the ramp; UserError when they or the model do not fit the mesh.

  config: RunConfig, or a ConfigDict with its parts; plan: of a pipeline, None without.
  """
  config = configs.of(config)
  t = config.train
  least_1 = ('log_every', 'save_every', 'microbatches', 'keep', 'batch', 'length')
  for name in least_1:
    if getattr(t, name) < 1:
      value = getattr(t, name)
      raise UserError(f'train.{name}={value}: a number of 1 or more is needed')
  for name in ('eval_every', 'keep_every', 'replay_every', 'stats_every'):
    if getattr(t, name) < 0:
      value = getattr(t, name)
      raise UserError(f'train.{name}={value}: 0 (never) or more is needed')
  saves = min(t.keep, -(-t.steps // t.save_every))
  if t.average > saves > 0:
    raise UserError(
      f'train.average={t.average}: {saves} saves are kept; raise train.keep, lower '
      'train.save_every, or lower train.average'
    )
  o = config.optim
  if 0 < o.decay < o.warmup:
    raise UserError(
      f'optim.decay={o.decay} is before optim.warmup={o.warmup} ends: the '
      'learning rate would jump; raise decay or lower warmup'
    )
  guards.create(t)
  boards.check(t.wandb)
  health.check(t.replay_every)
  quant.check(model.quant)
  remat.names(model.remat)
  m = axes.mesh()
  sizes = (1,) * len(axes.AXES) if m is None else m.axis_sizes
  meshes.check(sizes, model, plan is not None)
  phases = schedule.ramp(t)
  for p in phases:
    meshes.check_batch(sizes, p.batch, p.length, t.microbatches)
  return phases
