"""What a task is made of: examples with one right answer, splits, and words."""

import dataclasses
import hashlib
import random


@dataclasses.dataclass(frozen=True)
class Example:
  """A prompt and its one right answer."""

  task: str
  prompt: str
  answer: str


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
  """`n` examples of make(rng) that belong to `split` ('train' or 'heldout').

  Held-out prompts are all different, so that an interval over them means something;
  a task with few prompts gives fewer than `n`.
  """
  rng = random.Random(f'{seed}/{split}/{make.__module__}')
  found, seen, tries = [], set(), 0
  while len(found) < n and tries < 100 * n + 1000:
    example, tries = make(rng), tries + 1
    if is_heldout(example.prompt) != (split == 'heldout'):
      continue
    if split == 'train' or example.prompt not in seen:
      found.append(example)
    seen.add(example.prompt)
  return found


def words(rng, n):
  """`n` different words."""
  return rng.sample(WORDS, n)
