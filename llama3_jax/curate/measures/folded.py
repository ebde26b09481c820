"""Words as they are compared with benchmark items, in any script and width (3.1.3).

Two texts that read alike have the same words here: case, compatibility forms (full and
half width, ligatures, circled numbers), the digits of all scripts, accents and other
marks that combine, and characters that are not seen make no difference. A character of
a script without spaces is a word of its own, whatever the language of its document, and
weighs a part of one. Only hashes are made: the text that is kept stays as it is.
"""

import dataclasses
import functools
import unicodedata
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from llama3_jax.curate.machine import compiled
from llama3_jax.curate.machine import search
from llama3_jax.curate.measures import words
from llama3_jax.curate.measures.words import MULTIPLIER
from llama3_jax.curate.measures.words import PRIME
from llama3_jax.curate.measures.words import SEED

WORD = 4  # weight of a word in a script with spaces
# What a character is: between words, a part of one, not there, several characters,
# white space, or from KINDS on a word of its own, whose weight is the kind less KINDS.
APART, PART, NOTHING, SEVERAL, SPACE, KINDS = range(6)
# A word has about 2 characters in Chinese and Japanese, 4 in Thai and its neighbours.
WIDE, NARROW = WORD // words.UNSPACED['zh'], WORD // words.UNSPACED['th']
IDEOGRAPHS = 0x2E80  # from here on, of the scripts without spaces
SHIFT = 24  # an entry of the table is kind << SHIFT | folded character
FIGURE = 1 << 23  # of an entry: the character is a digit
ONE, NUMBER = np.uint64(1), np.uint64(0x9FB21C651E98DF25)  # NUMBER: of any number
# Not seen, though in no category that says so (Unicode's Default_Ignorable): the
# joiner of graphemes, fillers of Hangul, selectors of variants.
UNSEEN = (0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, 0xFFA0)
SELECTORS = ((0x180B, 0x180F), (0xFE00, 0xFE0F), (0xE0100, 0xE01EF))
GROWTH = 2  # words of a text are at most so many a byte: one character may be six words


@dataclasses.dataclass(frozen=True)
class Folded:
  """Words of documents; those that are not read have none.

  Attributes:
    hashes: uint64 [words]; odd where the word has a digit.
    weights: uint8 [words]: of WORD.
    first: int64 [documents + 1], each document's first word.
    line: int64 [lines + 1], each line's first word.
    blank: bool [lines]: nothing but white space.
    line_first: int64 [documents + 1], each document's first line.
  """

  hashes: np.ndarray
  weights: np.ndarray
  first: np.ndarray
  line: np.ndarray
  blank: np.ndarray
  line_first: np.ndarray


def analyse(batch: pa.RecordBatch) -> Folded:
  """Words of the documents of a batch that are alive."""
  return _scanned(batch['text'], np.asarray(batch['drop_reason'].is_valid()))


def of(texts: Sequence[str]) -> Folded:
  """Words of a list of texts."""
  return _scanned(pa.array(texts, pa.large_string()), np.zeros(len(texts), bool))


def _scanned(column, dead):
  data, offsets = words.buffers(column)
  alive = ~(dead | np.asarray(column.is_null()))
  starts, ends = offsets[:-1], np.where(alive, offsets[1:], offsets[:-1])
  count = int((ends - starts).sum())
  lines = len(starts) + np.count_nonzero(data[offsets[0] : offsets[-1]] == 10)
  # Memory that is not written to costs nothing.
  room = GROWTH * count
  hashes, weights = np.empty(room, np.uint64), np.empty(room, np.uint8)
  first, line_first = (np.zeros(len(starts) + 1, np.int64) for _ in range(2))
  line, blank = np.empty(lines + 1, np.int64), np.empty(lines, bool)
  table, more = tables()
  args = (data, starts, ends, alive, table, more)
  _scan(*args, hashes, weights, first, line, blank, line_first)
  hashes, weights = hashes[: first[-1]], weights[: first[-1]]
  lines = line_first[-1]
  line[lines] = first[-1]
  return Folded(hashes, weights, first, line[: lines + 1], blank[:lines], line_first)


@functools.cache
def tables() -> tuple[np.ndarray, np.ndarray]:
  """(uint32 [0x110000] entry of each code point, uint32 [n] of those that are several:
  their number, then their entries; the entry has its place in here)."""
  kinds, _ = words.tables()
  own = np.full(0x110000, APART, np.uint32)
  own[kinds <= words.DIGIT] = PART
  own[kinds == words.SPACE] = SPACE
  own[ord('\n')] = SPACE
  alone = np.flatnonzero(kinds == words.ALONE)
  for first, last in words.UNSPACED_RANGES:
    weight = WIDE if first >= IDEOGRAPHS else NARROW
    inside = alone[(alone >= first) & (alone <= last)]
    own[inside] = KINDS + weight
  for code in UNSEEN:
    own[code] = NOTHING
  for first, last in SELECTORS:
    own[first : last + 1] = NOTHING
  table = own << SHIFT | np.arange(0x110000, dtype=np.uint32)
  table[ord('0') : ord('9') + 1] |= FIGURE
  plain, more = table.copy(), []
  for code in (*range(0x3400), *range(0xA000, 0x32400), *range(0xE0000, 0xE0200)):
    char = chr(code)
    text = fold(char)
    entries = [plain[ord(c)] for c in text]
    if text == char:
      continue
    if len(text) == 1:
      table[code] = entries[0]
    elif not text:
      table[code] = NOTHING << SHIFT
    else:
      table[code] = SEVERAL << SHIFT | len(more)
      more += [len(entries), *entries]
  return table, np.array(more, np.uint32)


def fold(text: str) -> str:
  """The text as it is compared: compatibility forms, case, digits, marks folded."""
  parts = unicodedata.normalize('NFKD', text)
  parts = unicodedata.normalize('NFKD', parts.casefold())
  return ''.join(_digit(c) for c in parts if not _mark(c))


def _mark(char):
  """Whether a character only changes the one before it, or is not seen. Marks without
  a combining class stay: a vowel sign of Hindi or Thai is as good as a letter."""
  return bool(unicodedata.combining(char)) or unicodedata.category(char) in ('Cf', 'Me')


def _digit(char):
  value = unicodedata.decimal(char, None)
  return char if value is None else str(value)


@compiled.once
def _add(entry, hashes, weights, w, word, bits):
  """(words, hash and bits of the open word) after a character that is one."""
  kind = entry >> np.uint32(SHIFT)
  if kind == PART:
    return w, (word ^ np.uint64(entry)) * PRIME, bits | entry
  if kind == NOTHING:
    return w, word, bits
  if bits:
    figure = np.uint64(bits & np.uint32(FIGURE) != 0)
    hashes[w], weights[w] = words.mix(word) & ~ONE | figure, WORD
    w, word, bits = w + 1, SEED, np.uint32(0)
  if kind >= KINDS:
    hashes[w] = words.mix((SEED ^ np.uint64(entry)) * PRIME) & ~ONE
    weights[w] = kind - KINDS
    w += 1
  return w, word, bits


@compiled.kernel(
  *(compiled.BYTES, compiled.NUMBERS, compiled.NUMBERS, compiled.FLAGS),
  *(compiled.CODES, compiled.CODES, compiled.KEYS, compiled.TEXT),
  *(compiled.NUMBERS, compiled.NUMBERS, compiled.FLAGS, compiled.NUMBERS),
)
def _scan(
  data,
  starts,
  ends,
  alive,
  table,
  more,
  hashes,
  weights,
  first,
  line,
  blank,
  line_first,
):
  newline = np.uint32(APART << SHIFT)
  w = n = 0
  for d in range(len(starts)):
    i, end = starts[d], ends[d]
    word, bits, seen = SEED, np.uint32(0), False
    if alive[d]:
      line[n] = w
      while i < end:
        if data[i] < 0x80:
          c, i = np.int64(data[i]), i + 1
        else:
          c, i = words.decode(data, i, end)
        entry = table[c]
        kind = entry >> np.uint32(SHIFT)
        if kind == PART:  # most characters
          word, bits, seen = (word ^ np.uint64(entry)) * PRIME, bits | entry, True
        elif kind == SEVERAL:
          at, seen = entry & np.uint32((1 << SHIFT) - 1), True
          for k in range(at + 1, at + 1 + more[at]):
            w, word, bits = _add(more[k], hashes, weights, w, word, bits)
        else:
          w, word, bits = _add(entry, hashes, weights, w, word, bits)
          seen |= kind != SPACE and kind != NOTHING
          if c == 10:
            blank[n], seen, n = not seen, False, n + 1
            line[n] = w
      w, word, bits = _add(newline, hashes, weights, w, word, bits)
      blank[n], n = not seen, n + 1
    first[d + 1], line_first[d + 1] = w, n


@compiled.kernel(compiled.KEYS, compiled.TEXT, compiled.INT)
def grams(
  hashes: np.ndarray, weights: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
  """(uint64 hash, int64 end) of the run of `size` words from each word on, as far as
  there are so many: a run ends where its weights reach those of `size` words."""
  return runs(hashes, weights, size)


@compiled.inner
def runs(hashes, weights, size):
  """`grams`, for compiled functions."""
  found = np.zeros(len(hashes), np.uint64)
  last = np.zeros(len(hashes), np.int64)
  powers = np.ones(size * WORD, np.uint64)
  for k in range(1, len(powers)):
    powers[k] = powers[k - 1] * MULTIPLIER
  value, end, weight, n = np.uint64(0), 0, 0, 0
  for i in range(len(hashes)):
    while weight < size * WORD and end < len(hashes):
      value = value * MULTIPLIER + hashes[end]
      weight += weights[end]
      end += 1
    if weight < size * WORD:
      break
    found[i], last[i] = value, end
    n += 1
    value -= hashes[i] * powers[end - i - 1]
    weight -= weights[i]
  return found[:n], last[:n]


@compiled.kernel(compiled.KEYS, compiled.TEXT, compiled.KEYS)
def shapes(
  hashes: np.ndarray, weights: np.ndarray, spelt: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """(hashes, weights) of the words of a text in which all numbers are one number.

  Numbers side by side are one, as 1,300 is two words. spelt: uint64 [n], sorted hashes
  of the words that are numbers without a digit.
  """
  found, sizes = hashes.copy(), weights.copy()
  n = 0
  for i in range(len(hashes)):
    value = hashes[i]
    at = search.place(spelt, value)
    if value & ONE or (at < len(spelt) and spelt[at] == value):
      if n and found[n - 1] == NUMBER:
        continue
      value = NUMBER
    found[n], sizes[n] = value, WORD if value == NUMBER else weights[i]
    n += 1
  return found[:n], sizes[:n]


@compiled.once
def number(value: np.uint64) -> np.uint64:
  """The hash of a word; NUMBER where it has a digit."""
  return NUMBER if value & ONE else value
