"""What a pipeline of the ambient mesh is made of: layout, schedule, loss (3.3.2)."""

import dataclasses

import jax

from llama3_jax import axes
from llama3_jax import config as configs
from llama3_jax.base.errors import UserError
from llama3_jax.pipeline import layout as layouts
from llama3_jax.pipeline import schedule as schedules


@dataclasses.dataclass(frozen=True)
class PipelineConfig:
  """The `pipeline` part of a config; beside `mesh.stage` and `train.microbatches`."""

  chunks: int = 1  # a stage has, V
  group: int = 0  # consecutive microbatches of a chunk, N; 0: as many as stages
  form: str = 'aligned'  # aligned | 1f1b | gpipe
  bare: bool = False  # the first chunk is the embedding only, the last the head only
  together: bool = False  # no branch differs between stages


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
  """What an executor is made of; static under jit, so make it once.

  `tail(params, hidden, batch) -> (sum, metric sums)` is the loss of a microbatch from
  hidden states after the final norm, as `losses.head_loss`; its params have no layers.

  `together`: no branch differs between the stages. Idle stages then compute and throw
  away, which costs energy and no time (they would wait for their neighbours), and no
  collective stands in a branch that some devices do not take.
  """

  config: object  # ModelConfig
  layout: layouts.Layout
  schedule: schedules.Schedule
  tail: object
  together: bool = False


def create(model, stages, microbatches, c, tail, form=None):
  """The Plan of a ModelConfig and a PipelineConfig; UserError for what cannot be.

  `form`: instead of the config's; 'forward' for `measure`.
  """
  if form is None and c.form not in schedules.FORMS:
    known = ', '.join(schedules.FORMS)
    raise UserError(f'pipeline.form={c.form!r} must be one of {known}')
  layout = layouts.Layout(model.n_layers, stages, c.chunks, c.bare)
  table = schedules.build(stages, c.chunks, microbatches, c.group, form or c.form)
  return Plan(model, layout, table, tail, c.together)


def of(config, model, tail, form=None):
  """The Plan of the ambient mesh and a config's `pipeline`; None without stages."""
  stages = axes.parts('C')
  if stages == 1:
    return None
  c = configs.fill(PipelineConfig(), config.pipeline, 'pipeline')
  return create(model, stages, config.train.microbatches, c, tail, form)


def natural(tree, plan):
  """Every Params in `tree` in the model's own order, as the `plan` stored it."""
  if plan is None:
    return tree
  return jax.jit(layouts.restore, static_argnums=1)(tree, plan.layout)
