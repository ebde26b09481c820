"""ARC: science questions, each choice scored by its likelihood (arXiv 1803.05457).

By letters, as the paper asks ARC-Challenge: arc_letters.
"""

from collections.abc import Mapping

from llama3_jax.base import jsonl
from llama3_jax.tasks import choice
from llama3_jax.tasks import task

NAMES = ('arc_challenge.jsonl', 'arc_easy.jsonl')
LEAD = 'Question: '


def create(source: str = '') -> task.Task:
  """The Task of 'TEST' or 'TEST,TRAIN'."""
  return choice.create(
    source, NAMES, asked, choice.question, made, normalise='characters'
  )


def asked(row: Mapping, where: str) -> choice.Asked:
  """Asked of {"question", "choices": {"text", "label"}, "answerKey"}."""
  return choice.labelled(row, jsonl.text(row, 'question', where), where)


def made(question: str, choices: list[str], right: int) -> task.Example:
  """The Example, without the word before a question that some files have."""
  return choice.example(question.removeprefix(LEAD), choices, right)
