"""MBPP: Python functions from a sentence (5.1.4): --config.tasks="('mbpp=FOLDER',)".

The folder holds mbpp.jsonl. Questions 11 to 510 are held out, 601 to 974 are for
training; solved examples begin with 2, 3 and 4, as others' do (arXiv 2108.07732).
"""

import ast
import functools
import random

from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError
from llama3_jax.tasks import coding
from llama3_jax.tasks import reading
from llama3_jax.tasks import task

NAMES = ('humaneval_mbpp/mbpp.jsonl', 'mbpp.jsonl')
HELDOUT, TRAIN = range(11, 511), range(601, 975)
SHOWN = (2, 3, 4, 1, 5, 6, 7, 8, 9, 10)
STOP = '[DONE]'


def create(source: str = '') -> task.Task:
  """The Task of mbpp.jsonl: the file, or a folder that holds it."""

  def examples(split, n, seed):
    found = _read(source)
    if split == 'heldout':
      first, then = [], [e for i, e in found.items() if i in HELDOUT]
    else:
      asked = {_sentence(e) for i, e in found.items() if i in HELDOUT}
      first = [found[i] for i in SHOWN if i in found]
      then = [found[i] for i in TRAIN if i in found]
      first = [e for e in first if _sentence(e) not in asked]
      then = [e for e in then if _sentence(e) not in asked]
    random.Random(f'{seed}/{split}').shuffle(then)
    if not first + then:
      raise UserError(f'tasks: mbpp={source} has no questions of the {split} split')
    return (first + then)[:n]

  how = coding.scored(program)
  return task.Task(examples, page=page, stop=STOP, max_new=512, shots=3, **how)


def program(example: task.Example, response: str) -> str:
  """The answer's code, then the assertions."""
  return '\n'.join([coding.extract(response), *example.checks])


def page(example: task.Example) -> str:
  """The sentence and the assertions, up to the code; it ends in STOP."""
  checks = '\n'.join(example.checks)
  return f'Task: {_sentence(example)}\nTests:\n{checks}\n[BEGIN]'


def _sentence(example):
  return example.prompt.partition('\n')[0]


@functools.lru_cache(4)
def _read(source):
  """Number -> Example of every question of the file."""
  found = {}
  for where, row in reading.rows(reading.place(source, NAMES)):
    number, example = parse(row, where)
    found[number] = example
  return found


def parse(row: dict, where: str) -> tuple[int, task.Example]:
  """(task_id, Example) of one row; a UserError starts with `where`."""
  if type(row.get('task_id')) is not int:
    raise UserError(f"{where}: field 'task_id' is not a whole number")
  text = ' '.join(jsonl.text(row, 'text', where).split())
  code = _lines(jsonl.text(row, 'code', where))
  coding.parse(code, 'code', where)
  checks = [_lines(t) for t in reading.texts(row.get('test_list'), 'test_list', where)]
  for check in checks:
    coding.parse(check, 'test_list', where)
  call = _call(checks[0], code)
  prompt = (
    f'{text}\nWrite it in Python, as a function that is called like this:\n{call}\n'
    'Answer with the code alone, in a block.'
  )
  setup = _lines(jsonl.text(row, 'test_setup_code', where, ''))
  if setup:
    checks = [coding.parse(setup, 'test_setup_code', where), *checks]
  worked = f'\n{code}\n{STOP}'
  return row['task_id'], task.Example(
    prompt, f'```python\n{code}\n```', worked=worked, checks=tuple(checks)
  )


def _lines(text):
  return text.replace('\r\n', '\n').replace('\r', '\n').strip('\n')


def _call(check, code):
  """The call of a function of `code` in an assertion, else the whole assertion."""
  defined = {n.name for n in ast.walk(ast.parse(code)) if hasattr(n, 'name')}
  for node in ast.walk(ast.parse(check)):
    if isinstance(node, ast.Call) and getattr(node.func, 'id', '') in defined:
      return ast.unparse(node)
  return check
