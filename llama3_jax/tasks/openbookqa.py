"""OpenBookQA: science facts applied (arXiv 1809.02789), by likelihood."""

from collections.abc import Mapping

from llama3_jax.base import jsonl
from llama3_jax.tasks import choice
from llama3_jax.tasks import task

NAMES = ('openbook_qa.jsonl', 'openbookqa.jsonl')


def create(source: str = '') -> task.Task:
  """The Task of 'TEST' or 'TEST,TRAIN'."""
  return choice.create(source, NAMES, asked, task.plain, normalise='characters')


def asked(row: Mapping, where: str) -> choice.Asked:
  """Asked of {"question_stem", "choices": {"text", "label"}, "answerKey"}."""
  return choice.labelled(row, jsonl.text(row, 'question_stem', where), where)
