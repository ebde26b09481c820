"""BoolQ: yes or no about a passage (arXiv 1905.10044), by likelihood."""

from collections.abc import Mapping

from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError
from llama3_jax.tasks import choice
from llama3_jax.tasks import task

LEAD = 'Passage: '


def create(source: str = '') -> task.Task:
  """The Task of 'TEST' or 'TEST,TRAIN'."""
  return choice.create(source, ('boolq.jsonl',), asked, page, made)


def asked(row: Mapping, where: str) -> choice.Asked:
  """Asked of {"passage", "question", "answer": true or false, or "label": 0 or 1}."""
  passage, query = (jsonl.text(row, name, where) for name in ('passage', 'question'))
  answer = row.get('answer', row.get('label'))
  if answer not in (0, 1):  # also true and false
    raise UserError(f'{where}: field answer is {answer!r}, not true or false')
  ends = '' if query.rstrip().endswith('?') else '?'
  return f'{passage}\nQuestion: {query}{ends}', ['no', 'yes'], int(answer)


def made(question: str, choices: list[str], right: int) -> task.Example:
  """The Example, without the word before a passage that some files have."""
  return choice.example(question.removeprefix(LEAD), choices, right)


def page(e: task.Example) -> str:
  """The passage, its question, and 'Answer:'."""
  return f'{e.prompt}\nAnswer:'
