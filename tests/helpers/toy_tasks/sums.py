"""A checkable task of sums, and a model that has learnt it from wrong answers too."""

import random

import post_examples as toy

from configs import sft as sft_config
from experiments import sft
from llama3_jax.base import jsonl
from llama3_jax.tasks import task
from llama3_jax.train import final


def make(rng):
  a, b = rng.randint(0, 5), rng.randint(0, 5)
  return task.Example(f'{a}+{b}?', str(a + b))


def create(source=''):
  """The Task; it has no source."""
  del source
  return task.generated('sums', make)


def rows(n, share):
  """Dialogs of which a `share` is right, the others one too many."""
  rng = random.Random(0)
  made = []
  for _ in range(n):
    e = make(rng)
    said = int(e.answer) + (rng.random() > share)
    turns = (('user', e.prompt), ('assistant', str(said)))
    made.append({'messages': [{'role': r, 'content': c} for r, c in turns]})
  return made


def model(folder, steps=200, share=0.4):
  """The workdir of a model that answers sums, wrong as often as its rows."""
  toy.tokenizer(folder)
  final.save(folder / 'base' / 'final', toy.model(), toy.CONFIG)
  jsonl.write(folder / 'sums.jsonl', rows(4000, share))
  c = sft_config.get_config()
  c.init_from, c.data.tokenizer = str(folder / 'base'), str(folder / 'bytes.model')
  c.data.files, c.data.heldout = (str(folder / 'sums.jsonl'),), 0.0
  c.optim.update(dict(peak=1e-2, warmup=10, decay=steps, floor=0.1))
  c.train.update(dict(steps=steps, batch=8, length=128, save_every=steps))
  sft.main(c, str(folder / 'sums'))
  return folder / 'sums'
