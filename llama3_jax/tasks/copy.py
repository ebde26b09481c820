"""Copy: repeat the words, in order."""

import random

from llama3_jax.tasks import task


def make(rng: random.Random) -> task.Example:
  """An Example of 3 to 8 random words."""
  answer = ' '.join(task.words(rng, rng.randint(3, 8)))
  return task.Example(f'Copy: {answer}', answer)


def create(source: str = '') -> task.Task:
  """The Task; it has no source."""
  del source
  return task.generated('copy', make)
