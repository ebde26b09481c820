"""COPA: the cause or the effect of a premise (SuperGLUE), by likelihood."""

from collections.abc import Mapping

from llama3_jax.base import jsonl
from llama3_jax.tasks import choice
from llama3_jax.tasks import task

WORDS = ('because', 'therefore')


def create(source: str = '') -> task.Task:
  """The Task of 'TEST' or 'TEST,TRAIN'."""
  return choice.create(source, ('copa.jsonl',), asked, task.plain)


def asked(row: Mapping, where: str) -> choice.Asked:
  """Asked of {"premise", "question": "cause" or "effect", "choice1", "choice2",
  "label": 0 or 1}."""
  premise, *ends = (
    jsonl.text(row, name, where) for name in ('premise', 'choice1', 'choice2')
  )
  word = WORDS[choice.number(row, 'question', ('cause', 'effect'), where)]
  ends = [end[:1].lower() + end[1:] for end in ends]
  right = choice.number(row, 'label', ('0', '1'), where)
  return f'{premise.strip()[:-1]} {word}', ends, right
