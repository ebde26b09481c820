"""PIQA: which of two ways reaches a goal (arXiv 1911.11641), by likelihood."""

from collections.abc import Mapping

from llama3_jax.base import jsonl
from llama3_jax.tasks import arc
from llama3_jax.tasks import choice
from llama3_jax.tasks import task


def create(source: str = '') -> task.Task:
  """The Task of 'TEST' or 'TEST,TRAIN'."""
  return choice.create(
    *(source, ('piqa.jsonl',), asked, choice.question, arc.made),
    normalise='characters',
  )


def asked(row: Mapping, where: str) -> choice.Asked:
  """Asked of {"goal", "sol1", "sol2", "label": 0 or 1}."""
  goal, *ways = (jsonl.text(row, name, where) for name in ('goal', 'sol1', 'sol2'))
  return goal, ways, choice.number(row, 'label', ('0', '1'), where)
