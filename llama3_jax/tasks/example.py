"""What a task is made of: examples with one right answer, splits, and words."""

import dataclasses
import hashlib
import random


@dataclasses.dataclass(frozen=True)
class Example:
  """A prompt, its one right answer, and the wrong answers a weak model might give."""

  task: str
  prompt: str
  answer: str
  wrong: tuple[str, ...] = ()


# Short everyday words, few enough for a model of a million parameters to know them all.
WORDS = """
apple bag bell bird boat book box bread cake cat chair city cloud cup dog door duck egg
fish flag fox gate goat gold hat house key king lake lamp leaf lion map milk moon nest
oak pen pig plate queen rain ring road rope rose salt sheep ship shoe snow spoon star
stone sun table tent train tree wall wind wolf
""".split()


def is_heldout(prompt):
  """One prompt in eight is kept for evaluation, by hash: the same in every process."""
  return hashlib.blake2b(prompt.encode(), digest_size=1).digest()[0] < 32


def draw(make, n, seed, split):
  """`n` examples of make(rng) that belong to `split` ('train' or 'heldout')."""
  rng = random.Random(f'{seed}/{split}/{make.__module__}')
  found = []
  while len(found) < n:
    example = make(rng)
    if is_heldout(example.prompt) == (split == 'heldout'):
      found.append(example)
  return found


def words(rng, n):
  """`n` different words."""
  return rng.sample(WORDS, n)
