"""Preference annotation: a page for people, or judges."""

import ml_collections

from configs import pretrain


def get_config(arg=None):
  del arg
  c = ml_collections.ConfigDict()
  c.experiment = 'annotate'
  c.seed = 0  # of the places of the two answers, and of the pool's choice
  c.mesh = pretrain.base().mesh
  c.files = ()  # rows {"prompt", "responses"}, or of prompts where there is a pool
  c.pool = ()  # models, of which two different ones answer each prompt (4.2.1)
  # Or an ensemble of 'labels=FILE', 'judge=MODEL' that writes A3, 'likelihood=MODEL'
  # whose choice of a letter is read, 'reward=RUN'.
  c.judges = ('people',)
  c.ensemble = 'majority'  # or 'minimum': all agree, the lowest strength
  # 8: four strengths of either side; 7: the points of human evaluation (5.3), which
  # `pairwise` reads.
  c.scale = 8
  c.rater = 'person'  # who rates on the seven points, where people do
  c.template = ''  # of a judge, with {prompt}, {a} and {b}; '': post/annotators.py's
  c.source = 'annotated'  # of the rows that are written
  c.host = '127.0.0.1'  # only this machine; 0.0.0.0 or ::: all that reach it
  c.port = 8001  # 0: any that is free; the log says which
  c.batch = 16  # prompts answered together
  c.sample = ml_collections.ConfigDict(
    dict(temperature=0.6, top_p=0.9, top_k=0, max_new=256)
  )
  return c
