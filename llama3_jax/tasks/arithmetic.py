"""Arithmetic: the sum or the difference of two digits."""

import random

from llama3_jax.tasks import task


def make(rng: random.Random) -> task.Example:
  """An Example of two random digits."""
  a, b = rng.randint(0, 9), rng.randint(0, 9)
  if rng.random() < 0.5 and a >= b:
    question, answer = f'{a} - {b}', a - b
  else:
    question, answer = f'{a} + {b}', a + b
  return task.Example(f'Compute: {question}', str(answer))


def create(source: str = '') -> task.Task:
  """The Task; it has no source."""
  del source
  return task.generated('arithmetic', make)
