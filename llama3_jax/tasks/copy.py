"""Copy: repeat the words, in order."""

from llama3_jax.tasks import example


def make(rng):
  answer = ' '.join(example.words(rng, rng.randint(3, 8)))
  return example.Example('copy', f'Copy: {answer}', answer)
