"""ARC with its choices listed, answered by a letter: the paper's 25-shot form (5.1)."""

from llama3_jax.tasks import arc
from llama3_jax.tasks import choice
from llama3_jax.tasks import task


def create(source: str = '') -> task.Task:
  """The Task of 'TEST' or 'TEST,TRAIN'."""
  return choice.create(
    *(source, arc.NAMES, arc.asked, choice.question, made),
    prompt=choice.by_letter,
    shots=25,
  )


def made(question: str, choices: list[str], right: int) -> task.Example:
  """The Example answered by a letter."""
  return choice.lettered(question.removeprefix(arc.LEAD), choices, right)
