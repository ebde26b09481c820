"""A benchmark from your own JSONL: --config.tasks="('rows=test.jsonl,train.jsonl',)".

A row is {"question", "answer", "worked"?, "choices"?}: `worked` is the answer with its
steps, the answer alone on the last line; `choices` are answers to choose from, the
right one among them. The second file holds the solved examples of a base model.
"""

import random

from absl import logging

from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError
from llama3_jax.tasks import task


def create(source=''):
  test, _, train = source.partition(',')

  def examples(split, n, seed):
    path = test if split == 'heldout' else train
    if not path:
      way = 'write rows=TEST,TRAIN, or --config.shots=0'
      raise UserError(f'tasks: rows={source} names no file of {split} rows: {way}')
    rows = _read(path)
    if split == 'train':
      asked = {row.prompt for row in _read(test)}
      rows = _without(rows, lambda row: row.prompt in asked, f'{path}: asked in {test}')
    random.Random(f'{seed}/{split}').shuffle(rows)
    return rows[:n]

  return task.Task(examples, score, prompt, stop='\nQ:', max_new=256)


def prompt(example):
  """The question, and the answers to choose from, a line each."""
  return '\n'.join([example.prompt, *example.choices])


def score(example, response):
  """1.0 when the answer is said: alone, or after the steps on the last line."""
  last = response.strip().split('\n')[-1]
  return task.exact(example, last if example.worked else response)


def _read(path):
  """The Examples of a file, each question once."""
  rows, seen = [parse(row, where) for where, row in jsonl.read(path, 'tasks')], set()

  def again(row):
    known = row.prompt in seen
    seen.add(row.prompt)
    return known

  return _without(rows, again, f'{path}: asked before')


def _without(rows, left_out, why):
  kept = [row for row in rows if not left_out(row)]
  if len(kept) < len(rows):
    logging.warning('%s: %d questions left out', why, len(rows) - len(kept))
  return kept


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
  if made.worked and task.exact(made, made.worked.strip().split('\n')[-1]) != 1:
    raise UserError(f'{where}: the last line of worked must be the answer alone')
  if made.choices and made.answer not in made.choices:
    raise UserError(f'{where}: the answer {made.answer!r} must be one of its choices')
  return made
