"""Layout, schedule and loss of a pipeline over the ambient mesh (3.3.2)."""

import dataclasses
from collections.abc import Callable

import jax
from ml_collections import ConfigDict

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
  """Everything that the executor needs; static under jit, so make it once.

  `tail(params, hidden, batch) -> (sum, metric sums)` is the loss of a microbatch from
  hidden states after the final norm, as `losses.head_loss`; its params have no layers.

  `together`: no branch differs between the stages. Idle stages then compute and discard
  the result, which costs energy but no time (they would wait for their neighbours), and
  no collective is in a branch that some devices do not take.
  """

  config: configs.ModelConfig
  layout: layouts.Layout
  schedule: schedules.Schedule
  tail: Callable
  together: bool = False


def create(
  model: configs.ModelConfig,
  stages: int,
  microbatches: int,
  c: PipelineConfig,
  tail: Callable,
  form: str | None = None,
) -> Plan:
  """The Plan of a ModelConfig and a PipelineConfig; UserError for impossible settings.

  form: replaces the form of `c`; 'forward' for `measure`.
  """
  if form is None and c.form not in schedules.FORMS:
    known = ', '.join(schedules.FORMS)
    raise UserError(f'pipeline.form={c.form!r} must be one of {known}')
  layout = layouts.Layout(model.n_layers, stages, c.chunks, c.bare)
  table = schedules.build(stages, c.chunks, microbatches, c.group, form or c.form)
  return Plan(model, layout, table, tail, c.together)


def of(
  config: ConfigDict,
  model: configs.ModelConfig,
  tail: Callable,
  form: str | None = None,
) -> Plan | None:
  """The Plan of the ambient mesh and a config's `pipeline`; None without stages."""
  stages = axes.parts('C')
  if stages == 1:
    return None
  c = configs.fill(PipelineConfig(), config.pipeline, 'pipeline')
  return create(model, stages, config.train.microbatches, c, tail, form)


def natural(tree: object, plan: Plan | None) -> object:
  """Every Params in `tree` from the stored order of `plan` to the model's own order."""
  if plan is None:
    return tree
  return jax.jit(layouts.restore, static_argnums=1)(tree, plan.layout)
