"""Rows of a file: JSONL, Parquet or CSV, told apart by its name."""

import csv
import gzip
import io
import os
import pathlib
from collections.abc import Callable
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError

PACKED = ('.gz', '.zst')
LINES = ('.jsonl', '.json', '.ndjson')
ROWS = 1024  # of a Parquet file in memory at a time
csv.field_size_limit(1 << 30)


def read(
  path: str | os.PathLike,
  field: str,
  bad: Callable[[UserError], None] | None = None,
) -> Iterator[tuple[str, dict]]:
  """Yields (where, row) of every row: `where` is 'FILE, line N' or 'FILE, row N'.

  Cells of a CSV are texts; an empty one is a field that the row does not have.

  Args:
    path: .jsonl (.json, .ndjson), .parquet or .csv; the texts also as .gz or .zst.
    field: config field that named the file, for the errors.
    bad: is called with the error of a bad line of JSON, which is left out; None: it
      raises.

  Raises:
    UserError: a name of another kind, or a file that is missing, damaged or empty.
  """
  path = pathlib.Path(path)
  kind = pathlib.Path(path.stem if path.suffix in PACKED else path.name).suffix
  if kind in LINES:
    return jsonl.read(path, field, bad=bad)
  if kind == '.parquet':
    return _parquet(path, field)
  if kind == '.csv':
    return _csv(path, field)
  known = ', '.join((*LINES, '.parquet', '.csv'))
  raise UserError(f'{field}: {path}: rows are read from {known} (also .gz and .zst)')


def _parquet(path, field):
  number = 0
  try:
    with pq.ParquetFile(path) as file:
      _once(file.schema_arrow.names, path, field)
      for batch in file.iter_batches(ROWS):
        for row in batch.to_pylist():
          number += 1
          yield f'{path}, row {number}', _given(row)
  except FileNotFoundError:
    raise UserError(f'{field}: {path} does not exist') from None
  except (OSError, pa.ArrowException) as error:
    reason = str(error).split('\n')[0]
    raise UserError(f'{field}: {path} cannot be read: {reason}') from None
  if not number:
    raise UserError(f'{field}: {path} holds no rows')


def _once(names, path, field):
  """Raises UserError for a column that is there twice: one would hide the other."""
  if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
    raise UserError(f'{field}: {path}: column {twice[0]!r} is there twice')


def _given(value):
  """A value of Parquet without the fields that are null: its structs have all."""
  if isinstance(value, dict):
    return {k: _given(v) for k, v in value.items() if v is not None}
  return [_given(v) for v in value] if isinstance(value, list) else value


def _csv(path, field):
  number = 0
  try:
    with _open(path) as file:
      reader = csv.DictReader(file, strict=True)
      names = reader.fieldnames or ()
      _once(names, path, field)
      for row in reader:
        number += 1
        where = f'{path}, line {reader.line_num}'
        if None in row or None in row.values():
          raise UserError(f'{where}: not {len(names)} cells, as the first line has')
        yield where, {name: cell for name, cell in row.items() if cell}
  except FileNotFoundError:
    raise UserError(f'{field}: {path} does not exist') from None
  except UnicodeDecodeError as error:
    raise UserError(
      f'{field}: {path}: not UTF-8 after row {number} ({error.reason}): write the file '
      'in UTF-8'
    ) from None
  except (OSError, EOFError, csv.Error, zstandard.ZstdError) as error:
    reason = ' '.join(str(error).split())
    raise UserError(
      f'{field}: {path}: unreadable after row {number} ({reason})'
    ) from None
  if not number:
    raise UserError(f'{field}: {path} holds no rows')


def _open(path):
  how = dict(encoding='utf-8-sig', newline='')
  if path.suffix == '.gz':
    return gzip.open(path, 'rt', **how)
  if path.suffix == '.zst':
    return io.TextIOWrapper(io.BufferedReader(jsonl.Frames(open(path, 'rb'))), **how)
  return open(path, **how)
