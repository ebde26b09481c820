"""Arithmetic: the sum or the difference of two digits."""

from llama3_jax.tasks import example


def make(rng):
  a, b = rng.randint(0, 9), rng.randint(0, 9)
  if rng.random() < 0.5 and a >= b:
    question, answer = f'{a} - {b}', a - b
  else:
    question, answer = f'{a} + {b}', a + b
  return example.Example('arithmetic', f'Compute: {question}', str(answer))
