"""Files of benchmarks: where they are, rows, no id twice, a task of them (5.1).

A source is 'TEST' or 'TEST,TRAIN': files, or folders that hold one of a known name. Of
'TEST,TEST' the solved examples are other questions of the same file, where a benchmark
has no others. No file comes from a network.
"""

import functools
import pathlib
import random
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence

from absl import logging

from llama3_jax.base import rows as files
from llama3_jax.base.errors import UserError
from llama3_jax.tasks import task


class Absent(UserError):
  """The files of a benchmark are not there."""


CONTEXT = 'context'  # what is before the answer, in many published files
# Fields by which published benchmarks number their questions.
IDS = (
  'id',
  'task_id',
  'ID',
  'qid',
  'qID',
  'question_id',
  'QuestionId',
  'unique_id',
  'idx',
)


def create(
  source: str,
  names: Sequence[str],
  parse: Callable[[Mapping, str], task.Example | list[task.Example]],
  whole: Callable[[list[task.Example]], list[task.Example]] = list,
  **more: object,
) -> task.Task:
  """The Task whose examples are the rows of the source's files.

  names: of a file in a folder that is named instead, or in its folder eval_sets.
  parse: (row, where) -> its Example or Examples; a UserError starts with `where`.
  whole: the Examples of a file, in its order, -> those that are asked.
  more: fields of the Task.
  """

  def read(path):
    found = []
    for where, row in rows(place(path, names)):
      made = parse(row, where)
      found += [made] if isinstance(made, task.Example) else made
    return whole(once(found, path))

  return task.Task(**dict(shots=0) | splits(source, names[0], read) | more)


def splits(
  source: str,
  name: str,
  read: Callable[[str], list[task.Example]],
  key: Callable[[task.Example], object] = lambda e: e.prompt,
) -> dict[str, Callable]:
  """The fields `examples` and `solved` of a Task of the files 'TEST' or 'TEST,TRAIN',
  shuffled; nothing of TRAIN whose key is in TEST.

  name: of the file, for an error without a source; read: (file) -> its Examples. Of
  'TEST,TEST', the solved examples of a question are the first ones of a fixed order
  without itself, and there are none to train on.
  """
  test, _, train = source.partition(',')
  read = functools.cache(read)

  def examples(split, n, seed):
    if split == 'train' and train == test:
      raise UserError(
        f'tasks: {source}: {name} is asked, nothing of it is for training: '
        'write TEST,TRAIN'
      )
    if split == 'train' and not train:
      raise UserError(
        f'tasks: {source or name} names no file of solved rows: write TEST,TRAIN, '
        'or --config.shots=0'
      )
    found = read(test)
    if split == 'train':
      asked = set(map(key, found))
      found = [e for e in read(train) if key(e) not in asked]
    found = list(found)  # what was read is not put in order
    random.Random(f'{seed}/{split}').shuffle(found)
    return found[:n]

  def solved(e, n):
    found = list(read(test))
    random.Random('solved').shuffle(found)
    return [other for other in found[: n + 1] if key(other) != key(e)][:n]

  return {'examples': examples, 'solved': solved if train == test else None}


def held_out(split: str, name: str) -> None:
  """Raises a UserError for the train split of a benchmark that is held out whole."""
  if split == 'train':
    raise _fewer(
      f'{name} is held out as a whole: there are no solved examples of it and no rows '
      'to train on',
      0,
    )


def first(
  found: Sequence[task.Example], n: int, name: str, there: int | None = None
) -> Sequence[task.Example]:
  """The first `n` solved examples; a UserError where fewer are there.

  name: of the benchmark and, for the error, of its part that they are of.
  there: how many there are, where `found` is not what is shown.
  """
  there = len(found) if there is None else there
  if n > there:
    raise _fewer(f'{name} has {there} solved examples, not {n}', there)
  return found[:n]


def _fewer(why, most):
  return UserError(f'tasks: {why}: ask it with --config.shots={most}, or in a chat')


def place(source: str, names: Sequence[str]) -> pathlib.Path:
  """The file of a source: itself, or the one of `names` in a folder."""
  if not source:
    raise UserError(f"tasks: the file is missing: write '=FILE' with {names[0]}")
  folder = pathlib.Path(source)
  if not folder.is_dir():
    return folder
  places = [at / name for at in (folder, folder / 'eval_sets') for name in names]
  for path in places:
    if path.is_file():
      return path
  raise Absent(f'tasks: {source}: no file {places[0]} is there')


def lines(path: pathlib.Path) -> list[str]:
  """The lines of a text; UserError where it is not UTF-8."""
  try:
    return path.read_bytes().decode('utf-8-sig').rstrip('\n').split('\n')
  except UnicodeDecodeError as error:
    raise UserError(f'{path}: not UTF-8 ({error.reason})') from None


def rows(path: pathlib.Path) -> Iterator[tuple[str, dict]]:
  """Yields (where, row) of a file; a UserError names an id that is there twice.

  Beside the kinds of base/rows.py it may be .tsv: names of the fields on the first
  line, and no quoting, as published.
  """
  seen = {}
  given = _tabbed(path) if path.suffix == '.tsv' else files.read(path, 'tasks')
  for where, row in given:
    name = next((name for name in IDS if name in row), '')
    if name and isinstance(row[name], (str, int)):
      first = seen.setdefault((name, row[name]), where)
      if first != where:
        raise UserError(f'{where}: {name} {row[name]!r} is also in {first}')
    yield where, row


def _tabbed(path):
  """Yields (where, row) of a file of cells between tabs."""
  if not path.is_file():
    raise UserError(f'tasks: {path} does not exist')
  names, *others = (line.rstrip('\r').split('\t') for line in lines(path))
  if not others:
    raise UserError(f'tasks: {path} holds no rows')
  for i, cells in enumerate(others, 2):
    if len(cells) != len(names):
      raise UserError(
        f'{path}, line {i}: {len(cells)} cells, not {len(names)} as the first line has'
      )
    yield f'{path}, line {i}', dict(zip(names, cells))


def once(found: Sequence[task.Example], path: str) -> list[task.Example]:
  """The examples without questions that were asked before, with a warning."""
  kept = list({e.prompt: e for e in reversed(found)}.values())[::-1]
  if len(kept) < len(found):
    count = len(found) - len(kept)
    logging.warning('%s: %d questions are there before: left out', path, count)
  return kept


def texts(value: object, name: str, where: str, least: int = 1) -> list[str]:
  """The value of a field that is a list of texts, at least so many."""
  if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
    raise UserError(f'{where}: field {name!r} is not a list of texts')
  if len(value) < least:
    raise UserError(f'{where}: field {name!r} is empty')
  return value
