"""API-Bank, level 1: the next call of a dialog whose functions are given (5.2).

--config.tasks="('api_bank=DIR',)": DIR holds api_bank/level1.jsonl, or is that file. A
row is {"file", "turns"}; a turn is {"role": "User" | "AI", "text"} or {"role": "API",
"api_name", "param_dict", "result"}. Every API turn is a question: the dialog before it
and the functions that this dialog uses are shown, and the call is right when its name
and its arguments are. The file defines no function: what is told of one are the
arguments that it is called with. All rows are held out.
"""

import json
import pathlib
import random
from collections.abc import Mapping
from collections.abc import Sequence

from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError
from llama3_jax.tasks import reading
from llama3_jax.tasks import task
from llama3_jax.tools import parser
from llama3_jax.tools import prompt as prompts
from llama3_jax.tools import registry

FILES = ('api_bank/level1.jsonl', 'level1.jsonl')
SPEAKERS = {'User': 'User', 'AI': 'Assistant'}
ASK = 'Write the next call of a function in this dialog, and nothing else.'


def create(source: str = '') -> task.Task:
  """The Task of level1.jsonl: the file, or a folder that holds it."""
  if not source:
    raise UserError('tasks: api_bank needs its folder: write api_bank=DIR')

  def examples(split, n, seed):
    reading.held_out(split, 'api_bank')
    found = read(reading.place(source, FILES))
    random.Random(f'{seed}/{split}/api_bank').shuffle(found)
    return found[:n]

  page = lambda e: f'{e.prompt}\n'
  return task.Task(examples, score, page=page, max_new=256, shots=0)


def read(path: pathlib.Path) -> list[task.Example]:
  """The Examples of a file, each question once; a UserError names the line."""
  rows = [(where, turns(row, where)) for where, row in jsonl.read(path, 'tasks')]
  uses = {}
  for _, every in rows:
    for turn in every:
      if turn['role'] == 'API':
        uses.setdefault(turn['api_name'], []).append(turn['param_dict'])
  found, seen = [], set()
  for _, every in rows:
    for i, turn in enumerate(every):
      if turn['role'] == 'API':
        example = _example(every[:i], turn, every, uses)
        found += [example] if example.prompt not in seen else []
        seen.add(example.prompt)
  if not found:
    raise UserError(f'{path}: no turn calls a function')
  return found


def turns(row: Mapping, where: str) -> list[dict]:
  """The turns of a row; a UserError starts with `where`."""
  every = row.get('turns')
  if not isinstance(every, list) or not all(isinstance(t, dict) for t in every):
    raise UserError(f"{where}: field 'turns' is not a list of turns")
  for i, turn in enumerate(every, 1):
    role = turn.get('role')
    if role in SPEAKERS:
      jsonl.text(turn, 'text', f'{where}, turn {i}')
    elif role != 'API':
      raise UserError(f'{where}, turn {i}: role {role!r} is none of User, AI, API')
    else:
      jsonl.text(turn, 'api_name', f'{where}, turn {i}')
      if not isinstance(turn.get('param_dict'), dict):
        raise UserError(f"{where}, turn {i}: field 'param_dict' is not an object")
  return every


def _example(before, turn, every, uses):
  names = dict.fromkeys(t['api_name'] for t in every if t['role'] == 'API')
  schemas = [defined(name, uses[name]) for name in names]
  shown = '\n'.join(map(_line, before))
  prompt = f'{prompts.functions(schemas)}{ASK}\n\n{shown}'
  call = {'name': turn['api_name'], 'parameters': turn['param_dict']}
  checks = (json.dumps(schemas), json.dumps(call))
  return task.Example(prompt, json.dumps(call, ensure_ascii=False), checks=checks)


def defined(name: str, uses: Sequence[Mapping]) -> dict:
  """The definition of a function from the arguments that it is called with."""
  known = dict.fromkeys(key for use in uses for key in use)
  rule = {
    'type': 'object',
    'properties': {key: {'type': 'string'} for key in known},
    'required': [key for key in known if all(key in use for use in uses)],
  }
  return {'type': 'function', 'function': {'name': name, 'parameters': rule}}


def _line(turn):
  if turn['role'] in SPEAKERS:
    return f'{SPEAKERS[turn["role"]]}: {" ".join(turn["text"].split())}'
  call = {'name': turn['api_name'], 'parameters': turn['param_dict']}
  result = turn.get('result')
  output = result.get('output') if isinstance(result, dict) else result
  return f'Call: {json.dumps(call)}\nResult: {json.dumps(output)}'


def score(example: task.Example, response: str) -> float:
  """1.0 when the response is the one call, with the same arguments as texts."""
  schemas, answer = map(json.loads, example.checks)
  tools = [registry.declared(row, 'api_bank') for row in schemas]
  try:
    made = parser.read(response, tools)
  except (parser.Unreadable, RecursionError):
    return 0.0
  right = {k: _text(v) for k, v in answer['parameters'].items()}
  return float(
    len(made) == 1
    and made[0].name == answer['name']
    and {k: _text(v) for k, v in made[0].arguments.items()} == right
  )


def _text(value):
  return value.strip() if isinstance(value, str) else json.dumps(parser.plain(value))
