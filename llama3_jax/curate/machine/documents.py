"""The table of documents that every curation step reads and extends (3.1.1).

A batch is a pyarrow.RecordBatch of documents. A step is a function batch -> batch that
adds columns. Rows are never removed: a step writes why it drops a document
(`drop_reason`, 'step.rule') and the measured value, so thresholds can be studied later
without running again.
"""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import xxhash

SCHEMA = pa.schema(
  [
    ('id', pa.uint64()),  # number of the shard << 32 | row in it
    ('url', pa.large_string()),
    ('host', pa.string()),
    ('date', pa.string()),  # ISO; compares as text
    ('source', pa.string()),
    ('category', pa.string()),  # one of CATEGORIES
    ('html', pa.large_string()),  # null once extracted, or for plain text
    ('text', pa.large_string()),
    ('lang', pa.string()),
    ('lang_score', pa.float32()),
    ('drop_reason', pa.string()),  # null = alive
    ('drop_value', pa.float64()),
  ]
)

CATEGORIES = ('general', 'code', 'math', 'multilingual')
WEB = ('general', 'multilingual')  # prose
SCOPES = ('bucket', 'language')


def batch(rows: Sequence[Mapping[str, object]], first: int = 0) -> pa.RecordBatch:
  """A batch of dicts as SCHEMA; missing fields are null, ids count from `first`."""
  columns = {name: [row.get(name) for row in rows] for name in SCHEMA.names}
  columns['id'] = range(first, first + len(rows))
  return pa.record_batch(columns, schema=SCHEMA)


def alive(batch: pa.RecordBatch) -> np.ndarray:
  """np.int64 [n]: positions of the documents that no step has dropped."""
  return np.flatnonzero(np.asarray(batch['drop_reason'].is_null()))


def take(batch: pa.RecordBatch, name: str, rows: Sequence[int] | np.ndarray) -> list:
  """Values of a column at positions `rows`, as a list of Python objects."""
  return batch[name].take(pa.array(rows, pa.int64())).to_pylist()


def put(
  batch: pa.RecordBatch, name: str, rows: Iterable[int], values: Iterable[object]
) -> pa.RecordBatch:
  """A batch in which column `name` has `values` at positions `rows`."""
  column = np.array(batch[name].to_pylist(), object)
  for row, value in zip(rows, values):
    column[row] = value
  i = batch.schema.get_field_index(name)
  field = batch.schema.field(name)
  return batch.set_column(i, field, pa.array(column, field.type))


def add(
  batch: pa.RecordBatch,
  name: str,
  rows: Iterable[int],
  values: Iterable[object],
  type: pa.DataType = pa.float32(),
) -> pa.RecordBatch:
  """A batch with a measured column: `values` at positions `rows`, null elsewhere."""
  column = np.full(batch.num_rows, None, object)
  for row, value in zip(rows, values):
    column[row] = value
  return _put_column(batch, name, pa.array(column, type))


def floats(batch: pa.RecordBatch, name: str) -> np.ndarray:
  """float32 [documents] of a measured column; NaN where it is null."""
  return batch[name].to_numpy(zero_copy_only=False).astype(np.float32)


def put_floats(
  batch: pa.RecordBatch, name: str, values: np.ndarray, missing: np.ndarray
) -> pa.RecordBatch:
  """A batch with a measured column of all documents; null where `missing` (bool)."""
  return _put_column(batch, name, pa.array(values, mask=missing))


def drop(
  batch: pa.RecordBatch, drops: Mapping[int, tuple[str, float | None]]
) -> pa.RecordBatch:
  """Marks documents as dropped.

  Args:
    drops: dict position -> (reason 'step.rule', measured value or None).
  """
  if not drops:
    return batch
  rows = sorted(drops)
  batch = put(batch, 'drop_reason', rows, [drops[row][0] for row in rows])
  return put(batch, 'drop_value', rows, [drops[row][1] for row in rows])


def scope(batch: pa.RecordBatch, kinds: Sequence[str], bucket: int) -> np.ndarray:
  """np.uint64 [documents]: equal where two documents are compared with each other.

  Args:
    kinds: members of SCOPES; without any, the whole corpus is compared.
    bucket: documents a bucket, by the column `ordinal` (number in the whole input).
  """
  result = np.zeros(batch.num_rows, np.uint64)
  if 'bucket' in kinds:
    result += np.asarray(batch['ordinal']).astype(np.uint64) // np.uint64(bucket)
  if 'language' in kinds:
    names = batch['lang'].to_pylist()
    hashes = {
      name: xxhash.xxh3_64_intdigest((name or '').encode()) for name in set(names)
    }
    result ^= np.array([hashes[name] for name in names], np.uint64)
  return result


def _put_column(batch, name, array):
  """A batch with a column that is added, or replaced where it exists."""
  i, field = batch.schema.get_field_index(name), pa.field(name, array.type)
  if i >= 0:
    return batch.set_column(i, field, array)
  return batch.append_column(field, array)
