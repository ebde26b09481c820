"""A model of your own text: argument is the size (tiny, small, 135m ... 405b)."""

import ml_collections

from configs import curate
from configs import pretrain
from configs import shards
from configs import tokenizer


def get_config(size='tiny'):
  c = pretrain.get_config(size)
  c.experiment = 'own'
  del c.ask
  c.text = ()  # folders, files, patterns: .txt .md .html .jsonl .parquet .csv .pdf
  c.column = ''  # of the text in rows; '': text, content, document, body ...
  c.curate = False  # True: the rules of web curation first (3.1.1)
  c.heldout = 0.0  # share of documents that are held out; 0: by how many there are
  c.vocab_size = 1792  # base ranks, fewer for little text; 256 special ones come on top
  c.prompts = ()  # texts completed at each evaluation; (): beginnings of held-out ones
  c.sample = ml_collections.ConfigDict(
    dict(temperature=0.8, top_p=0.95, top_k=0, max_new=48)
  )
  # The steps before training, as their own configs; what they read is filled in.
  c.curation = curate.get_config('files')
  c.tokenizer = tokenizer.get_config('train')
  c.tokenizer.update(dict(max_characters=50_000_000, fewer=True))
  c.shards = shards.get_config()
  c.shards.update(dict(task_pages=0, drills=0, part_bytes=1 << 25))
  c.shards.needle.update(dict(short_pages=0, long_pages=0))
  c.model.vocab_size = 0  # that of the tokenizer
  del c.data.root, c.data.mix, c.data.changes
  if size == 'tiny':
    c.optim.update(dict(peak=3e-3, floor=0.1))
    c.train.update(dict(steps=700, batch=8, eval_every=100, save_every=200))
  c.optim.warmup = 0  # steps; 0: a twentieth of all
  c.optim.decay = 0  # step at which the rate is lowest; 0: the last
  return c
