"""IFEval: instructions that a program can check (5.2).

--config.tasks="('ifeval=DIR',)", where
DIR holds ifeval/input_data.jsonl, or is that file. A row is {"key", "prompt",
"instruction_id_list", "kwargs"}. The score is prompt-level strict: 1.0 when all
instructions of a prompt are followed. All rows are held out.
"""

import pathlib
import random
from collections.abc import Sequence

from llama3_jax.base import jsonl
from llama3_jax.base import rows as files
from llama3_jax.base.errors import UserError
from llama3_jax.tasks import reading
from llama3_jax.tasks import task
from llama3_jax.tasks.instructions import kinds

NAMES = ('input_data.jsonl', 'input_data_first_half.jsonl')
FIELDS = ('key', 'prompt', 'instruction_id_list', 'kwargs')
MAX_NEW = 1280  # that of the public harness: prompts ask for up to 900 words


def create(source: str = '') -> task.Task:
  """The Task of a folder or a file of IFEval."""
  path = _file(source)

  def examples(split, n, seed):
    reading.held_out(split, 'ifeval')
    found = read(path)
    random.Random(f'{seed}/{split}').shuffle(found)
    return found[:n]

  return task.Task(
    *(examples, score),
    **dict(page=task.plain, stop='', max_new=MAX_NEW, summary=summary, shots=0),
  )


def _file(source):
  """The file of rows that the text after 'ifeval=' names."""
  if not source:
    raise UserError("tasks: ifeval needs its folder or file: write 'ifeval=FOLDER'")
  folder = pathlib.Path(source)
  if not folder.is_dir():
    return folder
  places = [place / name for place in (folder / 'ifeval', folder) for name in NAMES]
  for place in places:
    if place.is_file():
      return place
  raise reading.Absent(f'tasks: ifeval={source}: no file {places[0]} is there')


def read(path: pathlib.Path) -> list[task.Example]:
  """The Examples of a file; a UserError names the line."""
  found, seen = [], {}
  for where, row in files.read(path, 'tasks'):
    example = parse(row, where)
    if first := seen.get(example.prompt):
      raise UserError(f'{where}: its prompt is that of {first}: remove one of them')
    seen[example.prompt] = where
    found.append(example)
  return found


def parse(row: dict, where: str) -> task.Example:
  """The Example of one row: `checks` are its instructions, the answer their names."""
  jsonl.known(row, FIELDS, where)
  prompt = jsonl.text(row, 'prompt', where)
  names, given = (row.get(field) for field in FIELDS[2:])
  for field, value in zip(FIELDS[2:], (names, given)):
    if not isinstance(value, list) or not value:
      raise UserError(f'{where}: field {field} is not a list with an instruction each')
  if len(names) != len(given):
    raise UserError(f'{where}: {len(names)} instructions, but {len(given)} kwargs')
  pairs = zip(names, given)
  checks = tuple(kinds.checked(name, fields, where) for name, fields in pairs)
  return task.Example(prompt, ', '.join(name for name, _ in checks), checks=checks)


def score(example: task.Example, response: str) -> float:
  """1.0 when all instructions are followed: prompt-level, strict."""
  return float(all(kinds.followed(one, response) for one in example.checks))


def details(example: task.Example, response: str) -> dict[str, list[bool]]:
  """{'strict', 'loose': whether each instruction is followed}."""
  return {
    'strict': [kinds.followed(one, response) for one in example.checks],
    'loose': [kinds.followed_loosely(one, response) for one in example.checks],
  }


def summary(
  examples: Sequence[task.Example], responses: Sequence[str]
) -> dict[str, float]:
  """The four published scores, and 'average', their mean, which Llama 3's table has."""
  judged = [details(e, r) for e, r in zip(examples, responses, strict=True)]
  found = {}
  for how in ('strict', 'loose'):
    rows = [one[how] for one in judged]
    found[f'prompt_{how}'] = sum(map(all, rows)) / max(len(rows), 1)
    every = [value for row in rows for value in row]
    found[f'instruction_{how}'] = sum(every) / max(len(every), 1)
  return found | {'average': sum(found.values()) / len(found)}
