"""HumanEval in JavaScript (MultiPL-E, 5.1.4): --config.tasks="('humaneval_js=DIR',)".

The folder holds human_eval_js.jsonl, of rows {task_id, prompt, entry_point, test,
canonical_solution}, or a row is as MultiPL-E has it, {name, prompt, tests} (arXiv
2208.08227). An answer is run in the sandbox, by an engine that the extra `javascript`
installs. All questions are held out.
"""

import functools
import random
import re
from collections.abc import Mapping

from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError
from llama3_jax.tasks import coding
from llama3_jax.tasks import javascript
from llama3_jax.tasks import reading
from llama3_jax.tasks import task

FILES = ('human_eval_js.jsonl', 'humaneval-js.jsonl')
NAMES = (*(f'humaneval_mbpp/{name}' for name in FILES), *FILES)
LEAD = 'Complete this JavaScript function. Answer with the whole function, in a block.'
STOP = '\n}'  # the end of a function: the brace is put back
NAME = re.compile(r'[A-Za-z_$][\w$]*')
WORDS = r'(?:const|let|var|(?:async[ \t]+)?function\*?|class)'
BEGINS = re.compile(rf'^(?:{WORDS}\b|/\*|//|[\'"]use strict)', re.M)
FUNCTION = re.compile(rf'^{WORDS}[ \t]+({NAME.pattern})', re.M)


def create(source: str = '') -> task.Task:
  """The Task of human_eval_js.jsonl: the file, or a folder that holds it."""
  javascript.installed('humaneval_js')

  def examples(split, n, seed):
    reading.held_out(split, 'humaneval_js')
    found = list(_read(source))
    random.Random(f'{seed}/{split}').shuffle(found)
    return found[:n]

  how = coding.scored(program, javascript.PACKAGES)
  return task.Task(
    examples, prompt=prompt, page=task.plain, stop=STOP, max_new=512, shots=0, **how
  )


def prompt(example: task.Example) -> str:
  """The function without its body, in a block."""
  return f'{LEAD}\n```javascript\n{example.prompt.rstrip()}\n```'


def program(example: task.Example, response: str) -> str:
  """A program of Python: the function, whole or completed by its body, and its test."""
  name, test = example.checks
  begin = [m for m in FUNCTION.finditer(example.prompt) if m[1] == name][-1].start()
  # Of a function: a local of its body may have its name.
  declared = re.compile(
    rf'^[ \t]*(?:(?:async[ \t]+)?function\*?|class|'
    rf'(?:const|let|var)(?=[^\n]*(?:=>|\bfunction\b|\([ \t]*$)))'
    rf'[ \t]+{re.escape(name)}(?![\w$])',
    re.M,
  )
  text = response.replace('\r\n', '\n')
  code = coding.extract(text, BEGINS)
  if not declared.search(code):
    block = coding.FENCE.search(text)
    code = example.prompt[begin:] + _body(block[1] if block else text)
  return javascript.program(example.prompt[:begin], code, name, test)


def _body(text):
  """The lines of a body up to the brace that ends it."""
  lines = []
  for line in text.split('\n'):
    if line.startswith('}'):
      break
    lines.append(line)
  return '\n'.join([*lines, '}'])


@functools.lru_cache(4)
def _read(source):
  path = reading.place(source, NAMES)
  return reading.once([parse(row, where) for where, row in reading.rows(path)], path)


def parse(row: Mapping, where: str) -> task.Example:
  """The Example of one row; a UserError starts with `where`. `checks` are the name of
  the function and its test."""
  text = lambda *field: jsonl.text(row, field[0], where, *field[1:])
  question, own = text('prompt'), 'tests' in row
  test, code = text('tests' if own else 'test'), text('canonical_solution', '')
  names = FUNCTION.findall(question)
  if not names:
    raise UserError(f"{where}: field 'prompt' begins no function")
  name = names[-1]  # what has no body yet: entry_point may name a function before it
  if not own and text('entry_point') not in names:
    raise UserError(
      f"{where}: field 'entry_point' is {row['entry_point']!r}, but the functions of "
      f'the prompt are {", ".join(names)}'
    )
  if not test.strip():
    raise UserError(f"{where}: field '{'tests' if own else 'test'}' is empty")
  answer = f'```javascript\n{(question + code).strip()}\n```' if code else ''
  return task.Example(question, answer, checks=(name, test))
