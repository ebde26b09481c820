"""Settings of the training loop: the `train` and `optim` parts of a config."""

import dataclasses

from ml_collections import ConfigDict

from llama3_jax import config as configs
from llama3_jax.train.optim import OptimConfig


@dataclasses.dataclass(frozen=True)
class TrainConfig:
  """Steps, batches, saves and fault handling (3.3.4); the defaults suit a laptop.

  base/ranges.py has the ranges, and which may change between two starts of a run.
  """

  steps: int = 1300
  batch: int = 8  # rows a step
  length: int = 256  # tokens a row
  prefetch: int = 2  # batches that threads read before they are due; 0: none
  ramp: tuple = ()  # ((tokens, batch, length), ...): used after so many tokens
  microbatches: int = 1
  z_loss: float = 0.0
  loss_chunk: int = 1024  # tokens a device whose logits exist at one time; 0: all
  save_every: int = 200
  keep: int = 2  # newest saves
  eval_every: int = 200
  log_every: int = 10
  average: int = 0  # saves whose mean is the final model (Polyak, 3.4.3); 0: none
  checkpoints: str = ''  # another folder than workdir/checkpoints; may be gs://...
  keep_every: int = 0  # saves at multiples of this step are never deleted; 0: none
  on_bad_step: str = 'skip'  # off | skip | clip | rewind | stop: reliable/guard.py
  spike_sigma: float = 0.0  # a spike is so many spreads above the mean; 0: NaN, inf
  max_bad_steps: int = 10  # in a row, then the run stops
  rewind_steps: int = 20  # steps to go back, at least
  max_rewinds: int = 5
  watchdog_s: float = 1800.0  # without a step until all stacks are dumped; 0: never
  watchdog_exit: bool = False  # and the process ends
  replay_every: int = 0  # steps between two that are run again, to compare every bit
  stats_every: int = 50  # steps between statistics of slow processes
  wandb: str = ''  # project of Weights & Biases that gets the metrics; '': none


@dataclasses.dataclass(frozen=True)
class RunConfig:
  """Settings of `loop.run`; `experiment` names the run on its progress bar."""

  train: TrainConfig = TrainConfig()
  optim: OptimConfig = OptimConfig()
  experiment: str = 'training'


def of(config: RunConfig | ConfigDict) -> RunConfig:
  """The RunConfig of a ConfigDict with these parts; a RunConfig is returned as it is.

  A field missing from the ConfigDict has its default; an unknown one is a UserError.
  """
  if isinstance(config, RunConfig):
    return config
  parts = {n: config[n] for n in ('train', 'optim')}
  return configs.fill(RunConfig(experiment=config.experiment), parts, '')


@dataclasses.dataclass(frozen=True)
class AskConfig:
  """What is asked every train.eval_every steps; the device is held for so long.

  tasks: their names; one that ends with = gets the folder `data`; (): nothing is asked.
  shots, turns, longest_answer: of eval/run.py, shots -1 in a chat; examples: questions
  of each task.
  """

  tasks: tuple[str, ...] = ()
  data: str = ''
  examples: int = 50
  shots: int = -1
  turns: int = 0
  max_new: int = 32
  longest_answer: int = 0
  batch: int = 16
