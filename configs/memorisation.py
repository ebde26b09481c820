"""Training data that a model continues word for word."""

import ml_collections

from configs import pretrain


def get_config(arg=None):
  del arg
  c = ml_collections.ConfigDict()
  c.experiment = 'memorisation'
  c.seed = 0
  c.mesh = pretrain.base().mesh
  c.init_from = ''  # the model: a run, a model's folder or file, or a name
  c.tokenizer = ''  # vocabulary file; '': the one that init_from carries
  c.documents = ''  # folder of its training data, as curation writes it
  c.gram = 50  # tokens that have to be written as they are; 1000 for whole pages
  c.before = 50  # tokens before them, which the model is given
  c.spare = 0  # tokens more that it writes: the n-gram may begin later
  c.drawn = 250  # prompts of each language and frequency (1, 2-9, 10-99, 100+)
  c.most_languages = 8  # with the most data are told apart, the others are one
  c.room = 1 << 22  # different n-grams that are counted; of more a sample
  c.batch = 16  # prompts at a time
  return c
