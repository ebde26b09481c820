"""Counting words and phrases of a list in analysed text (3.1.1)."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from llama3_jax.curate.machine import compiled
from llama3_jax.curate.machine import search
from llama3_jax.curate.measures import words as texts
from llama3_jax.curate.measures.words import MULTIPLIER

STARTS = 1 << 16


@dataclasses.dataclass(frozen=True)
class Table:
  """A list of phrases, indexed for the search.

  Attributes:
    starts: bool [STARTS]: whether a phrase begins with a word of these hash bits.
    grams: uint64 [n], sorted hashes of the phrases.
    index: int64 [n], position of each in the list.
    longest: words of the longest.
  """

  starts: np.ndarray
  grams: np.ndarray
  index: np.ndarray
  longest: int


def table(phrases: Sequence[str]) -> Table:
  """Table of a list of phrases, each a word or more; case and punctuation are ignored.

  In languages without spaces between words a phrase is found as a run of characters.
  """
  numbers, starts = {}, np.zeros(STARTS, bool)
  longest = 1
  for lang in ('', 'zh'):
    words = texts.of(phrases, lang)
    for i in range(len(phrases)):
      part = words.hashes[words.first[i] : words.first[i + 1]]
      if len(part):
        starts[int(part[0]) & (STARTS - 1)] = True
        numbers.setdefault(fold(part), i)
        longest = max(longest, len(part))
  grams = np.array(sorted(numbers), np.uint64)
  index = np.array([numbers[int(gram)] for gram in grams], np.int64)
  return Table(starts, grams, index, longest)


def fold(hashes: np.ndarray) -> int:
  """int, the hash of a sequence of words (uint64 [n])."""
  result = 0
  for value in hashes:
    result = (result * int(MULTIPLIER) + int(value)) & (2**64 - 1)
  return result


def count(
  words: texts.Words, first: np.ndarray, phrases: Table
) -> tuple[np.ndarray, np.ndarray]:
  """Occurrences of the phrases in each segment.

  Args:
    words: Words.
    first: int64 [segments + 1]: first words of documents or lines; phrases do not cross
      their borders.
    phrases: Table.

  Returns:
    (int64 [segments] occurrences, int64 [segments] different ones of the first 64).
  """
  number = np.zeros(len(first) - 1, np.int64)
  bits = np.zeros(len(first) - 1, np.uint64)
  t = phrases
  _count(words.hashes, first, t.starts, t.grams, t.index, t.longest, number, bits)
  return number, np.bitwise_count(bits).astype(np.int64)


@compiled.kernel(
  *(compiled.KEYS, compiled.NUMBERS, compiled.FLAGS, compiled.KEYS, compiled.NUMBERS),
  *(compiled.INT, compiled.NUMBERS, compiled.KEYS),
)
def _count(hashes, first, starts, grams, index, longest, number, bits):
  low = np.uint64(len(starts) - 1)
  for s in range(len(first) - 1):
    for i in range(first[s], first[s + 1]):
      if not starts[hashes[i] & low]:
        continue
      gram = np.uint64(0)
      for k in range(min(longest, first[s + 1] - i)):
        gram = gram * MULTIPLIER + hashes[i + k]
        slot = search.place(grams, gram)
        if slot < len(grams) and grams[slot] == gram:
          number[s] += 1
          bits[s] |= np.uint64(1) << np.uint64(index[slot] & 63)
          break
