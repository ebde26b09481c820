"""De-duplication of lines within buckets of documents, in the manner of ccNet (3.1.1).

The key of a line has no case, punctuation and control characters, digits are 0, and
runs of spaces are one. All copies of a line seen more than `limit` times are removed,
as in the paper; ccNet keeps the first.
"""

import dataclasses
from collections.abc import Iterable
from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from llama3_jax.curate.machine import documents
from llama3_jax.curate.machine import keys as key_files
from llama3_jax.curate.measures import repetition
from llama3_jax.curate.measures import words as texts


@dataclasses.dataclass(frozen=True)
class Config:
  """Which lines are too frequent.

  Attributes:
    limit: copies that stay.
    scope: where copies count together, out of documents.SCOPES.
    bucket: documents of a bucket.
    categories: documents that are left alone: a repeated `else:` is not boilerplate.
  """

  limit: int = 6
  scope: tuple[str, ...] = ('bucket', 'language')
  bucket: int = 30_000_000
  categories: tuple[str, ...] = ('code',)


def emit(batches: Iterable[pa.RecordBatch], config: Config) -> dict[str, pa.Table]:
  """{'keys': (key uint64, count uint32)} of the lines of a shard."""
  keys, counts = np.zeros(0, np.uint64), np.zeros(0, np.int64)
  waiting = []
  for batch in batches:
    hashes = _keys(batch, config)[1]
    waiting.append(hashes[hashes != 0])
    if sum(map(len, waiting)) > max(len(keys), 1 << 20):
      keys, counts = _merge(keys, counts, waiting)
      waiting = []
  keys, counts = _merge(keys, counts, waiting)
  return {'keys': pa.table({'key': keys, 'count': counts.astype(np.uint32)})}


def reduce(rows: pa.Table, config: Config) -> pa.Table:
  """Table of one column, key, of the lines that are too frequent."""
  key, order, first = key_files.ordered(rows)
  count = rows['count'].to_numpy().astype(np.int64)[order]
  total = np.add.reduceat(count, first) if len(first) else count
  return pa.table({'key': key[first][total > config.limit]})


def resolve(
  reduced: Iterable[pa.Table], sides: Iterable[pa.Table], config: Config
) -> dict[str, np.ndarray]:
  """State: keys, sorted uint64 [n], of the lines to remove."""
  parts = [np.zeros(0, np.uint64), *(table['key'].to_numpy() for table in reduced)]
  return {'keys': np.sort(np.concatenate(parts))}


def step(
  batch: pa.RecordBatch, config: Config, state: Mapping[str, np.ndarray]
) -> pa.RecordBatch:
  """Removes the frequent lines.

  A document without any other line is dropped as 'line.nothing_left'.
  """
  words, keys = _keys(batch, config)
  remove = key_files.lookup(state['keys'], keys)[1] & (keys != 0)
  return repetition.cut(batch, words, remove, 'line.nothing_left')


def _keys(batch, config):
  """(Words, uint64 [lines]): key of each line in its scope; 0 = none."""
  categories = np.array(batch['category'].to_pylist(), object)
  words = texts.analyse(batch, np.isin(categories, config.categories))
  scope = documents.scope(batch, config.scope, config.bucket).astype(np.uint64)
  scope = np.repeat(scope, np.diff(words.line_first))
  key = words.lines['key']
  return words, np.where(key != 0, np.maximum(texts.mixed(key ^ scope), 1), 0).astype(
    np.uint64
  )


def _merge(keys, counts, waiting):
  """(keys, counts) of counted keys with those of lists of keys added."""
  new, number = np.unique(np.concatenate([keys[:0], *waiting]), return_counts=True)
  every, index = np.unique(np.concatenate([keys, new]), return_inverse=True)
  total = np.zeros(len(every), np.int64)
  np.add.at(total, index, np.concatenate([counts, number]))
  return every, total
