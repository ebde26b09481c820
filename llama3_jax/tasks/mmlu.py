"""MMLU: questions of 57 subjects, answered by a letter (arXiv 2009.03300; 5.1).

The source is the folder or the zip of its CSV files, or 'SOURCE,SUBJECT': dev/ has the
solved questions of each subject, test/ what is asked. The summary has the mean over
subjects, which is the paper's number, and every subject.
"""

import csv
import io
import pathlib
import random
import re
import zipfile
from collections.abc import Iterator

from llama3_jax.base.errors import UserError
from llama3_jax.tasks import choice
from llama3_jax.tasks import reading
from llama3_jax.tasks import task

PARTS = {'heldout': 'test', 'train': 'dev'}
FILE = re.compile(r'(?:.*/)?(dev|test)/([a-z_]+)_(?:dev|test)\.csv')
CHOICES = 4


def create(source: str = '') -> task.Task:
  """The Task of 'SOURCE' or 'SOURCE,SUBJECT'."""
  place, _, subject = source.partition(',')
  known = {}

  def rows(split):
    if split not in known:
      known[split] = read(place, PARTS[split], subject)
    return known[split]

  def examples(split, n, seed):
    return [e for e in _in_turns(rows(split), f'{seed}/{split}')][:n]

  def solved(e, n):
    [subject] = e.checks
    return reading.first(rows('train').get(subject, []), n, f'mmlu ({subject})')

  return task.Task(
    examples,
    prompt=choice.by_letter,
    page=page,
    context=choice.context(page, intro),
    solved=solved,
    summary=summary,
    shots=5,
  )


def page(e: task.Example) -> str:
  """The question with its choices, and 'Answer:'."""
  return f'{e.prompt}\nAnswer:'


def intro(e: task.Example) -> str:
  """The line before the questions of a subject, as published."""
  subject = e.checks[0].replace('_', ' ')
  return (
    f'The following are multiple choice questions (with answers) about {subject}.\n\n'
  )


summary = task.by_kind(task.exact, 'mean over subjects')


def read(source: str, part: str, subject: str = '') -> dict[str, list[task.Example]]:
  """{subject: Examples, in order} of 'dev' or 'test'; a UserError names the line."""
  found = {}
  for name, where, text in _files(source):
    match = FILE.fullmatch(name)
    if match and match[1] == part and subject in ('', match[2]):
      found[match[2]] = [
        _example(cells, match[2], f'{where}, line {line}') for line, cells in _csv(text)
      ]
  if not any(found.values()):
    what = f'{part}/{subject or "SUBJECT"}_{part}.csv'
    raise reading.Absent(
      f'tasks: mmlu={source}: no file {what} with questions is there'
    )
  return dict(sorted(found.items()))


def _example(cells, subject, where):
  if len(cells) != CHOICES + 2 or cells[-1].strip() not in choice.LETTERS[:CHOICES]:
    raise UserError(f'{where}: not a question, four choices and a letter of A to D')
  query, *choices, letter = (cell.strip() for cell in cells)
  right = choice.LETTERS.index(letter)
  made = choice.lettered(query, choices, right)
  return task.Example(made.prompt, made.answer, choices=made.choices, checks=(subject,))


def _in_turns(found, seed):
  """Examples in an order of the seed, one of each subject in turn."""
  rng, ranked = random.Random(seed), []
  for rows in found.values():
    order = rng.sample(rows, len(rows))
    ranked += [(rank, e) for rank, e in enumerate(order)]
  return [e for _, e in sorted(ranked, key=lambda pair: pair[0])]


def _csv(text):
  reader = csv.reader(io.StringIO(text, newline=''))
  for cells in reader:
    if cells:
      yield reader.line_num, cells


def _files(source: str) -> Iterator[tuple[str, str, str]]:
  """Yields (name, name for errors, text) of the CSV files of a folder or a zip."""
  path = pathlib.Path(source or '.')
  path = path / 'mmlu' if (path / 'mmlu').is_dir() else path
  if not source or not path.exists():
    raise reading.Absent(
      f'tasks: mmlu={source}: write the folder or the zip of its files'
    )
  zips = [path] if path.is_file() else sorted(path.glob('*.zip'))
  try:
    for file in zips:
      with zipfile.ZipFile(file) as packed:
        for name in sorted(packed.namelist()):
          if FILE.fullmatch(name):
            yield name, f'{file}: {name}', packed.read(name).decode('utf-8-sig')
    for file in sorted(path.rglob('*.csv')) if path.is_dir() else ():
      yield file.as_posix(), str(file), file.read_text(encoding='utf-8-sig')
  except (zipfile.BadZipFile, UnicodeDecodeError) as error:
    raise UserError(f'tasks: mmlu={source}: unreadable ({error})') from None
