"""Sort: put single digits in rising order."""

import random

from llama3_jax.tasks import task


def make(rng: random.Random) -> task.Example:
  """An Example of 3 to 6 different digits."""
  digits = [str(d) for d in rng.sample(range(10), rng.randint(3, 6))]
  answer = ' '.join(sorted(digits))
  return task.Example(f'Sort: {" ".join(digits)}', answer)


def create(source: str = '') -> task.Task:
  """The Task; it has no source."""
  del source
  return task.generated('sort', make)
