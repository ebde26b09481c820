"""Benchmark items are kept out of the training data (3.1.3).

An item is found when its folded words are a whole document, paragraph or line (exact),
or when a share of its word 8-grams occurs in a document. What a word is follows from
its script (measures/folded.py), not from the language or category of the document.
"""

import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Mapping

import numba
import numpy as np
import pyarrow as pa

from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError
from llama3_jax.curate.machine import documents
from llama3_jax.curate.machine import keys as key_files
from llama3_jax.curate.measures import folded
from llama3_jax.curate.measures import phrases
from llama3_jax.curate.measures.words import MULTIPLIER

COLUMN, ITEM = 'benchmark.share', 'benchmark.item'
FILTER = 1 << 20  # bits at least, and 16 or more an n-gram


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
    min_words: shorter items are not searched: a line 'Yes' is not a leak.
  """

  files: tuple[str, ...] = ()
  fields: tuple[str, ...] = ('question',)
  gram: int = 8
  share: float = 0.5
  min_words: int = 5


@dataclasses.dataclass(frozen=True)
class Items:
  """Items, indexed for the search.

  Attributes:
    names: of the items.
    exact, exact_item: sorted hashes of whole items, uint64 [n], and the item of each.
    grams, gram_item: sorted hashes of n-grams, uint64 [m], and the item of each.
    sizes: int64 [items]: different n-grams.
    filter: bool [a power of 2]: whether an n-gram has these hash bits.
  """

  names: tuple[str, ...]
  exact: np.ndarray
  exact_item: np.ndarray
  grams: np.ndarray
  gram_item: np.ndarray
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
  """Adds COLUMN (highest share) and ITEM; drops 'benchmark.exact' and '.ngram'."""
  items = load(config)
  words = folded.analyse(batch)
  share, item = _shares(words, items, config.gram)
  exact = _exact(words, items)
  share, item = np.where(exact >= 0, 1, share), np.where(exact >= 0, exact, item)
  rows = np.flatnonzero(np.diff(words.first))
  batch = documents.add(batch, COLUMN, rows, share[rows])
  rows = np.flatnonzero(item >= 0)
  names = [items.names[i] for i in item[rows]]
  batch = documents.add(batch, ITEM, rows, names, pa.string())
  drops = {}
  for row in np.flatnonzero((exact >= 0) | (share >= config.share) & (item >= 0)):
    rule = 'exact' if exact[row] >= 0 else 'ngram'
    drops[int(row)] = (f'benchmark.{rule}', float(share[row]))
  return documents.drop(batch, drops)


def _items(names, contents, config):
  exact, grams = {}, {}
  sizes = np.zeros(len(names), np.int64)
  words = folded.of(contents)
  for i, (first, end) in enumerate(itertools.pairwise(words.first)):
    part, weights = words.hashes[first:end], words.weights[first:end]
    if weights.sum() < config.min_words * folded.WORD:
      continue
    exact.setdefault(phrases.fold(part), i)
    every = set(folded.grams(part, weights, config.gram)[0].tolist())
    sizes[i] = len(every)
    for gram in every:
      grams.setdefault(gram, set()).add(i)
  pairs = sorted((gram, i) for gram, where in grams.items() for i in where)
  keys = np.array([gram for gram, _ in pairs], np.uint64)
  order = sorted(exact)
  return Items(
    tuple(names),
    np.array(order, np.uint64),
    np.array([exact[value] for value in order], np.int64),
    keys,
    np.array([i for _, i in pairs], np.int64),
    sizes,
    sieve(keys),
  )


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


def _shares(words, items, gram):
  """(float64, int64) [documents]: the highest share of an item, and the item or -1."""
  share = np.zeros(len(words.first) - 1)
  item = np.full(len(share), -1, np.int64)
  if not len(items.grams):
    return share, item
  grams, rows = matches(words, gram, items.filter)
  low = np.searchsorted(items.grams, grams, 'left')
  count = np.searchsorted(items.grams, grams, 'right') - low
  # Every item of every n-gram that was found, once per document.
  index = np.repeat(low - np.cumsum(count) + count, count) + np.arange(count.sum())
  pairs = np.unique(np.stack([np.repeat(rows, count), index]), axis=1)
  pairs, hits = np.unique(
    np.stack([pairs[0], items.gram_item[pairs[1]]]), axis=1, return_counts=True
  )
  for row, i, number in zip(*pairs.tolist(), hits.tolist()):
    if number / items.sizes[i] > share[row]:
      share[row], item[row] = min(number / items.sizes[i], 1.0), i
  return share, item


@numba.njit(cache=True)
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
  return _matches(words.hashes, words.weights, words.first, size, known)


@numba.njit(cache=True)
def _matches(hashes, weights, first, size, known):
  grams, rows = [np.uint64(0) for _ in range(0)], [0 for _ in range(0)]
  low = np.uint64(len(known) - 1)
  for d in range(len(first) - 1):
    here = slice(first[d], first[d + 1])
    for value in folded.grams(hashes[here], weights[here], size)[0]:
      if known[value & low]:
        grams.append(value)
        rows.append(d)
  return np.array(grams), np.array(rows)
