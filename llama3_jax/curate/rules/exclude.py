"""Benchmark items are kept out of the training data (3.1.3).

An item is found when its folded words are a whole document, paragraph or line (exact),
or when a share of its word 8-grams occurs in a document, also where all numbers are
others. What a word is follows from its script (measures/folded.py), not from the
language or category of the document.
"""

import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError
from llama3_jax.curate.machine import compiled
from llama3_jax.curate.machine import documents
from llama3_jax.curate.machine import keys as key_files
from llama3_jax.curate.machine import search
from llama3_jax.curate.measures import folded
from llama3_jax.curate.measures import phrases
from llama3_jax.curate.measures.words import MULTIPLIER

COLUMN, ITEM = 'benchmark.share', 'benchmark.item'
MARGIN = 0.1  # of shares, by which an item is more alike without its numbers
FILTER = 1 << 20  # bits at least, and 16 or more an n-gram
# Numbers without a digit; articles are none.
SPELT = (
  'two three four five six seven eight nine ten eleven twelve thirteen fourteen '
  'fifteen sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy '
  'eighty ninety hundred thousand million half twice double triple '
  'zwei drei vier fünf sechs sieben acht neun zehn elf zwölf zwanzig hundert tausend '
  'deux trois quatre cinq sept huit neuf dix onze douze vingt cent mille '
  'dos tres cuatro cinco seis siete ocho nueve diez once doce veinte cien mil '
  'due tre quattro cinque sei sette otto nove dieci dodici venti cento '
  'dois duas três quatro sete oito dez onze doze vinte cem '
  '一 二 三 四 五 六 七 八 九 十 百 千 万 两'
)


@dataclasses.dataclass(frozen=True)
class Config:
  """Benchmark items, and when a document contains one.

  Attributes:
    files: JSONL files of items (.jsonl or .jsonl.gz); the name of an item is
      <file name>#<line from 0>.<field>.
    fields: fields of an item that are searched, each by itself; missing ones are
      skipped.
    gram: words of the n-grams.
    share: of an item's different n-grams, from which a document is dropped.
    numbers_share: the same with all numbers taken for one, for an item with numbers: a
      document of which it is that has the item with other numbers; 0 = off.
    min_words: shorter items are not searched: a line 'Yes' is not a leak.
  """

  files: tuple[str, ...] = ()
  fields: tuple[str, ...] = ('question',)
  gram: int = 8
  share: float = 0.5
  numbers_share: float = 0.8
  min_words: int = 5


@dataclasses.dataclass(frozen=True)
class Items:
  """Items, indexed for the search.

  Attributes:
    names: of the items.
    exact, exact_item: sorted hashes of whole items, uint64 [n], and the item of each.
    plain: their n-grams.
    shapes: their n-grams where all numbers are one (folded.shapes).
    near: the n-grams that a document has at least one of, if it has one of the others:
      each word with a digit is one and the same.
  """

  names: tuple[str, ...]
  exact: np.ndarray
  exact_item: np.ndarray
  plain: 'Grams'
  shapes: 'Grams'
  near: 'Grams'


@dataclasses.dataclass(frozen=True)
class Grams:
  """N-grams of items.

  Attributes:
    grams, items: sorted hashes of n-grams, uint64 [m], and the item of each.
    sizes: int64 [items]: different n-grams.
    filter: bool [a power of 2]: whether an n-gram has these hash bits.
  """

  grams: np.ndarray
  items: np.ndarray
  sizes: np.ndarray
  filter: np.ndarray


@functools.lru_cache(maxsize=4)
def load(config: Config) -> Items:
  """Items of the files of a config.

  Raises:
    UserError: a file that cannot be read, or without any of the fields.
  """
  names, contents = [], []
  for path in config.files:
    before = len(names)
    rows = jsonl.read(path, 'curate.exclude.files')
    for number, (_, row) in enumerate(rows):
      for field in config.fields:
        if isinstance(row.get(field), str):
          names.append(f'{pathlib.Path(path).name}#{number}.{field}')
          contents.append(row[field])
    if len(names) == before:
      raise UserError(f'{path}: no item has a text {" or ".join(config.fields)}')
  return _items(names, contents, config)


def step(
  batch: pa.RecordBatch, config: Config, state: Mapping[str, np.ndarray] | None = None
) -> pa.RecordBatch:
  """Adds COLUMN (highest share) and ITEM; drops 'benchmark.exact', 'benchmark.ngram',
  and 'benchmark.numbers' for an item of which the numbers alone are others."""
  items = load(config)
  words = folded.analyse(batch)
  near = _near(words, items.near, config.gram)
  share, item = _shares(words, near, items.plain, config.gram)
  exact = _exact(words, items)
  share, item = np.where(exact >= 0, 1, share), np.where(exact >= 0, exact, item)
  numbers = np.zeros(len(share), bool)
  if config.numbers_share:
    near &= share < 1
    changed, which = _shares(_shaped(words, near), near, items.shapes, config.gram)
    numbers = near & (changed >= config.numbers_share) & (changed > share + MARGIN)
    share, item = np.where(numbers, changed, share), np.where(numbers, which, item)
  rows = np.flatnonzero(np.diff(words.first))
  batch = documents.add(batch, COLUMN, rows, share[rows])
  rows = np.flatnonzero(item >= 0)
  names = [items.names[i] for i in item[rows]]
  batch = documents.add(batch, ITEM, rows, names, pa.string())
  drops = {}
  for row in np.flatnonzero(
    numbers | (exact >= 0) | (share >= config.share) & (item >= 0)
  ):
    rule = 'exact' if exact[row] >= 0 else 'numbers' if numbers[row] else 'ngram'
    drops[int(row)] = (f'benchmark.{rule}', float(share[row]))
  return documents.drop(batch, drops)


def _items(names, contents, config):
  exact, plain, shaped, near = {}, {}, {}, {}
  words, spelt = folded.of(contents), _spelt()
  for i, (first, end) in enumerate(itertools.pairwise(words.first)):
    part, weights = words.hashes[first:end], words.weights[first:end]
    if weights.sum() < config.min_words * folded.WORD:
      continue
    exact.setdefault(phrases.fold(part), i)
    plain[i] = part, weights
    near[i] = np.where(part & folded.ONE, folded.NUMBER, part), weights
    shape = folded.shapes(part, weights, spelt)
    if folded.NUMBER in shape[0]:
      shaped[i] = shape
  order = sorted(exact)
  return Items(
    tuple(names),
    np.array(order, np.uint64),
    np.array([exact[value] for value in order], np.int64),
    *(_grams(part, len(names), config.gram) for part in (plain, shaped, near)),
  )


def _grams(parts, count, size):
  """Grams of {item: (hashes, weights)} of `count` items."""
  pairs, sizes = [], np.zeros(count, np.int64)
  for i, part in parts.items():
    every = set(folded.grams(*part, size)[0].tolist())
    sizes[i] = len(every)
    pairs += [(gram, i) for gram in every]
  pairs.sort()
  keys = np.array([gram for gram, _ in pairs], np.uint64)
  return Grams(keys, np.array([i for _, i in pairs], np.int64), sizes, sieve(keys))


@functools.cache
def _spelt():
  """uint64 [n]: sorted hashes of SPELT."""
  return np.unique(folded.of([SPELT]).hashes)


def _shaped(words, which):
  """Words of the documents `which` (bool), all numbers one; the others have none."""
  spelt = _spelt()
  parts = [
    folded.shapes(words.hashes[a:b], words.weights[a:b], spelt)
    if one
    else (words.hashes[:0], words.weights[:0])
    for one, (a, b) in zip(which, itertools.pairwise(words.first))
  ]
  first = np.append(0, np.cumsum([len(part) for part, _ in parts], dtype=np.int64))
  hashes, weights = (np.concatenate([p[k] for p in parts]) for k in range(2))
  return dataclasses.replace(words, hashes=hashes, weights=weights, first=first)


def sieve(grams: np.ndarray) -> np.ndarray:
  """bool [a power of 2]: whether an n-gram (uint64) has these hash bits."""
  mask = np.zeros(max(FILTER, 1 << (16 * len(grams)).bit_length()), bool)
  mask[grams & np.uint64(len(mask) - 1)] = True
  return mask


def _exact(words, items):
  """int64 [documents]: an item that is the document, a paragraph or a line; or -1."""
  result = np.full(len(words.first) - 1, -1, np.int64)
  owner = np.repeat(np.arange(len(result)), np.diff(words.line_first))
  begins = np.append(True, words.blank[:-1] | (np.diff(owner) > 0))[: len(owner)]
  paragraphs = np.append(words.line[:-1][begins], len(words.hashes))
  for segments in (words.line, paragraphs, words.first):
    hashes = _folds(words.hashes, segments)
    index, present = key_files.lookup(items.exact, hashes)
    present &= np.diff(segments) > 0
    rows = np.searchsorted(words.first, segments[:-1][present], 'right') - 1
    result[rows] = items.exact_item[index[present]]
  return result


def _shares(words, near, items, gram):
  """(float64, int64) [documents]: the highest share of an item, and the item or -1; of
  the documents `near` (bool)."""
  share = np.zeros(len(words.first) - 1)
  item = np.full(len(share), -1, np.int64)
  if not near.any() or not len(items.grams):
    return share, item
  content = (words.hashes, words.weights, words.first)
  grams, rows = _matches(*content, near, gram, items.filter)
  low = np.searchsorted(items.grams, grams, 'left')
  count = np.searchsorted(items.grams, grams, 'right') - low
  # Every item of every n-gram that was found, once per document.
  index = np.repeat(low - np.cumsum(count) + count, count) + np.arange(count.sum())
  pairs = np.unique(np.stack([np.repeat(rows, count), index]), axis=1)
  pairs, hits = np.unique(
    np.stack([pairs[0], items.items[pairs[1]]]), axis=1, return_counts=True
  )
  for row, i, number in zip(*pairs.tolist(), hits.tolist()):
    if number / items.sizes[i] > share[row]:
      share[row], item[row] = min(number / items.sizes[i], 1.0), i
  return share, item


def _near(words, items, gram):
  """bool [documents]: has an n-gram of the items, but for numbers."""
  result = np.zeros(len(words.first) - 1, bool)
  if len(items.grams):
    content = (words.hashes, words.weights, words.first)
    _find(*content, gram, items.filter, items.grams, result)
  return result


@compiled.kernel(
  *(compiled.KEYS, compiled.TEXT, compiled.NUMBERS, compiled.INT),
  *(compiled.FLAGS, compiled.KEYS, compiled.FLAGS),
)
def _find(hashes, weights, first, size, known, grams, result):
  low, least = np.uint64(len(known) - 1), size * folded.WORD
  powers = np.ones(least, np.uint64)
  for k in range(1, len(powers)):
    powers[k] = powers[k - 1] * MULTIPLIER
  for d in range(len(first) - 1):
    value, end, weight = np.uint64(0), first[d], 0
    for i in range(first[d], first[d + 1]):
      while weight < least and end < first[d + 1]:
        value = value * MULTIPLIER + folded.number(hashes[end])
        weight += weights[end]
        end += 1
      if weight < least:
        break
      if known[value & low]:
        at = search.place(grams, value)
        if at < len(grams) and grams[at] == value:
          result[d] = True
          break
      value -= folded.number(hashes[i]) * powers[end - i - 1]
      weight -= weights[i]


@compiled.kernel(compiled.KEYS, compiled.NUMBERS)
def _folds(hashes, first):
  """uint64 [segments]: hash of all words of each segment."""
  result = np.zeros(len(first) - 1, np.uint64)
  for s in range(len(result)):
    for i in range(first[s], first[s + 1]):
      result[s] = result[s] * MULTIPLIER + hashes[i]
  return result


def matches(
  words: folded.Folded, size: int, known: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """(uint64 n-grams of `size` words, int64 documents) that may be an item's.

  known: as `sieve` gives it.
  """
  every = np.ones(len(words.first) - 1, bool)
  return _matches(words.hashes, words.weights, words.first, every, size, known)


@compiled.kernel(
  *(compiled.KEYS, compiled.TEXT, compiled.NUMBERS, compiled.FLAGS),
  *(compiled.INT, compiled.FLAGS),
)
def _matches(hashes, weights, first, which, size, known):
  # Memory that is not written to costs nothing.
  grams, rows = np.empty(len(hashes), np.uint64), np.empty(len(hashes), np.int64)
  low, n = np.uint64(len(known) - 1), 0
  for d in range(len(which)):
    if not which[d]:
      continue
    begin, end = first[d], first[d + 1]
    values, _ = folded.runs(hashes[begin:end], weights[begin:end], size)
    for k in range(len(values)):
      if known[values[k] & low]:
        grams[n], rows[n] = values[k], d
        n += 1
  return grams[:n], rows[:n]
