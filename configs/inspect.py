"""Shows what a training step sees: argument is the size of configs/pretrain.py."""

from configs import pretrain


def get_config(size='tiny'):
  c = pretrain.get_config(size)
  c.experiment = 'inspect'
  del c.ask
  c.run = ''  # workdir of a run whose data, seed and batch are taken
  c.step = 1
  c.rows = 2  # that are printed; rows.jsonl has all
  c.characters = 400  # of a segment that are printed
  c.tokenizer = ''  # vocabulary file; '': the one that the shards carry
  return c
