"""Reward scores of answers by weights of few bits beside those by the whole weights."""

import ml_collections

from configs import pretrain


def get_config(arg=None):
  del arg
  c = ml_collections.ConfigDict()
  c.experiment = 'scores'
  c.seed = 0  # the other seed is the next number
  c.init_from = 'runs/herd/average_2'  # the model that answers
  c.reward_from = 'runs/herd/reward_2'  # the model that scores
  c.mesh = pretrain.base().mesh
  c.weights = 'fp8'  # fp8 | fp8_weights | int8 | int8_weights
  c.cap = 1200.0  # on the value that scales an activation; 0: none
  c.samples = 5  # answers a prompt; the paper scores 100,000 answers
  c.batch = 16  # prompts decoded together, each with its samples
  c.require = False  # True: scores beyond the limit end with status 2
  c.sample = ml_collections.ConfigDict(
    dict(temperature=1.0, top_p=1.0, top_k=0, max_new=24)
  )
  c.data = ml_collections.ConfigDict(
    dict(
      tokenizer='',  # vocabulary file; '': the one that init_from carries
      tasks=500,  # generated prompts, with checkable answers
      task_names=('copy', 'sort', 'arithmetic', 'needle', 'format'),  # of tasks/
      files=(),  # of prompts, as configs/generate.py reads them
    )
  )
  return c
