"""Questions of evaluations that lie in the training data."""

import ml_collections


def get_config(arg=None):
  del arg
  c = ml_collections.ConfigDict()
  c.experiment = 'contamination'
  c.seed = 0
  c.evaluations = ()  # workdirs of evaluate, of several models on the same questions
  c.documents = ''  # folder of the training data, as curation writes it
  c.gram = 8  # words of the n-grams (5.1.4)
  return c
