"""Copy: repeat the words, in order."""

from llama3_jax.tasks import example


def make(rng):
  words = example.words(rng, rng.randint(3, 6))
  wrong = []
  for _ in range(3):
    other = list(words)
    other[rng.randrange(len(other))] = example.words(rng, 1)[0]
    wrong.append(' '.join(other))
  wrong.append(' '.join(words[:-1]))
  wrong.append(' '.join(words[::-1]))
  answer = ' '.join(words)
  wrong = tuple(w for w in wrong if w != answer)
  return example.Example('copy', f'Copy: {answer}', answer, wrong)
