"""The table of documents that every curation step reads and extends (3.1.1).

A batch is a pyarrow.RecordBatch of documents. A step is a function batch -> batch that
adds columns. Rows are never removed: a step writes why it drops a document
(`drop_reason`, 'step.rule') and the measured value, so thresholds can be studied later
without running again.
"""

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


def batch(rows, first=0):
  """A batch of dicts; missing fields are null; ids count from `first`."""
  columns = {name: [row.get(name) for row in rows] for name in SCHEMA.names}
  columns['id'] = range(first, first + len(rows))
  return pa.record_batch(columns, schema=SCHEMA)


def alive(batch):
  """np.int64 [n]: positions of the documents that no step has dropped."""
  return np.flatnonzero(np.asarray(batch['drop_reason'].is_null()))


def take(batch, name, rows):
  """Values of a column at positions `rows`, as a list of Python objects."""
  return batch[name].take(pa.array(rows, pa.int64())).to_pylist()


def put(batch, name, rows, values):
  """A batch in which column `name` has `values` at positions `rows`."""
  column = np.array(batch[name].to_pylist(), object)
  for row, value in zip(rows, values):
    column[row] = value
  i = batch.schema.get_field_index(name)
  field = batch.schema.field(name)
  return batch.set_column(i, field, pa.array(column, field.type))


def add(batch, name, rows, values, type=pa.float32()):
  """A batch with a measured column: `values` at positions `rows`, null elsewhere."""
  column = np.full(batch.num_rows, None, object)
  for row, value in zip(rows, values):
    column[row] = value
  return _put_column(batch, name, pa.array(column, type))


def floats(batch, name):
  """float32 [documents] of a measured column; NaN where it is null."""
  return batch[name].to_numpy(zero_copy_only=False).astype(np.float32)


def put_floats(batch, name, values, missing):
  """A batch with a measured column of all documents; null where `missing`."""
  return _put_column(batch, name, pa.array(values, mask=missing))


def drop(batch, drops):
  """Marks documents as dropped.

  Args:
    drops: dict position -> (reason 'step.rule', measured value or None).
  """
  if not drops:
    return batch
  rows = sorted(drops)
  batch = put(batch, 'drop_reason', rows, [drops[row][0] for row in rows])
  return put(batch, 'drop_value', rows, [drops[row][1] for row in rows])


def scope(batch, kinds, bucket):
  """np.uint64 [documents]: equal where two documents are compared.

  Args:
    kinds: out of SCOPES; none is the whole corpus.
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
  """The batch with a column, new or in the place of the old one."""
  i, field = batch.schema.get_field_index(name), pa.field(name, array.type)
  if i >= 0:
    return batch.set_column(i, field, array)
  return batch.append_column(field, array)
