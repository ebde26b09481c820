"""Average of models of one stage (4.1.5)."""

import ml_collections

from configs import pretrain


def get_config(arg=None):
  del arg
  c = ml_collections.ConfigDict()
  c.experiment = 'average'
  c.members = ('runs/herd/dpo_2a', 'runs/herd/dpo_2b')  # workdirs
  c.mesh = pretrain.base().mesh
  return c
