"""BFCL: calls of functions that a question needs, or none (5.2).

--config.tasks="('bfcl=DIR',)": DIR holds bfcl/simple_python.json, multiple.json,
parallel.json, parallel_multiple.json with answers/ of the same names, and
irrelevance.json; 'bfcl=DIR,parallel' asks one category. Calls are read in every form
that `tools/parser.py` knows, and compared by their syntax; nothing is run. All rows are
held out.
"""

import json
import pathlib
import random
from collections.abc import Mapping
from collections.abc import Sequence

from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError
from llama3_jax.tasks import calls
from llama3_jax.tasks import reading
from llama3_jax.tasks import task
from llama3_jax.tools import parser
from llama3_jax.tools import prompt as prompts
from llama3_jax.tools import registry

CATEGORIES = ('simple', 'multiple', 'parallel', 'parallel_multiple', 'irrelevance')
NONE = 'None of these functions helps.'
RULE = 'Write several calls as a JSON list. Where no function helps, say so in words.'
# Of JSON, for the names that the data has.
TYPES = {'dict': 'object', 'float': 'number', 'tuple': 'array', 'any': 'string'}


def create(source: str = '') -> task.Task:
  """The Task of a folder, 'DIR' or 'DIR,CATEGORY'."""
  folder, _, category = source.partition(',')
  if not folder:
    raise UserError('tasks: bfcl needs its folder: write bfcl=DIR')
  if category and category not in CATEGORIES:
    known = ', '.join(CATEGORIES)
    raise UserError(f'tasks: bfcl={source}: category {category!r} is none of {known}')
  chosen = (category,) if category else CATEGORIES

  def examples(split, n, seed):
    reading.held_out(split, 'bfcl')
    found = [e for name in chosen for e in read(folder, name)]
    random.Random(f'{seed}/{split}/bfcl').shuffle(found)
    return found[:n]

  return task.Task(
    examples,
    score,
    page=lambda e: f'{e.prompt}\n',
    stop='\n\n',
    max_new=512,
    summary=summary,
    shots=0,
  )


def read(folder: str, category: str) -> list[task.Example]:
  """The Examples of a category; a UserError names file and line."""
  path = _file(folder, category)
  answers = {}
  if category != 'irrelevance':
    other = path.parent / 'answers' / path.name
    if not other.is_file():
      raise UserError(f'tasks: bfcl={folder}: {other} is not there')
    for where, row in jsonl.read(other, 'tasks'):
      answers[jsonl.text(row, 'id', where)] = (where, row.get('ground_truth'))
  found, seen = [], {}
  for where, row in jsonl.read(path, 'tasks'):
    key = jsonl.text(row, 'id', where)
    if key in seen:
      raise UserError(f'{where}: id {key} is also in {seen[key]}')
    seen[key] = where
    answer = answers.get(key)
    if answer is None and category != 'irrelevance':
      raise UserError(f'{where}: there is no answer to {key} in answers/{path.name}')
    found.append(parse(row, category, where, *(answer or ('', []))))
  return found


def _file(folder, category):
  names = [category, f'{category}_python', f'BFCL_v4_{category}']
  top = pathlib.Path(folder)
  places = [p / f'{n}.json' for p in (top / 'bfcl', top) for n in names]
  for place in places:
    if place.is_file():
      return place
  raise reading.Absent(f'tasks: bfcl={folder}: {places[0]} is not there')


def parse(
  row: Mapping, category: str, where: str, answered: str, answers: object
) -> task.Example:
  """The Example of one row and its answers; a UserError starts with its place.

  `checks` are the category, the definitions and the answers, the last two as JSON.
  """
  functions = row.get('function')
  if not isinstance(functions, list) or not functions:
    raise UserError(f"{where}: field 'function' is not a list of definitions")
  for one in functions:
    rule = registry.declared(one, where).parameters
    if not isinstance(rule.get('required', []), list):
      raise UserError(f"{where}: field 'required' of {one['name']} is not a list")
    for name, value in rule.get('properties', {}).items():
      if not _known(value):
        raise UserError(f'{where}: argument {name} of {one["name"]} has no known type')
  _check(answers, [one['name'] for one in functions], answered)
  asked = _question(row, where)
  schemas = [registry.declared(_json_types(one), where).schema for one in functions]
  checks = (category, json.dumps(functions), json.dumps(answers))
  prompt = f'{prompts.functions(schemas)}{RULE}\n\n{asked}'
  return task.Example(prompt, written(answers), checks=checks)


def _known(value):
  """Whether the definition of an argument, and of its items, has a known type."""
  kinds = [value, value.get('items', value)] if isinstance(value, dict) else [None]
  return all(isinstance(k, dict) and k.get('type') in calls.TYPES for k in kinds)


def _question(row, where):
  """The text of the one question that a row asks."""
  asked = row.get('question')
  try:
    [[message]] = asked
    text = message['content']
  except (TypeError, ValueError, KeyError):
    text = None
  if not isinstance(text, str):
    raise UserError(f"{where}: field 'question' is not one message of a user")
  return text


def _check(answers, names, where):
  """Raises UserError unless answers are [{name: {argument: [values]}}]."""
  due = "field 'ground_truth' is not a list of {NAME: {ARGUMENT: [VALUES]}}"
  if not isinstance(answers, list):
    raise UserError(f'{where}: {due}')
  for one in answers:
    if not isinstance(one, dict) or len(one) != 1:
      raise UserError(f'{where}: {due}')
    [(name, values)] = one.items()
    if not isinstance(values, dict) or not all(
      isinstance(v, list) and v for v in values.values()
    ):
      raise UserError(f'{where}: {due}')
    if name not in names:
      raise UserError(f'{where}: {name} is none of the functions of its question')


def _json_types(value):
  """A definition with the names of types that JSON schemas have."""
  if isinstance(value, dict):
    one = {key: _json_types(v) for key, v in value.items()}
    if isinstance(one.get('type'), str):
      one['type'] = TYPES.get(one['type'], one['type'])
    return one
  return [_json_types(v) for v in value] if isinstance(value, list) else value


def written(answers: Sequence[Mapping]) -> str:
  """The first right answer as a text: a call, or a JSON list of them."""
  rows = []
  for one in answers:
    [(name, values)] = one.items()
    given = {k: _first(v) for k, v in values.items() if v[0] != ''}
    rows.append({'name': name, 'parameters': given})
  if not rows:
    return NONE
  return json.dumps(rows[0] if len(rows) == 1 else rows)


def _first(right):
  """The first of right values; those of an object's keys are lists again."""
  value = right[0]
  return _inside(value)


def _inside(value):
  if isinstance(value, list):
    return [_inside(one) for one in value]
  if not isinstance(value, dict):
    return value
  lists = {k: v for k, v in value.items() if isinstance(v, list) and v}
  return {k: _inside(v[0]) for k, v in lists.items() if v[0] != ''}


def score(example: task.Example, response: str) -> float:
  """1.0 when the response is the right calls, or no call where none is right."""
  category, functions, answers = example.checks
  functions = json.loads(functions)
  tools = [registry.declared(_json_types(one), 'bfcl') for one in functions]
  try:
    made = parser.read(response, tools)
  except (parser.Unreadable, RecursionError):
    made = ()
  if category == 'irrelevance':
    return float(not made)
  return float(calls.same(functions, made, json.loads(answers)))


summary = task.by_kind(score, 'average')
