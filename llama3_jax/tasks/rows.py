"""A benchmark from your own JSONL: --config.tasks="('rows=test.jsonl,train.jsonl',)".

A row is {"question", "answer", "worked"?, "choices"?}: `worked` is the answer with its
steps, `choices` are answers to choose from, the right one among them. The second file
holds the solved examples that a base model is shown; it may be left out.
"""

import random

from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError
from llama3_jax.tasks import task


def create(source=''):
  test, _, train = source.partition(',')
  paths = {'heldout': test, 'train': train}

  def examples(split, n, seed):
    if not paths[split]:
      way = 'write rows=TEST,TRAIN, or --config.shots=0'
      raise UserError(f'tasks: rows={source} names no file of {split} rows: {way}')
    rows = [parse(row, where) for where, row in jsonl.read(paths[split], 'tasks')]
    rows = list({row.prompt: row for row in rows}.values())
    random.Random(f'{seed}/{split}').shuffle(rows)
    return rows[:n]

  return task.Task(examples, stop='\nQ:', max_new=256)


def parse(row, where):
  """The Example of one row; UserError that opens with `where`."""
  jsonl.known(row, ('question', 'answer', 'worked', 'choices'), where)
  text = lambda field, *default: jsonl.text(row, field, where, *default)
  choices = row.get('choices', [])
  if not isinstance(choices, list) or not all(isinstance(c, str) for c in choices):
    raise UserError(f'{where}: field choices is not a list of texts')
  made = task.Example(
    text('question'),
    text('answer').strip(),
    worked=text('worked', ''),
    choices=tuple(choices),
  )
  if made.choices and made.answer not in made.choices:
    raise UserError(f'{where}: the answer {made.answer!r} must be one of its choices')
  return made
