"""The tokenizer (3.2); argument: train, tiny, extend, or paper (100K + 28K)."""

import ml_collections

from llama3_jax import config as configs


def get_config(mode='train'):
  configs.choose('tokenizer', mode, ('train', 'tiny', 'extend', 'paper'))
  c = ml_collections.ConfigDict()
  c.experiment = 'tokenizer'
  c.inputs = (
    'runs/herd/curate/documents',
  )  # JSONL files of documents, or folders of them
  c.base = ''  # tokenizer.model to extend; empty: train from nothing
  c.vocab_size = 4096  # base ranks; 256 special tokens come on top
  c.fewer = False  # True: fewer ranks where the texts do not teach so many
  c.keep = ('en', 'code')  # languages whose encoding an extension must not change
  c.hold_out = 20  # every n-th document of a language is for the report only
  c.max_characters = 200_000_000  # of training text, a language
  c.task_pages = 0  # generated pages of exercises beside the inputs
  c.task_names = ('copy', 'sort', 'arithmetic', 'needle', 'format')  # which tasks
  if mode == 'tiny':  # the herd's: its exercises' words become tokens
    c.vocab_size = 1792
    c.task_pages = 4000
    c.max_characters = 1_000_000
  elif mode == 'extend':
    c.base = 'runs/tokenizer/tokenizer.model'
    c.vocab_size = 5120
  elif mode == 'paper':
    c.base = 'tokenizer.model'  # the 100K of the tiktoken vocabulary
    c.vocab_size = 128_000
  return c
