"""Format following: write words in the requested form."""

import random

from llama3_jax.tasks import task

FORMS = {
  'in brackets': lambda words: ' '.join(f'[{w}]' for w in words),
  'with commas': ', '.join,
  'in reverse': lambda words: ' '.join(words[::-1]),
  'twice': lambda words: ' '.join([*words, *words]),
  'with dashes': ' - '.join,
}


def make(rng: random.Random) -> task.Example:
  """An Example of two or three random words in a random form."""
  words = task.words(rng, rng.randint(2, 3))
  form = rng.choice(sorted(FORMS))
  prompt = f'Write {form}: {" ".join(words)}'
  answer = FORMS[form](words)
  return task.Example(prompt, answer)


def create(source: str = '') -> task.Task:
  """The Task; it has no source."""
  del source
  return task.generated('format', make)
