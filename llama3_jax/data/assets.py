"""Readers of public data sets in a folder: maths and code (3.1, 4.2).

Files, as in the data sets' own repositories:
  gsm8k/train.jsonl                      question, answer
  humaneval_mbpp/mbpp.jsonl              text, code, task_id, test_list

Preferences of people are read in data/people.py.
"""

import os
import pathlib
import re
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence

from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError

GSM8K = 'gsm8k/train.jsonl'
MBPP = 'humaneval_mbpp/mbpp.jsonl'
OPTIONAL = 'a text, which may be missing'
PROBLEM = {'question': str, 'answer': str}
TASK = {'text': str, 'code': str, 'task_id': int, 'test_list': list}
CALCULATION = re.compile(r'<<[^>]*>>')  # GSM8K's calls of a calculator


def maths_dialogs(folder: str | os.PathLike, count: int) -> list[dict]:
  """SFT rows of the first `count` problems of GSM8K's train split."""
  return [
    {
      'messages': [
        {'role': 'user', 'content': question},
        {'role': 'assistant', 'content': answer},
      ],
      'source': 'gsm8k',
    }
    for question, answer in _problems(folder)[:count]
  ]


def maths_documents(folder: str | os.PathLike, page: int = 8) -> Iterator[dict]:
  """Documents of `page` problems of GSM8K's train split with their solutions."""
  problems = _problems(folder)
  for start in range(0, len(problems), page):
    group = problems[start : start + page]
    text = '\n\n'.join(f'Question: {q}\nAnswer: {a}' for q, a in group)
    yield _document(text, 'gsm8k', start // page, 'math')


def code_documents(folder: str | os.PathLike) -> Iterator[dict]:
  """Documents of MBPP: a task as a comment, its program and its tests.

  Only the train split (601 to 974): the other splits are for evaluation.
  """
  for _, row in read(folder, MBPP, TASK):
    if 601 <= row['task_id'] <= 974:
      code = row['code'].replace('\r\n', '\n')
      tests = '\n'.join(row['test_list'])
      yield _document(
        f'# {row["text"]}\n{code}\n\n{tests}\n', 'mbpp', row['task_id'], 'code'
      )


def _problems(folder) -> Sequence[tuple[str, str]]:
  rows = read(folder, GSM8K, PROBLEM)
  return [(r['question'], CALCULATION.sub('', r['answer'])) for _, r in rows]


def _document(text, source, number, category):
  return {
    'text': text,
    'url': f'{source}:{number}',
    'date': '',
    'source': source,
    'lang': 'code' if category == 'code' else 'en',
    'category': category,
  }


def read(
  folder: str | os.PathLike, name: str, fields: Mapping[str, object]
) -> list[tuple[str, dict]]:
  """[(where, row)] of a JSONL file; UserError that names a missing file, or line and
  field.

  fields: {name: str, int, list (of texts) or OPTIONAL}.
  """
  rows = list(jsonl.read(find(folder, name), 'data'))
  for where, row in rows:
    for field, kind in fields.items():
      if field in row or kind is not OPTIONAL:
        check(row, field, kind, where)
  return rows


def find(folder: str | os.PathLike, name: str) -> pathlib.Path:
  """The file of a data set; UserError where it is not there."""
  path = pathlib.Path(folder) / name
  if not path.parent.parent.is_dir():
    raise UserError(f'data={folder}: no such folder; name one that holds {name}')
  if not path.exists():
    raise UserError(f'{path} is missing: data must name a folder that holds {name}')
  return path


def check(row: Mapping, field: str, kind: object, where: str) -> None:
  """Raises UserError unless the field has a value of its kind."""
  value = row.get(field)
  if kind in (str, OPTIONAL):
    jsonl.text(row, field, where)
  elif field not in row:
    raise UserError(f'{where}: field {field!r} is missing')
  elif type(value) is not kind or (
    kind is list and not all(isinstance(item, str) for item in value)
  ):
    expected = {int: 'a whole number', list: 'a list of texts'}[kind]
    raise UserError(f'{where}: field {field!r} is {value!r:.40}, not {expected}')
