"""Average of models of one stage: reward models, SFT, DPO (4.1.5)."""

import ml_collections

from configs import pretrain


def get_config(arg=None):
  del arg
  c = ml_collections.ConfigDict()
  c.experiment = 'average'
  c.members = ('runs/herd/dpo_2a', 'runs/herd/dpo_2b')  # workdirs
  c.scales = ()  # how much each counts, (): all alike
  c.base = ''  # base + sum of scale * (member - base); '': the weighted mean
  c.top = 0  # so many members, the best `by`; 0: all
  c.by = 'eval_loss'  # a value of their results.json; 'tasks.macro.score' of evaluate
  c.best = 'least'  # or 'most'
  c.evaluations = ()  # workdirs of those results, one a member; (): the members
  c.mesh = pretrain.base().mesh
  return c
