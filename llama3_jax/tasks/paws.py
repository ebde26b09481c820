"""PAWS: whether two sentences of almost the same words mean the same (5.1.2).

--config.tasks="('paws=TEST,TRAIN',)": TSV as published (id, sentence1, sentence2,
label), JSONL, Parquet or CSV; label 1: they do (arXiv 1904.01130). The answer is the
first word, yes or no. The summary has each of the two, and their mean.
"""

import re
from collections.abc import Mapping

from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError
from llama3_jax.tasks import choice
from llama3_jax.tasks import reading
from llama3_jax.tasks import task

NAMES = ('paws.jsonl', 'paws/test.tsv', 'test.tsv')
ANSWERS = ('No', 'Yes')
ASK = 'Do the two sentences mean the same? Answer Yes or No.'


def create(source: str = '') -> task.Task:
  """The Task of 'TEST' or 'TEST,TRAIN'."""
  return reading.create(
    *(source, NAMES, parse),
    score=score,
    page=page,
    context=choice.context(page),
    max_new=32,
    summary=summary,
    shots=5,
  )


def page(e: task.Example) -> str:
  """The two sentences and the question, up to the answer."""
  return f'{e.prompt}\nAnswer:'


def parse(row: Mapping, where: str) -> task.Example:
  """The Example of one row; a UserError starts with `where`."""
  one, two = (jsonl.text(row, f'sentence{i}', where).strip() for i in (1, 2))
  label = row.get('label')
  if isinstance(label, bool) or str(label) not in ('0', '1'):
    raise UserError(f"{where}: field 'label' is {label!r}, not 0 or 1")
  if not one or not two:
    raise UserError(f'{where}: a sentence is empty')
  asked = f'Sentence 1: {one}\nSentence 2: {two}\n{ASK}'
  answer = ANSWERS[int(label)]
  return task.Example(asked, answer, checks=(answer,))


def score(e: task.Example, response: str) -> float:
  """1.0 when the first word of the response is the answer, in any case."""
  word = re.search(r'\w+', response)
  return float(word is not None and word[0].lower() == e.answer.lower())


summary = task.by_kind(score, 'mean of both')
