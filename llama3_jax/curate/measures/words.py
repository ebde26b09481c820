"""One pass over the text of a batch: words, lines and counts for every rule (3.1.1).

All heuristics, MinHash and the line keys read the result of `analyse`, so a text is
decoded and split once. A word is a run of letters, digits and marks (a Hindi vowel sign
is part of its word) in lower case, identified by a 64-bit hash. In languages without
spaces between words, each character of such a script counts as a word.
"""

import dataclasses
import functools
import unicodedata
from collections.abc import Sequence

import numba
import numpy as np
import pyarrow as pa

from llama3_jax.curate.machine import compiled

# Languages without spaces between words, and how many characters a word has (roughly):
# an n-gram of words is one of n times so many characters there.
UNSPACED = {
  'zh': 2,
  'wuu': 2,
  'yue': 2,
  'ja': 2,
  'th': 4,
  'lo': 4,
  'km': 4,
  'my': 4,
  'bo': 4,
}
# First and last code points of their scripts.
UNSPACED_RANGES = (
  (0x0E00, 0x0FFF),  # Thai, Lao, Tibetan
  (0x1000, 0x109F),  # Myanmar
  (0x1780, 0x17FF),  # Khmer
  (0x3005, 0x30FF),  # Kana
  (0x3400, 0x9FFF),  # Han
  (0xF900, 0xFAFF),
  (0x20000, 0x323AF),
)
# Classes of characters. Words are made of the first five; the line key leaves out
# SENTENCE to CONTROL.
LOWER, UPPER, ALONE, MARK, DIGIT, SPACE, SENTENCE, QUOTE, BULLET, HASH = range(10)
ELLIPSIS, OPEN, CLOSE, BACKSLASH, SEMICOLON, PUNCTUATION, CONTROL = range(10, 17)
DOLLAR, SYMBOL = 17, 18
SIGNS = {
  SENTENCE: '.!?。！？．؟।',
  QUOTE: '"\'”’»)]',
  BULLET: '-*•‣◦●■▶▪–',
  HASH: '#',
  ELLIPSIS: '…',
  OPEN: '{',
  CLOSE: '}',
  BACKSLASH: '\\',
  SEMICOLON: ';',
  DOLLAR: '$',
}
# Columns of Words.counts after the classes.
SENTENCES, DOTS, NEWLINES = 19, 20, 21
RUNS, LETTER_RUNS = 22, 23  # between spaces; those with a letter
COUNTS = 24
# Bits of a line's flags.
ENDS_SENTENCE, ENDS_ELLIPSIS, STARTS_BULLET, LOOKS_CODE = 1, 2, 4, 8
STARTS_HASH = 16

PRIME = np.uint64(0x100000001B3)
SEED = np.uint64(0xCBF29CE484222325)
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
LINE = np.dtype(
  [
    ('start', np.int64),  # bytes of Words.data
    ('end', np.int64),  # without the newline
    ('word', np.int64),  # its first word
    ('hash', np.uint64),  # of the line without outer spaces; 0 = blank
    ('key', np.uint64),  # ccNet's: no case, digits, punctuation; 0 = nothing is left
    ('size', np.int32),  # characters without outer spaces
    ('flags', np.uint8),
  ],
  align=True,
)
LINES = numba.from_dtype(LINE)[::1]


@dataclasses.dataclass(frozen=True)
class Words:
  """Words and lines of a batch; documents without text have none.

  Attributes:
    data: uint8 [bytes], the UTF-8 text.
    ends: int64 [documents], the bytes where the documents end, read or not.
    hashes: uint64 [words]; sizes: int32 [words], characters.
    first: int64 [documents + 1], each document's first word.
    lines: LINE [lines], in the order of the text, as `split('\\n')` gives them.
    line_first: int64 [documents + 1], each document's first line.
    counts: int64 [documents, COUNTS]: characters by class, and more.
    scale: int64 [documents]: words of an n-gram are n times this.
  """

  data: np.ndarray
  ends: np.ndarray
  hashes: np.ndarray
  sizes: np.ndarray
  first: np.ndarray
  lines: np.ndarray
  line_first: np.ndarray
  counts: np.ndarray
  scale: np.ndarray

  def line_words(self) -> np.ndarray:
    """int64 [lines + 1]: each line's first word."""
    return np.append(self.lines['word'], len(self.hashes))

  def text(self, line: int) -> str:
    """The text of one line."""
    start, end = self.lines['start'][line], self.lines['end'][line]
    return self.data[start:end].tobytes().decode('utf-8', 'replace')


def analyse(
  batch: pa.RecordBatch, skip: np.ndarray | None = None, limit: int | None = None
) -> Words:
  """Words of the documents of a batch that are alive.

  Args:
    batch: RecordBatch with text, lang and drop_reason.
    skip: bool [documents], more documents to leave out; or None.
    limit: characters of a document that are read; None = all.
  """
  dead = np.asarray(batch['drop_reason'].is_valid())
  dead |= np.asarray(batch['text'].is_null())
  if skip is not None:
    dead |= skip
  scale = [UNSPACED.get(lang, 1) for lang in batch['lang'].to_pylist()]
  data, offsets = buffers(batch['text'])
  starts, ends = offsets[:-1], np.where(dead, offsets[:-1], offsets[1:])
  read = ends if limit is None else _cap(data, starts, ends, limit)
  return _analyse(data, starts, read, ends, ~dead, np.array(scale, np.int64))


def of(texts: Sequence[str], lang: str = '') -> Words:
  """Words of a list of texts of one language."""
  data, offsets = buffers(pa.array(texts, pa.large_string()))
  scale = np.full(len(texts), UNSPACED.get(lang, 1), np.int64)
  starts, ends = offsets[:-1], offsets[1:]
  return _analyse(data, starts, ends, ends, np.ones(len(texts), bool), scale)


def buffers(column: pa.Array) -> tuple[np.ndarray, np.ndarray]:
  """(uint8 [bytes], int64 [documents + 1]) of a large_string column."""
  if len(column) == 0:
    return _fixed(np.zeros(0, np.uint8)), np.zeros(1, np.int64)
  _, offsets, data = column.buffers()
  offsets = np.frombuffer(offsets, np.int64)
  offsets = offsets[column.offset : column.offset + len(column) + 1].copy()
  data = np.zeros(0, np.uint8) if data is None else np.frombuffer(data, np.uint8)
  return _fixed(data), offsets


def _fixed(data):
  data.flags.writeable = False  # always, or kernels would be compiled for both
  return data


def _cap(data, starts, ends, limit):
  """Ends that leave at most `limit` characters."""
  ends = ends.copy()
  for i in np.flatnonzero(ends - starts > limit):
    leads = np.flatnonzero((data[starts[i] : ends[i]] & 0xC0) != 0x80)
    if len(leads) > limit:
      ends[i] = starts[i] + leads[limit]
  return ends


def _analyse(data, starts, read, ends, alive, scale):
  documents = len(starts)
  window = data[starts[0] : read.max()] if documents else data
  lines = np.empty(np.count_nonzero(window == 10) + documents, LINE)
  # Words have a byte and a separator, or are a character of three bytes. Memory that is
  # not written to costs nothing.
  room = int(((read - starts) // 2 + 1).sum())
  hashes, sizes = np.empty(room, np.uint64), np.empty(room, np.int32)
  first = np.zeros(documents + 1, np.int64)
  line_first = np.zeros(documents + 1, np.int64)
  counts = np.zeros((documents, COUNTS), np.int64)
  kinds, lower = tables()
  args = (data, starts, read, alive, scale, kinds, lower)
  _scan(*args, hashes, sizes, first, lines, line_first, counts)
  hashes, sizes = hashes[: first[-1]], sizes[: first[-1]]
  lines = lines[: line_first[-1]]
  return Words(data, ends, hashes, sizes, first, lines, line_first, counts, scale)


@functools.cache
def tables() -> tuple[np.ndarray, np.ndarray]:
  """(uint8, uint32) [0x110000]: class and lower case of every code point."""
  kinds = np.full(0x110000, CONTROL, np.uint8)
  lower = np.arange(0x110000, dtype=np.uint32)
  letters = {'Lu': UPPER, 'Lt': UPPER, 'Mn': MARK, 'Mc': MARK, 'Me': MARK, 'Nl': LOWER}
  others = {'L': LOWER, 'N': DIGIT, 'Z': SPACE, 'P': PUNCTUATION, 'S': SYMBOL}
  # There are no letters elsewhere.
  for code in (*range(0x32400), *range(0xE0100, 0xE01F0)):
    category = unicodedata.category(chr(code))
    kinds[code] = letters.get(category, others.get(category[0], CONTROL))
    small = chr(code).lower()
    lower[code] = ord(small) if len(small) == 1 else code
  for first, last in UNSPACED_RANGES:
    part = kinds[first : last + 1]
    part[part <= MARK] = ALONE
  kinds[[9, 11, 12, 13, 0x85]] = SPACE
  for kind, signs in SIGNS.items():
    kinds[[ord(sign) for sign in signs]] = kind
  return kinds, lower


@compiled.once
def mix(h: np.uint64) -> np.uint64:
  """uint64 -> uint64: every bit depends on every bit (MurmurHash3's finaliser)."""
  h = (h ^ (h >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
  h = (h ^ (h >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
  return h ^ (h >> np.uint64(33))


def mixed(h: np.ndarray) -> np.ndarray:
  """`mix` of an array, uint64."""
  h = np.asarray(h, np.uint64)
  h = (h ^ (h >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
  h = (h ^ (h >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
  return h ^ (h >> np.uint64(33))


@compiled.inner
def decode(data: np.ndarray, i: int, end: int) -> tuple[int, int]:
  """(code point, position of the next) of UTF-8; a broken byte is U+FFFD."""
  c = np.int64(data[i])
  if c < 0x80:
    return c, i + 1
  size = 2 if c < 0xE0 else 3 if c < 0xF0 else 4
  if c < 0xC2 or c > 0xF4 or i + size > end:
    return np.int64(0xFFFD), i + 1
  c &= 0xFF >> (size + 1)
  for k in range(1, size):
    c = (c << 6) | np.int64(data[i + k] & 0x3F)
  return min(c, np.int64(0x10FFFF)), i + size


@compiled.once
def _line(data, i, end, single, kinds, lower, hashes, sizes, w, line, counts):
  """Reads a line from byte i: (position after its text, words so far)."""
  word, key, exact = SEED, SEED, SEED
  size = run = spaces = characters = dots = flags = 0
  head = last = -1
  gap = sentence = ended = False
  while i < end and data[i] != 10:
    c, i = decode(data, i, end)
    kind = kinds[c]
    counts[kind] += 1
    small = np.uint64(lower[c])
    if kind <= DIGIT:
      alone = single and kind == ALONE
      if alone and size:
        hashes[w], sizes[w] = mix(word), size
        w, word, size = w + 1, SEED, 0
      word, size = (word ^ small) * PRIME, size + 1
    if size and (kind > DIGIT or (single and kind == ALONE)):
      hashes[w], sizes[w] = mix(word), size
      w, word, size = w + 1, SEED, 0
    if kind == SPACE:
      spaces += 1
      gap = True
      counts[SENTENCES] += sentence
      counts[RUNS] += run > 0
      counts[LETTER_RUNS] += run > 1
      sentence, run = False, 0
      continue
    run = 2 if kind <= ALONE else max(run, 1)
    if head < 0:
      head = kind
      flags |= LOOKS_CODE if spaces > 1 or (i > 1 and data[i - 2] == 9) else 0
    elif spaces:
      exact = (exact ^ np.uint64(spaces)) * PRIME
      characters += spaces
    exact = (exact ^ np.uint64(c)) * PRIME
    characters, spaces, last = characters + 1, 0, kind
    dots = dots + 1 if c == 46 else 0
    counts[DOTS] += dots == 3
    sentence = kind == SENTENCE or (sentence and kind == QUOTE)
    ended = sentence or kind == ELLIPSIS
    if kind < SENTENCE or kind > CONTROL:
      if gap and key != SEED:
        key = (key ^ np.uint64(32)) * PRIME
      gap = False
      key = (key ^ (np.uint64(48) if kind == DIGIT else small)) * PRIME
  if size:
    hashes[w], sizes[w] = mix(word), size
    w += 1
  counts[SENTENCES] += sentence
  counts[RUNS] += run > 0
  counts[LETTER_RUNS] += run > 1
  flags |= ENDS_SENTENCE if ended else 0
  flags |= _flags(head, last, dots)
  line.end, line.size, line.flags = i, characters, flags
  line.hash = mix(exact) if characters else np.uint64(0)
  line.key = mix(key) if key != SEED else np.uint64(0)
  return i, w


@compiled.once
def _flags(head, last, dots):
  """Bits of a line by its first and last character."""
  flags = 0
  if last == ELLIPSIS or dots >= 3:
    flags |= ENDS_ELLIPSIS
  if head == BULLET:
    flags |= STARTS_BULLET
  if head == HASH:
    flags |= STARTS_HASH
  if last == OPEN or last == CLOSE or last == SEMICOLON:
    flags |= LOOKS_CODE
  return flags


@compiled.kernel(
  *(compiled.BYTES, compiled.NUMBERS, compiled.NUMBERS, compiled.FLAGS),
  *(compiled.NUMBERS, compiled.TEXT, compiled.CODES, compiled.KEYS, compiled.SIZES),
  *(compiled.NUMBERS, LINES, compiled.NUMBERS, compiled.ROWS),
)
def _scan(
  data,
  starts,
  ends,
  alive,
  scale,
  kinds,
  lower,
  hashes,
  sizes,
  first,
  lines,
  line_first,
  counts,
):
  w = n = np.int64(0)
  for d in range(len(starts)):
    i, end = starts[d], ends[d]
    while alive[d]:
      lines[n].start = i
      lines[n].word = w
      i, w = _line(
        data,
        i,
        end,
        scale[d] > 1,
        kinds,
        lower,
        hashes,
        sizes,
        w,
        lines[n],
        counts[d],
      )
      n += 1
      if i >= end:
        break
      counts[d, NEWLINES] += 1
      i += 1  # the newline
    first[d + 1] = w
    line_first[d + 1] = n
