"""Real data of a folder: all of one set of preferences, or a part of three (chat)."""

import ml_collections

from llama3_jax import config as configs


def get_config(arg='all'):
  configs.choose('assets', arg, ('all', 'chat'))
  c = ml_collections.ConfigDict()
  c.experiment = 'assets'
  c.seed = 0  # chooses the preferences that are held out
  c.folder = ''  # of the data sets, see data/assets.py and data/people.py
  c.sets = ('qa_feedback',)  # of preferences: also pandalm, harmless, demo
  c.most = 0  # preference examples of a set to train on; 0: all that are not held out
  c.heldout = 95  # of a set, kept for judging the reward model
  c.longest = 0  # characters of a prompt and its responses; 0: any number
  c.context = 0  # characters of the passage shown with a question; 0: none
  c.page = 8  # problems a document; 0: no documents
  c.dialogs = 300  # GSM8K problems as SFT dialogs
  if arg == 'chat':
    c.sets = ('qa_feedback', 'pandalm', 'harmless')
    c.update(dict(most=80, heldout=60, longest=1200, page=0, dialogs=100))
  return c
