"""Quality control of dialogs: which of somebody's answers are worth learning from."""

import ml_collections

from configs import pretrain


def get_config(arg=None):
  del arg
  c = ml_collections.ConfigDict()
  c.experiment = 'quality'
  c.seed = 0  # of the clusters
  c.init_from = 'runs/herd/average_2'  # the model that judges and embeds
  c.reward_from = ''  # a reward model, the other signal; '': rewards of the rows
  c.mesh = pretrain.base().mesh
  c.files = ()  # rows of dialogs, as for sft
  c.judge = ('quality', 'difficulty', 'topic')  # what the model is asked; (): nothing
  c.topics = ('mathematics', 'code', 'language', 'science', 'advice', 'other')
  c.batch = 16  # dialogs scored at a time
  c.length = 512  # tokens of a dialog that its embedding reads
  c.limits = ml_collections.ConfigDict(
    dict(
      apologies=0.02,  # share of the answers that may begin with one
      top=0.25,  # share with the highest rewards that is good
      cosine=0.95,  # dialogs as near to a better one are dropped; above 1: none
    )
  )
  c.data = ml_collections.ConfigDict(dict(tokenizer=''))  # '': that of init_from
  return c
