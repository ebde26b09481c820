"""Pipeline schedule to draw; without an argument figure 6 of the paper."""

import ml_collections

from llama3_jax.base.errors import UserError

# stages, chunks a stage, microbatches, consecutive microbatches
PRESETS = {
  'figure6': (4, 2, 10, 5),
  # 126 layers, one a chunk: 16 stages; 16 sequences a data-parallel group (table 4)
  '405b': (16, 8, 16, 16),
}


def get_config(preset='figure6'):
  if preset not in PRESETS:
    raise UserError(f'schedule {preset!r} must be one of {", ".join(PRESETS)}')
  stages, chunks, microbatches, group = PRESETS[preset]
  c = ml_collections.ConfigDict()
  c.experiment = 'schedule'
  c.stages = stages  # of the pipeline
  c.chunks = chunks  # of the model a stage has
  c.microbatches = microbatches  # of a batch
  c.group = group  # 0: as many as stages (depth-first)
  c.form = 'aligned'  # aligned | 1f1b | gpipe
  return c
