"""Duplicated n-gram coverage, of documents and of lines (3.1.1; Rae et al. 2021, A1).

A repeated n-gram covers its words; characters of a covered word count once, however
many n-grams cover it. There are two ways to count: later copies (the second and later
ones, as open pipelines count, whose thresholds are ours) and every copy (the first too,
as in the words of the paper that defined the measure).
"""

import dataclasses
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from llama3_jax.curate.machine import compiled
from llama3_jax.curate.machine import documents
from llama3_jax.curate.measures import copies
from llama3_jax.curate.measures import logs
from llama3_jax.curate.measures import words as texts
from llama3_jax.curate.measures.words import MULTIPLIER

TOP = (2, 3, 4)  # n-grams of which the most frequent one is measured
DUPLICATE = (5, 6, 7, 8, 9, 10)  # n-grams of which all repeated ones are measured
COLUMNS = (
  'repetition.duplicate_lines',
  'repetition.duplicate_paragraphs',
  'repetition.duplicate_line_characters',
  'repetition.duplicate_paragraph_characters',
  *(f'repetition.top_{n}gram' for n in TOP),
  *(f'repetition.duplicate_{n}gram' for n in DUPLICATE),
)


@dataclasses.dataclass(frozen=True)
class LineConfig:
  """When a line is repeated content.

  Attributes:
    gram: words of the n-grams.
    coverage: a line repeats when more than this share of its characters is in n-grams
      that have a copy in the lines just before it.
    copies: times that the document has such an n-gram at least.
    run: lines of which only numbers are new are removed where so many are in a row.
    every_copy: count the first copy of an n-gram too, so that no copy is left.
    min_words: shorter lines stay: they are for line de-duplication.
    categories: of documents that are left alone.
    max_characters: of a document that are judged.
  """

  gram: int = 5
  coverage: float = 0.5
  copies: int = 3
  run: int = 5
  every_copy: bool = False
  min_words: int = 5
  categories: tuple[str, ...] = ('code',)
  max_characters: int = 1_000_000


def measures(words: texts.Words, every_copy: bool = False) -> np.ndarray:
  """float32 [documents, COLUMNS]: shares of each document that repeat.

  Shares of lines and paragraphs, by number and by characters, count the second and
  later copies; lines without a word (blank, braces, rules of tables) do not count.
  """
  result = np.zeros((len(words.first) - 1, len(COLUMNS)), np.float32)
  filled = np.diff(words.line_words()) > 0
  before = np.append(0, np.cumsum(filled))
  hashes, sizes = words.lines['hash'][filled], words.lines['size'][filled]
  _duplicates(hashes, sizes, before[words.line_first], result, 0)
  _duplicates(*_paragraphs(words), result, 1)
  args = (words.hashes, words.sizes, words.first, words.scale)
  _coverage(*args, every_copy, result, 2)
  return result


def columns(words: texts.Words, every_copy: bool = False) -> dict[str, np.ndarray]:
  """{column: float32 [documents]} of `measures`."""
  return dict(zip(COLUMNS, measures(words, every_copy).T))


def step_lines(
  batch: pa.RecordBatch,
  config: LineConfig,
  state: Mapping[str, np.ndarray] | None = None,
) -> pa.RecordBatch:
  """Removes the lines of logs: their words are mostly those of the lines before them.

  Error messages and the like: long, and each unique as a line; see measures/logs.py.
  A document without any other line is dropped as 'repetition.nothing_left'.
  """
  categories = np.array(batch['category'].to_pylist(), object)
  skip = np.isin(categories, config.categories)
  words = texts.analyse(batch, skip, config.max_characters)
  return cut(batch, words, _logs(words, config), 'repetition.nothing_left')


def _logs(words, config):
  """bool [lines]: the lines of logs."""
  line_words, digits = words.line_words(), logs.digits(words)
  shared = (words.hashes, words.sizes, digits, words.first, words.scale)
  settings = (config.gram, config.copies, config.every_copy)
  covered, marked = logs.coverage(*shared, line_words, words.line_first, *settings)
  count = np.diff(line_words)
  scale = np.repeat(words.scale, np.diff(words.line_first))
  repeats = (covered > np.float32(config.coverage)) & (
    count >= config.min_words * scale
  )
  content = (words.lines, line_words, words.sizes, digits)
  kinds = logs.kinds(*content, repeats, covered, marked, config.every_copy)
  remove = np.zeros(len(kinds), bool)
  for kind, least in {**logs.RUNS, logs.NUMBERS: config.run}.items():
    same = (kinds > 0) & (kinds <= kind)
    remove |= logs.runs(same, count, words.line_first, least)
  return logs.units(remove, covered, words.data, words.lines, words.line_first)


def cut(
  batch: pa.RecordBatch, words: texts.Words, remove: np.ndarray, reason: str
) -> pa.RecordBatch:
  """A batch without the lines `remove` (bool [lines]) of `words`.

  A document with nothing left is dropped for `reason`, with the number of its lines,
  and keeps its text for the report. Text after the part that `words` read stays.
  """
  rows, values, drops = [], [], {}
  first = words.line_first
  removed = np.append(0, np.cumsum(remove))
  remove = remove | _gaps(remove, words.lines['hash'] == 0, first)
  for row in np.flatnonzero(removed[first[1:]] > removed[first[:-1]]).tolist():
    lines = words.lines[first[row] : first[row + 1]]
    stays = ~remove[first[row] : first[row + 1]]
    # Neighbours that stay are copied together.
    edge = np.diff(np.concatenate([[False], stays, [False]]).astype(np.int8))
    starts = lines['start'][np.flatnonzero(edge == 1)]
    ends = lines['end'][np.flatnonzero(edge == -1) - 1]
    parts = [words.data[a:b].tobytes() for a, b in zip(starts, ends)]
    rest = words.data[lines['end'][-1] : words.ends[row]].tobytes()
    left = (b'\n'.join(parts) + rest).decode('utf-8', 'replace').strip('\n')
    if left.strip():
      rows.append(row)
      values.append(left)
    else:
      drops[row] = (reason, float(len(lines)))
  if rows:
    batch = put_text(batch, rows, values)
  return documents.drop(batch, drops)


@compiled.kernel(compiled.FLAGS, compiled.FLAGS, compiled.NUMBERS)
def _gaps(remove, blank, first):
  """bool [lines]: blank lines beside removed ones that would leave two in a row."""
  result = np.zeros(len(remove), np.bool_)
  for d in range(len(first) - 1):
    after_blank, gap = True, False
    for i in range(first[d], first[d + 1]):
      if remove[i]:
        gap = True
      elif blank[i] and gap and after_blank:
        result[i] = True
      else:
        after_blank, gap = blank[i], False
  return result


def put_text(
  batch: pa.RecordBatch, rows: Sequence[int], values: Sequence[str]
) -> pa.RecordBatch:
  """`documents.put` of texts, by Arrow alone."""
  mask = np.zeros(batch.num_rows, bool)
  mask[rows] = True
  field = batch.schema.field('text')
  new = pa.array(values, field.type)
  column = pc.replace_with_mask(batch['text'], pa.array(mask), new)
  return batch.set_column(batch.schema.get_field_index('text'), field, column)


def _paragraphs(words):
  """(hashes, sizes, first): runs of lines that are not blank."""
  count = len(words.lines)
  hashes, sizes = np.zeros(count, np.uint64), np.zeros(count, np.int32)
  first = np.zeros(len(words.line_first), np.int64)
  line_hashes = np.ascontiguousarray(words.lines['hash'])
  line_sizes = np.ascontiguousarray(words.lines['size'])
  used = _runs(line_hashes, line_sizes, words.line_first, hashes, sizes, first)
  return hashes[:used], sizes[:used], first


@compiled.kernel(
  *(compiled.KEYS, compiled.SIZES, compiled.NUMBERS),
  *(compiled.KEYS, compiled.SIZES, compiled.NUMBERS),
)
def _runs(line_hashes, line_sizes, line_first, hashes, sizes, first):
  used = 0
  for d in range(len(line_first) - 1):
    inside = False
    for i in range(line_first[d], line_first[d + 1]):
      if line_hashes[i] == 0:
        inside = False
        continue
      if not inside:
        used += 1
        inside = True
      hashes[used - 1] = hashes[used - 1] * MULTIPLIER + line_hashes[i]
      sizes[used - 1] += line_sizes[i]
    first[d + 1] = used
  return used


@compiled.kernel(
  compiled.KEYS, compiled.SIZES, compiled.NUMBERS, compiled.TABLE_F, compiled.INT
)
def _duplicates(hashes, sizes, first, result, at):
  """Fills columns `at` and `at` + 2 with the shares by number and by characters."""
  longest, slots = copies.room(first)
  table, stamps = np.zeros(slots, np.int64), np.full(slots, -1, np.int64)
  head, times = np.zeros(longest, np.int64), np.zeros(longest, np.int64)
  places = np.arange(longest)
  for d in range(len(first) - 1):
    part, size = hashes[first[d] : first[d + 1]], sizes[first[d] : first[d + 1]]
    n = len(part)
    copies.heads(part, places, n, table, stamps, d, copies.mask(n, slots), head, times)
    later = later_size = total = 0
    for i in range(n):
      total += size[i]
      if head[i] != i:
        later += 1
        later_size += size[i]
    result[d, at] = later / max(n, 1)
    result[d, at + 2] = later_size / max(total, 1)


@compiled.kernel(
  *(compiled.KEYS, compiled.SIZES, compiled.NUMBERS, compiled.NUMBERS),
  *(compiled.BOOL, compiled.TABLE_F, compiled.INT),
)
def _coverage(hashes, sizes, first, scale, every_copy, result, at):
  """Fills columns `at` + 2 and on with the coverage by 2-grams to 10-grams."""
  longest, slots = copies.room(first)
  table, stamps = np.zeros(slots, np.int64), np.full(slots, -1, np.int64)
  head, times = np.zeros(longest, np.int64), np.zeros(longest, np.int64)
  places, grams = np.zeros(longest, np.int64), np.zeros(longest, np.uint64)
  ends = np.zeros(longest + 1, np.int64)
  stamp = np.int64(0)
  for d in range(len(first) - 1):
    part, size = hashes[first[d] : first[d + 1]], sizes[first[d] : first[d + 1]]
    n = len(part)
    for i in range(n):
      ends[i + 1] = ends[i] + size[i]
      places[i], grams[i] = i, 0
    count, length = n, np.int64(0)
    for gram in range(2, 11):
      while count and places[count - 1] + gram * scale[d] > n:
        count -= 1
      if count < 2:
        break
      for step in range(length, gram * scale[d]):
        for k in range(count):
          i = places[k]
          grams[i] = grams[i] * MULTIPLIER + part[i + step]
      length = gram * scale[d]
      mask = copies.mask(count, slots)
      copies.heads(grams, places, count, table, stamps, stamp, mask, head, times)
      stamp += 1
      # An n-gram that repeats begins with an (n-1)-gram that repeats: the others go.
      left = np.int64(0)
      for k in range(count):
        if times[head[places[k]]] > 1:
          places[left] = places[k]
          left += 1
      count = left
      best = _best(places, count, head, times, ends, length) if gram <= 4 else -1
      every = every_copy or gram <= 4
      covered = _union(places, count, head, ends, length, best, every)
      result[d, at + gram] = covered / max(ends[n], 1)


@compiled.once
def _best(places, count, head, times, ends, length):
  """The place of the n-gram whose copies have most characters; the first of equals."""
  best, most = -1, 0
  for k in range(count):
    i = places[k]
    weight = times[i] * (ends[i + length] - ends[i]) if head[i] == i else 0
    if weight > most:
      best, most = i, weight
  return best


@compiled.once
def _union(places, count, head, ends, length, only, every):
  """Characters in the copies of n-grams; `only` = place of one n-gram, or -1 = any."""
  total = upto = 0
  for k in range(count):
    i = places[k]
    if (only < 0 or head[i] == only) and (every or head[i] != i):
      total += ends[i + length] - ends[max(i, upto)]
      upto = i + length
  return total
