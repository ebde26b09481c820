"""Lines of logs: long, each unique, and mostly the words of their neighbours (3.1.1).

A document of reference repeats phrases too, but not line after line: a signature is
followed by its description. So a line is one of a log when its n-grams have copies in
the lines just before it, many times, and the lines around it are such lines as well. A
table or a block of code is one unit: all of it is a log, or nothing.
"""

import numpy as np

from llama3_jax.curate.machine import compiled
from llama3_jax.curate.measures import copies
from llama3_jax.curate.measures import words as texts
from llama3_jax.curate.measures.words import MULTIPLIER

NEAR = 8  # lines with words back to the copy of an n-gram
SAME, NUMBERS, WORDS = 1, 2, 3  # what differs between a line and those before it
PLAIN = 4  # words without digits that repeat, where numbers differ
MOST, LONG = 0.55, 9  # share that repeats, and words, where words differ
RUNS = {SAME: 2, WORDS: 16}  # lines in a row; of NUMBERS the config says
INK = 0.55  # share of the characters of a line that letters and digits have at least
NUMBER = np.uint64(1)  # stands for every word with a digit
UNIT = 0.9  # share of the characters of a table or block of code that repeat


def digits(words: texts.Words) -> np.ndarray:
  """bool [words]: whether a word has a digit of any script."""
  result = np.zeros(len(words.hashes), np.bool_)
  kinds, _ = texts.tables()
  _digits(words.data, words.lines, words.line_words(), words.sizes, kinds, result)
  return result


@compiled.kernel(
  *(compiled.BYTES, texts.LINES, compiled.NUMBERS, compiled.SIZES),
  *(compiled.TEXT, compiled.FLAGS),
)
def _digits(data, lines, line_words, sizes, kinds, result):
  for n in range(len(lines)):
    i, end, w, left = lines[n].start, lines[n].end, line_words[n], 0
    if not _numeral(data, i, end):
      continue
    # Words are runs of the first classes; how many of their characters are read tells
    # where one without a space before the next ends.
    while i < end and w < line_words[n + 1]:
      c, i = texts.decode(data, i, end)
      kind = kinds[c]
      if kind > texts.DIGIT:
        continue
      left = left or sizes[w]
      result[w] |= kind == texts.DIGIT
      left -= 1
      w += left == 0


@compiled.inner
def _numeral(data, i, end):
  """Whether bytes may have a digit: an ASCII one, or a character that is not ASCII."""
  for k in range(i, end):
    if data[k] >= 128 or 48 <= data[k] <= 57:
      return True
  return False


@compiled.kernel(
  *(compiled.KEYS, compiled.SIZES, compiled.FLAGS, compiled.NUMBERS),
  *(compiled.NUMBERS, compiled.NUMBERS, compiled.NUMBERS),
  *(compiled.INT, compiled.INT, compiled.BOOL),
)
def coverage(
  hashes: np.ndarray,
  sizes: np.ndarray,
  digits: np.ndarray,
  first: np.ndarray,
  scale: np.ndarray,
  line_words: np.ndarray,
  line_first: np.ndarray,
  gram: int,
  least: int,
  every_copy: bool,
) -> tuple[np.ndarray, np.ndarray]:
  """What is in n-grams with a copy in the lines just before; all numbers are alike.

  Returns:
    (float32 [lines]: share of a line's characters; bool [words]).

  Args:
    hashes, sizes, digits, first, scale, line_first: as in Words.
    line_words: int64 [lines + 1], each line's first word.
    gram: words of an n-gram.
    least: times that the document has an n-gram at least.
    every_copy: the copy before counts too.
  """
  longest, slots = copies.room(first)
  table, stamps = np.zeros(slots, np.int64), np.full(slots, -1, np.int64)
  head, times = np.zeros(longest, np.int64), np.zeros(longest, np.int64)
  places, grams = np.arange(longest), np.zeros(longest, np.uint64)
  last, line = np.zeros(longest, np.int64), np.zeros(longest, np.int64)
  marked = np.zeros(len(hashes), np.bool_)
  for d in range(len(first) - 1):
    begin, length = first[d], gram * scale[d]
    count = max(first[d + 1] - begin - length + 1, 0)
    for i in range(count):
      value = np.uint64(0)
      for w in range(begin + i, begin + i + length):
        value = value * MULTIPLIER + (NUMBER if digits[w] else hashes[w])
      grams[i] = value
    mask = copies.mask(count, slots)
    copies.heads(grams, places, count, table, stamps, d, mask, head, times)
    _number(line_words, line_first[d], line_first[d + 1], first[d], line)
    upto = 0
    for i in range(count):
      h = head[i]
      before, last[h] = last[h], i
      if h == i or times[h] < least or line[i] - line[before] > NEAR:
        continue
      for k in range(max(i, upto), i + length):
        marked[begin + k] = True
      upto = i + length
      if every_copy:
        for k in range(before, before + length):
          marked[begin + k] = True
  return _shares(sizes, marked, line_words), marked


@compiled.once
def _shares(sizes, marked, line_words):
  """float32 [lines]: share of a line's characters in the marked words."""
  result = np.zeros(len(line_words) - 1, np.float32)
  for n in range(len(line_words) - 1):
    inside = total = 0
    for i in range(line_words[n], line_words[n + 1]):
      total += sizes[i]
      inside += sizes[i] if marked[i] else 0
    result[n] = inside / max(total, 1)
  return result


@compiled.once
def _number(line_words, begin, end, first, line):
  """Fills line [words] with the number of each word's line, of those with words."""
  number = 0
  for n in range(begin, end):
    for i in range(line_words[n], line_words[n + 1]):
      line[i - first] = number
    number += line_words[n + 1] > line_words[n]


@compiled.kernel(
  *(texts.LINES, compiled.NUMBERS, compiled.SIZES, compiled.FLAGS),
  *(compiled.FLAGS, compiled.FLOATS_F, compiled.FLAGS, compiled.BOOL),
)
def kinds(
  lines: np.ndarray,
  line_words: np.ndarray,
  sizes: np.ndarray,
  digits: np.ndarray,
  repeats: np.ndarray,
  covered: np.ndarray,
  marked: np.ndarray,
  every_copy: bool,
) -> np.ndarray:
  """uint8 [lines]: SAME, NUMBERS or WORDS for what differs in a line that repeats.

  Args:
    lines, line_words, sizes, digits: of Words.
    repeats: bool [lines].
    covered, marked: as coverage() gives them.
    every_copy: a line before its copy is SAME too.
  """
  result = np.zeros(len(lines), np.uint8)
  for n in range(len(lines)):
    if not repeats[n]:
      continue
    new = numbers = plain = ink = 0
    for w in range(line_words[n], line_words[n + 1]):
      new += not marked[w]
      numbers += digits[w]
      plain += marked[w] and not digits[w]
      ink += sizes[w]
    ended = lines[n].flags & texts.ENDS_SENTENCE != 0
    if ink < INK * lines[n].size:
      continue  # data or formulas
    back, on = np.int64(-1), np.int64(1)
    if _again(lines, n, back) or (every_copy and _again(lines, n, on)):
      result[n] = SAME
    elif numbers and numbers >= new and plain >= PLAIN:
      result[n] = NUMBERS
    elif covered[n] >= MOST and plain + new >= LONG and not ended:
      result[n] = WORDS
  return result


@compiled.inner
def _again(lines, n, step):
  """Whether the line before (step -1) or after, without blank ones, is the same."""
  k = n + step
  while 0 <= k < len(lines) and lines[k].hash == 0:
    k += step
  return 0 <= k < len(lines) and lines[k].hash == lines[n].hash


@compiled.kernel(compiled.FLAGS, compiled.NUMBERS, compiled.NUMBERS, compiled.INT)
def runs(
  repeats: np.ndarray, size: np.ndarray, line_first: np.ndarray, least: int
) -> np.ndarray:
  """bool [lines]: the lines that repeat, where at least `least` do in a row.

  Args:
    repeats: bool [lines].
    size: int64 [lines], words; a line without any neither counts nor ends a run.
    line_first: int64 [documents + 1].
  """
  result = np.zeros(len(repeats), np.bool_)
  for d in range(len(line_first) - 1):
    begin, count = line_first[d], 0
    for n in range(line_first[d], line_first[d + 1] + 1):
      ends = n == line_first[d + 1]
      if not ends and (size[n] == 0 or repeats[n]):
        count += size[n] > 0
        continue
      if count >= least:
        for k in range(begin, n):
          result[k] = repeats[k]
      begin, count = n + 1, 0
  return result


@compiled.kernel(
  compiled.FLAGS, compiled.FLOATS_F, compiled.BYTES, texts.LINES, compiled.NUMBERS
)
def units(
  remove: np.ndarray,
  covered: np.ndarray,
  data: np.ndarray,
  lines: np.ndarray,
  line_first: np.ndarray,
) -> np.ndarray:
  """bool [lines]: `remove`, but all or nothing of a table or a block of code.

  Such a unit is a run of lines that are not blank, of which half are rows of cells, or
  indented or ended as code is.

  Args:
    remove: bool [lines].
    covered: float32 [lines], as coverage() gives it.
    data, lines, line_first: of Words.
  """
  result = np.empty(len(remove), np.bool_)
  for n in range(len(remove)):
    result[n] = remove[n]
  for d in range(len(line_first) - 1):
    begin, inside, total, some = line_first[d], 0.0, 0, False
    for n in range(line_first[d], line_first[d + 1] + 1):
      if n < line_first[d + 1] and lines[n].size:
        inside += covered[n] * lines[n].size
        total += lines[n].size
        some |= remove[n]
        continue
      if some and 2 * _special(data, lines, begin, n) >= n - begin:
        for k in range(begin, n):
          result[k] = inside > UNIT * total
      begin, inside, total, some = n + 1, 0.0, 0, False
  return result


@compiled.once
def _special(data, lines, begin, end):
  """Number of the lines that are of code, or have a tab between words."""
  count = 0
  for n in range(begin, end):
    line = lines[n]
    found = line.flags & (texts.LOOKS_CODE | texts.STARTS_HASH) != 0
    word = False
    for k in range(line.start, line.end):
      found |= word and data[k] == 9
      word |= data[k] > 32
    count += found
  return count
