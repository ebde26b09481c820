"""Reward model: argument is any (rows of yours) or a size (tiny, 8b, 70b, 405b)."""

import ml_collections

from configs import pretrain


def base(size):
  """Fields of a post-training stage; the model's sizes are those of `init_from`.

  `any`: rows of yours and a model of any size; what is 0 is chosen by them
  (post/training.py).
  """
  c = pretrain.get_config('tiny' if size == 'any' else size)
  c.train.ramp = ()
  c.train.update(dict(save_every=100, eval_every=100))
  c.data = ml_collections.ConfigDict(
    dict(
      tokenizer='',  # vocabulary file; '': the one that init_from carries
      call_format='',  # of tool calls: json, function_tag, python_list; '': as before
      tasks=3000,  # generated examples of the verifiable tasks (train split)
      task_names=('copy', 'sort', 'arithmetic', 'needle', 'format'),  # of tasks/
      files=(),  # JSONL files of further examples
      heldout_tasks=320,  # generated examples of the held-out split
      heldout_files=(),
      epochs=3.0,  # passes over the rows, where train.steps is 0
      heldout=0.0,  # share of the rows of files, by prompt; --files alone makes it 0.05
    )
  )
  del c.model, c.ask
  if size == 'any':
    # peak: by the model's size; warmup: a twentieth of the steps; decay: all of them
    c.optim.update(dict(peak=0.0, warmup=0, decay=0, floor=0.1))
    # steps: by epochs; length: that of the longest example
    c.train.update(dict(steps=0, batch=8, length=0, eval_every=50))
    c.data.update(dict(tasks=0, heldout_tasks=0, heldout=0.05))
  return c


def preferences(c):
  """Adds the fields of a stage that reads preferences."""
  # The paper keeps better and significantly better, 3 (4.1.2); 0 takes all rows.
  c.data.min_strength = 0
  c.data.similar = 0.9  # the lower of two responses so alike is left out; 0: none is


def get_config(size='any'):
  c = base(size)
  c.experiment = 'reward'
  preferences(c)
  c.init_from = 'runs/herd/anneal'  # the pre-trained model (4.1.2)
  # All responses in one row (4.2.1); or 'exact', where none sees another, at the same
  # cost; or 'separate', a row each, at three times the cost of the prompt.
  c.data.mode = 'paper'
  c.data.margins = ''  # by strength: 'small' (1, 2/3, 1/3, 0) or 'large' of Llama 2
  if size == 'tiny':
    c.optim.update(dict(peak=9e-4, warmup=10, decay=400, floor=0.1))
    c.train.update(dict(steps=400, batch=16, length=128))
    c.data.tasks = 12_000
  elif size != 'any':
    # Not in the paper; Llama 2: 1e-5 (5e-6 for 70B), warm-up 3%, cosine to 10%.
    peak = 1e-5 if size == '8b' else 5e-6
    c.optim.update(dict(peak=peak, warmup=60, decay=2000, floor=0.1))
    c.train.update(dict(steps=2000, batch=512, length=4096))
    c.data.update(dict(tasks=0, heldout_tasks=0))
  return c
