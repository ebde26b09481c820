"""Pipeline schedule to draw; without an argument figure 6 of the paper. `inference`:
what microbatches give when answers are generated over stages (section 6.1)."""

import ml_collections

from configs import pretrain
from llama3_jax.base.errors import UserError

# stages, chunks a stage, microbatches, consecutive microbatches
PRESETS = {
  'figure6': (4, 2, 10, 5),
  # 126 layers, one a chunk: 16 stages; 16 sequences a data-parallel group (table 4)
  '405b': (16, 8, 16, 16),
}


def get_config(preset='figure6'):
  if preset == 'inference':
    return inference()
  if preset not in PRESETS:
    known = ', '.join((*PRESETS, 'inference'))
    raise UserError(f'schedule {preset!r} must be one of {known}')
  stages, chunks, microbatches, group = PRESETS[preset]
  c = ml_collections.ConfigDict()
  c.experiment = 'schedule'
  c.stages = stages  # of the pipeline
  c.chunks = chunks  # of the model a stage has
  c.microbatches = microbatches  # of a batch
  c.group = group  # 0: as many as stages (depth-first)
  c.form = 'aligned'  # aligned | 1f1b | gpipe
  return c


def inference():
  c = ml_collections.ConfigDict()
  c.experiment = 'schedule'
  c.form = 'inference'
  c.model = pretrain.get_config('tiny').model
  c.stages = 2
  c.microbatches = (1, 2, 4)  # to compare
  c.rows = 16  # requests that begin together
  c.prompt = 512  # tokens of each; the paper: 4,096
  c.answer = 32  # tokens of each answer; the paper: 256
  # Seconds of a stage for a microbatch, for each of `microbatches`; (): measured here.
  c.prefill_s = ()
  c.decode_s = ()
  c.message_s = 0.0  # seconds of a message between stages
  return c
