"""Real preference data, maths and code from a folder of data sets."""

import ml_collections


def get_config(arg=None):
  del arg
  c = ml_collections.ConfigDict()
  c.experiment = 'assets'
  c.seed = 0  # chooses the preferences that are held out
  c.folder = ''  # holds pref_qa_feedback, gsm8k and humaneval_mbpp
  c.heldout = 95  # preference examples kept for judging the reward model
  c.context = 0  # characters of the passage shown with a question; 0: none
  c.page = 8  # problems a document
  c.dialogs = 300  # GSM8K problems as SFT dialogs
  return c
