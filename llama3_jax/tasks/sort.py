"""Sort: put single digits in rising order."""

from llama3_jax.tasks import example


def make(rng):
  digits = [str(d) for d in rng.sample(range(10), rng.randint(3, 5))]
  answer = ' '.join(sorted(digits))
  wrong = []
  for _ in range(3):
    other = sorted(digits)
    i, j = rng.sample(range(len(other)), 2)
    other[i], other[j] = other[j], other[i]
    wrong.append(' '.join(other))
  wrong.append(' '.join(sorted(digits)[1:]))
  return example.Example('sort', f'Sort: {" ".join(digits)}', answer, tuple(wrong))
