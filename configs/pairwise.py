"""Ratings of pairs of answers: win rates, strengths, agreement."""

import ml_collections


def get_config(arg=None):
  del arg
  c = ml_collections.ConfigDict()
  c.experiment = 'pairwise'
  c.seed = 0  # of the draws of intervals, and of the answers that are shown
  c.files = ()  # rows {"prompt", "models", "rating", "rater"}, as annotate writes them
  c.models = ()  # whose ratings are taken, by name; (): all
  return c
