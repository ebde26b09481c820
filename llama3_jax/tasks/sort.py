"""Sort: put single digits in rising order."""

from llama3_jax.tasks import task


def make(rng):
  digits = [str(d) for d in rng.sample(range(10), rng.randint(3, 6))]
  answer = ' '.join(sorted(digits))
  return task.Example(f'Sort: {" ".join(digits)}', answer)


def create(source=''):
  del source
  return task.generated('sort', make)
