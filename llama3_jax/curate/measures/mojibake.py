"""Text whose UTF-8 was read as Latin-1 or windows-1252, once or more (mojibake).

A character of two bytes or more has become a letter like Ã or Ð and one or two signs
that no letter is followed by: in a text that is read rightly there are few.
"""

import functools

import numpy as np

from llama3_jax.curate.machine import compiled
from llama3_jax.curate.measures import words as texts

LEAD = 0xC3  # the first byte of U+00C0 to U+00FF in UTF-8
LEAST = 500  # bytes of text for each LEAD, above which a text is not looked at
# What letters of the first bytes of two, and of three bytes, are followed by.
TWO, THREE, AFTER = 1, 2, 4
PAIRS = (0xC2, 0xD9)  # the ß, the last one, comes before quotes
TRIPLES = (0xE0, 0xEF)


@functools.cache
def _table():
  """uint8 [0x3000]: bits TWO, THREE and AFTER of each code point."""
  table = np.zeros(0x3000, np.uint8)
  table[PAIRS[0] : PAIRS[1] + 1] |= TWO
  table[TRIPLES[0] : TRIPLES[1] + 1] |= THREE
  for byte in range(0x80, 0xC0):
    for char in chr(byte) + bytes([byte]).decode('cp1252', 'ignore'):
      table[ord(char)] |= AFTER
  return table


def count(words: texts.Words) -> np.ndarray:
  """int64 [documents]: characters that were read wrongly."""
  result = np.zeros(len(words.scale), np.int64)
  _count(words.data, words.lines, words.line_first, _table(), result)
  return result


@compiled.kernel(
  compiled.BYTES, texts.LINES, compiled.NUMBERS, compiled.TEXT, compiled.NUMBERS
)
def _count(data, lines, line_first, table, result):
  for d in range(len(result)):
    if line_first[d] == line_first[d + 1]:
      continue
    begin, end = lines[line_first[d]].start, lines[line_first[d + 1] - 1].end
    leads = 0
    for i in range(begin, end):
      leads += data[i] == LEAD
    if LEAST * leads >= end - begin:
      result[d] = _wrong(data, begin, end, table)


@compiled.inner
def _wrong(data, i, end, table):
  """Letters of a first byte with as many signs of other bytes after them as is due."""
  number = before = older = 0
  while i < end:
    c, i = texts.decode(data, i, end)
    bits = table[c] if c < len(table) else 0
    if bits & AFTER:
      number += before & TWO != 0
      number += before & AFTER != 0 and older & THREE != 0
    older, before = before, bits
  return number
