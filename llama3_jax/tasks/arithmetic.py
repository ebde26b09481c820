"""Arithmetic: the sum or the difference of two small numbers."""

from llama3_jax.tasks import example


def make(rng):
  a, b = rng.randint(0, 20), rng.randint(0, 20)
  if rng.random() < 0.5 and a >= b:
    question, answer = f'{a} - {b}', a - b
  else:
    question, answer = f'{a} + {b}', a + b
  near = [answer + d for d in (1, 2, 5, 10, -1, -2, -5) if answer + d >= 0]
  wrong = tuple(str(v) for v in rng.sample(near, 4))
  return example.Example('arithmetic', f'Compute: {question}', str(answer), wrong)
