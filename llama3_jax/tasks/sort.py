"""Sort: put single digits in rising order."""

from llama3_jax.tasks import example


def make(rng):
  digits = [str(d) for d in rng.sample(range(10), rng.randint(3, 6))]
  answer = ' '.join(sorted(digits))
  return example.Example('sort', f'Sort: {" ".join(digits)}', answer)
