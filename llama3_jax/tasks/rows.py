"""A benchmark from your own rows: --config.tasks="('rows=test.jsonl,train.jsonl',)".

Shorter: --files=test.jsonl. A row is {"question", "answer", "worked"?, "choices"?}, the
question also as "prompt"; JSONL, Parquet or CSV. `worked` is the answer with its
steps, the answer alone on the last line; `choices` are answers to choose from, with the
right one among them. The second file has the solved examples for a base model.
"""

import random
from collections.abc import Mapping

from absl import logging

from llama3_jax.base import jsonl
from llama3_jax.base import rows as files
from llama3_jax.base.errors import UserError
from llama3_jax.tasks import task


def create(source: str = '') -> task.Task:
  """The Task of the files 'TEST' or 'TEST,TRAIN'."""
  test, _, train = source.partition(',')

  def examples(split, n, seed):
    path = test if split == 'heldout' else train
    if not path:
      way = 'write rows=TEST,TRAIN, or --config.shots=0'
      raise UserError(f'tasks: rows={source} names no file of {split} rows: {way}')
    rows = _read(path)
    if split == 'train':
      prompts = {row.prompt for row in _read(test)}
      rows = _without(
        rows, lambda row: row.prompt in prompts, f'{path}: asked in {test}'
      )
    random.Random(f'{seed}/{split}').shuffle(rows)
    return rows[:n]

  return task.Task(examples, score, prompt, stop='\nQ:', max_new=256)


def prompt(example: task.Example) -> str:
  """The question and its choices, each on a line."""
  return '\n'.join([example.prompt, *example.choices])


def score(example: task.Example, response: str) -> float:
  """1.0 when the response is the answer: alone, or after the steps on the last line."""
  last = response.strip().split('\n')[-1]
  return task.exact(example, last if example.worked else response)


def _read(path):
  """The Examples of a file, without repeated questions."""
  rows, seen = [parse(row, where) for where, row in files.read(path, 'tasks')], set()

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


def parse(row: Mapping, where: str) -> task.Example:
  """The Example of one row; a UserError starts with `where`."""
  if 'prompt' in row and 'question' not in row:
    row = {('question' if k == 'prompt' else k): v for k, v in row.items()}
  jsonl.known(row, ('question', 'answer', 'worked', 'choices', 'id', 'source'), where)
  text = lambda field, *default: jsonl.text(row, field, where, *default)
  choices = row.get('choices', [])
  if not isinstance(choices, list) or not all(isinstance(c, str) for c in choices):
    raise UserError(f'{where}: field choices is not a list of texts')
  example = task.Example(
    text('question'),
    text('answer').strip(),
    worked=text('worked', ''),
    choices=tuple(choices),
  )
  if (
    example.worked and task.exact(example, example.worked.strip().split('\n')[-1]) != 1
  ):
    raise UserError(f'{where}: the last line of worked must be the answer alone')
  if example.choices and example.answer not in example.choices:
    raise UserError(
      f'{where}: the answer {example.answer!r} must be one of its choices'
    )
  return example
