"""What the training loop is told: the `train` and `optim` parts of a config."""

import dataclasses

from llama3_jax import config as configs
from llama3_jax.train.optim import OptimConfig


@dataclasses.dataclass(frozen=True)
class TrainConfig:
  """Steps, batches, saves, and what keeps a run alive (3.3.4); defaults for a laptop.

  base/fields.py has the ranges, and which may change between two starts of a run.
  """

  steps: int = 1300
  batch: int = 8  # rows a step
  length: int = 256  # tokens a row
  prefetch: int = 2  # batches that threads read before they are due; 0: none
  ramp: tuple = ()  # ((tokens, batch, length), ...): in force after so many tokens
  microbatches: int = 1
  z_loss: float = 0.0
  loss_chunk: int = 1024  # tokens a device whose logits exist at one time; 0: all
  save_every: int = 200
  keep: int = 2  # newest saves
  eval_every: int = 200
  log_every: int = 10
  average: int = 0  # the last so many saves make the final model (Polyak, 3.4.3)
  checkpoints: str = ''  # another folder than workdir/checkpoints; may be gs://...
  keep_every: int = 0  # saves of multiples of this step are kept for good
  on_bad_step: str = 'skip'  # off | skip | clip | rewind | stop: reliable/guard.py
  spike_sigma: float = 0.0  # spreads above the mean that make a spike; 0: only NaN, inf
  max_bad_steps: int = 10  # in a row, then the run stops
  rewind_steps: int = 20  # steps to go back, at least
  max_rewinds: int = 5
  watchdog_s: float = 1800.0  # without a step, then all stacks are dumped; 0: never
  watchdog_exit: bool = False  # and the process ends
  replay_every: int = 0  # steps between two that are run again, to compare every bit
  stats_every: int = 50  # steps between statistics of slow processes


@dataclasses.dataclass(frozen=True)
class RunConfig:
  """What `loop.run` is told; `experiment` names the run on its progress bar."""

  train: TrainConfig = TrainConfig()
  optim: OptimConfig = OptimConfig()
  experiment: str = 'training'


def of(config):
  """The RunConfig of a ConfigDict with those parts, or of one that is one already.

  A field that the ConfigDict lacks has its default; one that none reads is a UserError.
  """
  if isinstance(config, RunConfig):
    return config
  parts = {n: config[n] for n in ('train', 'optim')}
  return configs.fill(RunConfig(experiment=config.experiment), parts, '')
