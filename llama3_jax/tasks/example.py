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


# Short everyday words: most become one token of a small vocabulary.
WORDS = """
ant apple arm bag ball bank bed bell bird boat book box boy bread bus cake car cat chair
city cloud coat cold corn cow cup day desk dog door dress duck ear egg eye face farm fire
fish flag floor foot fork fox frog game gate gift girl glass goat gold green hand hat head
hill home horse house ice key king lake lamp leaf leg light lion lock map milk moon mouse
mouth name nest night nose oak ocean paper park pen pig plane plant plate queen rain red
ring river road rock roof room rope rose salt sand sea seed sheep ship shirt shoe silver
sky snow song spoon star stone sun table tail tea tent time toe town toy train tree wall
watch water wave wheel white wind window wing wolf wood wool year
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
