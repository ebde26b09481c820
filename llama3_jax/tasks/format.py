"""Format following: write words in the asked form."""

from llama3_jax.tasks import task

FORMS = {
  'in brackets': lambda words: ' '.join(f'[{w}]' for w in words),
  'with commas': ', '.join,
  'in reverse': lambda words: ' '.join(words[::-1]),
  'twice': lambda words: ' '.join([*words, *words]),
  'with dashes': ' - '.join,
}


def make(rng):
  words = task.words(rng, rng.randint(2, 3))
  form = rng.choice(sorted(FORMS))
  prompt = f'Write {form}: {" ".join(words)}'
  answer = FORMS[form](words)
  return task.Example(prompt, answer)


def create(source=''):
  del source
  return task.generated('format', make)
