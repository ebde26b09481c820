"""HellaSwag: how a scene goes on (arXiv 1905.07830), by likelihood."""

import re
from collections.abc import Mapping

from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError
from llama3_jax.tasks import choice
from llama3_jax.tasks import task


def create(source: str = '') -> task.Task:
  """The Task of 'TEST' or 'TEST,TRAIN'."""
  return choice.create(
    source, ('hellaswag.jsonl',), asked, task.plain, normalise='characters'
  )


def asked(row: Mapping, where: str) -> choice.Asked:
  """Asked of {"activity_label", "ctx_a", "ctx_b", "endings", "label": 0 to 3}."""
  label, first, second = (
    jsonl.text(row, name, where, *default)
    for name, *default in (('activity_label',), ('ctx_a',), ('ctx_b', ''))
  )
  ends = row.get('endings')
  if not isinstance(ends, list) or not all(isinstance(e, str) for e in ends):
    raise UserError(f'{where}: field endings is not a list of texts')
  labels = [str(i) for i in range(len(ends))]
  query = clean(f'{label}: {first} {second.capitalize()}')
  return query, [clean(e) for e in ends], choice.number(row, 'label', labels, where)


def clean(text: str) -> str:
  """Without the marks in brackets that the part of WikiHow has."""
  text = re.sub(r'\[.*?\]', '', text.strip().replace(' [title]', '. '))
  return text.replace('  ', ' ')
