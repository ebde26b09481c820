"""Copy: repeat the words, in order."""

from llama3_jax.tasks import task


def make(rng):
  answer = ' '.join(task.words(rng, rng.randint(3, 8)))
  return task.Example(f'Copy: {answer}', answer)


def create(source=''):
  del source
  return task.generated('copy', make)
