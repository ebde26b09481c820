"""Narrow files of keys that de-duplication reads a range at a time (3.1.1).

Each shard's rows are stored in the order of their first column, `key` (uint64, a hash).
A partition is a range of keys, found by binary search in every file. The number of
partitions is decided when the number of rows is known, so that memory is bounded by a
number of bytes and not by the size of the corpus.
"""

import os
import pathlib
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from llama3_jax.curate.machine import documents
from llama3_jax.curate.machine import tables

# Memory as a multiple of a partition's bytes: mapped, joined, sorted and compared.
COPIES = 8


def partitions(total_rows: int, row_bytes: float, memory_bytes: int) -> int:
  """Number of partitions (a power of 2) so that one fits into memory_bytes."""
  count = 1
  while total_rows * row_bytes * COPIES > memory_bytes * count:
    count *= 2
  return count


def write(path: str | os.PathLike, table: pa.Table) -> None:
  """Stores a table in the order of `key`; rows of equal keys keep their order."""
  path = pathlib.Path(path)
  order = np.argsort(table['key'].to_numpy(), kind='stable')
  table = table.take(pa.array(order)).combine_chunks()
  tables.write(path, table)


def rows(paths: Iterable[str | os.PathLike]) -> int:
  """Number of rows of all files."""
  return sum(len(tables.read(path)) for path in paths)


def read(paths: Sequence[str | os.PathLike], partition: int, count: int) -> pa.Table:
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
    # A copy: a slice would keep the file mapped, and mapped files count as memory.
    parts.append(table.take(pa.array(np.arange(start, end))))
    del key, table
  return pa.concat_tables(parts).combine_chunks()


def ordered(table: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """(key uint64 [rows], order int64 [rows], first int64 [groups]) of a table.

  `key` is sorted; `order` holds the rows in that order, equal keys in their original
  order; `first` holds the beginning of each group of equal keys.
  """
  key = table['key'].to_numpy()
  order = np.argsort(key, kind='stable')
  key = key[order]
  first = np.flatnonzero(np.append(True, key[1:] != key[:-1])[: len(key)])
  return key, order, first


def drops(tables: Iterable[pa.Table], value: str) -> dict[str, np.ndarray]:
  """State from tables (id, `value`): sorted ids uint64 [n] and values float32 [n]."""
  tables = list(tables)
  ids = np.concatenate([np.zeros(0, np.uint64), *(t['id'].to_numpy() for t in tables)])
  values = [np.zeros(0, np.float32), *(t[value].to_numpy() for t in tables)]
  order = np.argsort(ids)
  return {
    'ids': ids[order],
    'values': np.concatenate(values).astype(np.float32)[order],
  }


def drop(
  batch: pa.RecordBatch, state: Mapping[str, np.ndarray], reason: str
) -> pa.RecordBatch:
  """Drops the documents that are in a state of `drops` and alive, for `reason`."""
  rows = documents.alive(batch)
  ids = np.asarray(batch['id'])[rows]
  index, present = lookup(state['ids'], ids)
  pairs = zip(rows[present].tolist(), state['values'][index[present]].tolist())
  return documents.drop(batch, {row: (reason, value) for row, value in pairs})


def lookup(ordered: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Positions of values in a sorted array.

  Returns:
    (index int64 [n], found bool [n]): position of each value, and whether it is there.
  """
  if len(ordered) == 0:
    return np.zeros(len(values), np.int64), np.zeros(len(values), bool)
  index = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
  return index, ordered[index] == values
