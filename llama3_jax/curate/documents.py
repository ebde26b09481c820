"""The table of documents that every curation step reads and extends (3.1.1).

A step is a function Table -> Table. Rows are never removed: a step writes why it drops
a document (`drop_reason`, 'step.rule') and the measured value, so thresholds can be
studied later without running again.
"""

import numpy as np
import pyarrow as pa

SCHEMA = pa.schema(
  [
    ('id', pa.int64()),  # input order
    ('url', pa.large_string()),
    ('date', pa.string()),  # ISO; compares as text
    ('source', pa.string()),
    ('category', pa.string()),  # general | code | math | multilingual
    ('html', pa.large_string()),  # null once extracted, or for plain text
    ('text', pa.large_string()),
    ('lang', pa.string()),
    ('lang_score', pa.float32()),
    ('drop_reason', pa.string()),  # null = alive
    ('drop_value', pa.float64()),
  ]
)

CATEGORIES = ('general', 'code', 'math', 'multilingual')


def table(rows):
  """Makes the table from dicts (missing fields are null); ids are positions."""
  columns = {name: [row.get(name) for row in rows] for name in SCHEMA.names}
  columns['id'] = range(len(rows))
  return pa.table(columns, schema=SCHEMA)


def alive(table):
  """np.int64 [n]: positions of the documents that no step has dropped."""
  return np.flatnonzero(table['drop_reason'].is_null().to_numpy())


def take(table, name, rows):
  """Values of a column at positions `rows`, as a list of Python objects."""
  return table[name].take(pa.array(rows, pa.int64())).to_pylist()


def put(table, name, rows, values):
  """A table in which column `name` has `values` at positions `rows`."""
  column = np.array(table[name].to_pylist(), object)
  for row, value in zip(rows, values):
    column[row] = value
  i = table.schema.get_field_index(name)
  return table.set_column(
    i, SCHEMA.field(name), pa.array(column, SCHEMA.field(name).type)
  )


def drop(table, drops):
  """Marks documents as dropped.

  Args:
    drops: dict position -> (reason 'step.rule', measured value or None).
  """
  if not drops:
    return table
  rows = sorted(drops)
  table = put(table, 'drop_reason', rows, [drops[row][0] for row in rows])
  return put(table, 'drop_value', rows, [drops[row][1] for row in rows])
