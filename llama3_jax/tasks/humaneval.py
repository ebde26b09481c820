"""HumanEval: bodies of Python functions (5.1.4): --config.tasks="('humaneval=DIR',)".

The folder holds HumanEval.jsonl, or its first questions as HumanEval_first40.jsonl. All
questions are held out: a base model is asked with --config.shots=0.
"""

import functools
import random
import re

from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError
from llama3_jax.tasks import coding
from llama3_jax.tasks import reading
from llama3_jax.tasks import task

FILES = ('HumanEval.jsonl', 'HumanEval_first40.jsonl')
NAMES = (*(f'humaneval_mbpp/{name}' for name in FILES), *FILES)
LEAD = 'Complete this Python function. Answer with the whole function, in a block.'
STOP = '\nif __name__'


def create(source: str = '') -> task.Task:
  """The Task of HumanEval.jsonl: the file, or a folder that holds it."""

  def examples(split, n, seed):
    reading.held_out(split, 'humaneval')
    found = list(_read(source))
    random.Random(f'{seed}/{split}').shuffle(found)
    return found[:n]

  how = coding.scored(program)
  return task.Task(
    examples, prompt=prompt, page=task.plain, stop=STOP, max_new=512, shots=0, **how
  )


def prompt(example: task.Example) -> str:
  """The function without its body, in a block."""
  return f'{LEAD}\n```python\n{example.prompt.rstrip()}\n```'


def program(example: task.Example, response: str) -> str:
  """The function, whole or completed by its body, then the assertions."""
  name = example.checks[0]
  code = coding.extract(response)
  if not re.search(rf'^(?:async )?def {name}\b', code, re.M):
    code = example.prompt + _body(response, _indent(example.prompt))
  else:
    # What the question has before the function: imports and other functions.
    code = f'{example.prompt}{_indent(example.prompt)}pass\n\n{code}'
  # Functions of the question by which answers are checked are those of the question.
  given = re.split(rf'^def {name}\(', example.prompt, flags=re.M)[0]
  return '\n'.join([code, given, *example.checks[1:]])


def _indent(text):
  """The indentation of the body, which the docstring has."""
  lines = [line for line in text.split('\n') if line.strip()]
  return lines[-1][: len(lines[-1]) - len(lines[-1].lstrip())] or '    '


def _body(response, indent):
  """The lines of a body up to the first that belongs to what follows it."""
  text = response.replace('\r\n', '\n').strip('\n')
  if text and not text[0].isspace():
    text = indent + text  # the space before a base model's answer is cut
  lines = []
  for line in text.split('\n'):
    if line.strip() and not line[0].isspace():
      break
    lines.append(line)
  return '\n'.join(lines) + '\n'


@functools.lru_cache(4)
def _read(source):
  found = reading.rows(reading.place(source, NAMES))
  return [parse(row, where) for where, row in found]


def parse(row: dict, where: str) -> task.Example:
  """The Example of one row; a UserError starts with `where`."""
  text = lambda field: jsonl.text(row, field, where)
  question, name, _ = text('prompt'), text('entry_point'), text('task_id')
  coding.parse(question + _indent(question) + 'pass\n', 'prompt', where)
  if not re.search(rf'^def {re.escape(name)}\(', question, re.M):
    raise UserError(f"{where}: field 'entry_point': no function {name!r} in the prompt")
  code = question + text('canonical_solution')
  coding.parse(code, 'canonical_solution', where)
  test = coding.parse(text('test'), 'test', where)
  if not re.search(r'^def check\(', test, re.M):
    raise UserError(f"{where}: field 'test' has no function check")
  checks = (name, test, f'check({name})')
  return task.Example(question, f'```python\n{code.strip()}\n```', checks=checks)
