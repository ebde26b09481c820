"""Narrow files of keys that de-duplication reads a range at a time (3.1.1).

Each shard's rows are stored in the order of their first column, `key` (uint64, a hash).
A partition is a range of keys, found by binary search in every file, so how many there
are is decided when the number of rows is known, and memory is bounded by a number of
bytes and not by the corpus.
"""

import pathlib

import numpy as np
import pyarrow as pa

from llama3_jax.curate.machine import documents
from llama3_jax.curate.machine import tables

# A partition is mapped, joined, sorted and compared: its bytes, so many times.
COPIES = 8


def partitions(total_rows, row_bytes, memory_bytes):
  """Number of partitions (a power of 2) so that one fits into memory_bytes."""
  count = 1
  while total_rows * row_bytes * COPIES > memory_bytes * count:
    count *= 2
  return count


def write(path, table):
  """Stores a table in the order of `key`; rows of equal keys keep their order."""
  path = pathlib.Path(path)
  order = np.argsort(table['key'].to_numpy(), kind='stable')
  table = table.take(pa.array(order)).combine_chunks()
  tables.write(path, table)


def rows(paths):
  """Number of rows of all files."""
  return sum(len(tables.read(path)) for path in paths)


def read(paths, partition, count):
  """Rows of one of `count` partitions of all files, in the order of the files.

  Args:
    partition: 0 .. count - 1; partitions are equal ranges of keys, in order.
  """
  low = np.uint64((partition << 64) // count)
  last = np.uint64((((partition + 1) << 64) // count) - 1)
  parts = []
  for path in paths:
    table = tables.read(path)
    if len(table) == 0:
      parts.append(table)
      continue
    key = table['key'].chunk(0).to_numpy()  # of a mapped file: nothing is read here
    start = np.searchsorted(key, low, 'left')
    end = np.searchsorted(key, last, 'right')
    # A copy: a slice would keep the file mapped, and all files count as memory.
    parts.append(table.take(pa.array(np.arange(start, end))))
    del key, table
  return pa.concat_tables(parts).combine_chunks()


def ordered(table):
  """(key uint64 [rows], order int64 [rows], first int64 [groups]) of a table.

  `key` is sorted, `order` gives the rows in that order, equal keys in theirs, and a
  group of equal keys begins at each of `first`.
  """
  key = table['key'].to_numpy()
  order = np.argsort(key, kind='stable')
  key = key[order]
  first = np.flatnonzero(np.append(True, key[1:] != key[:-1])[: len(key)])
  return key, order, first


def drops(tables, value):
  """State from tables (id, `value`): sorted ids uint64 [n] and values float32 [n]."""
  tables = list(tables)
  ids = np.concatenate([np.zeros(0, np.uint64), *(t['id'].to_numpy() for t in tables)])
  values = [np.zeros(0, np.float32), *(t[value].to_numpy() for t in tables)]
  order = np.argsort(ids)
  return {
    'ids': ids[order],
    'values': np.concatenate(values).astype(np.float32)[order],
  }


def drop(batch, state, reason):
  """Marks the documents of a state of `drops` that are alive."""
  rows = documents.alive(batch)
  ids = np.asarray(batch['id'])[rows]
  place, found = lookup(state['ids'], ids)
  pairs = zip(rows[found].tolist(), state['values'][place[found]].tolist())
  return documents.drop(batch, {row: (reason, value) for row, value in pairs})


def lookup(ordered, values):
  """(place, found): where each value is in a sorted array, and whether it is there."""
  if len(ordered) == 0:
    return np.zeros(len(values), np.int64), np.zeros(len(values), bool)
  place = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
  return place, ordered[place] == values
