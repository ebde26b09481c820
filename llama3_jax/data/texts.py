"""Files of documents: the output of curation, or your own (3.1)."""

import os
import pathlib
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError

KINDS = ('.jsonl', '.jsonl.gz', '.jsonl.zst', '.parquet')
ROWS = 1024  # of a Parquet file in memory at a time


def categories(folder: str | os.PathLike, field: str) -> dict[str, list[pathlib.Path]]:
  """{category: its files in order} of a folder of documents.

  A category is <category>.jsonl.gz or another of KINDS, or a folder <category>/ of such
  files. Raises UserError (naming `field`) when there is none.
  """
  paths = {}
  for path in sorted(pathlib.Path(folder).glob('*')):
    if kind := _kind(path):
      paths.setdefault(path.name.removesuffix(kind), []).append(path)
    elif path.is_dir() and (files := below(path)):
      paths.setdefault(path.name, []).extend(files)
  if not paths:
    raise UserError(
      f'{field}={folder}: no {", ".join("*" + kind for kind in KINDS)} there; curate '
      'first'
    )
  return paths


def below(folder: str | os.PathLike) -> list[pathlib.Path]:
  """The files of documents in a folder, at any depth, in the order of their names."""
  return sorted(path for path in pathlib.Path(folder).rglob('*') if _kind(path))


def read(path: str | os.PathLike, field: str) -> Iterator[dict]:
  """Yields the rows of a file, each with its `text`; it may be empty."""
  if pathlib.Path(path).suffix == '.parquet':
    return _parquet(pathlib.Path(path), field)
  return jsonl.documents(path, field)


def _kind(path):
  return path.is_file() and next((k for k in KINDS if path.name.endswith(k)), None)


def _parquet(path, field):
  """Rows of a Parquet file, ROWS at a time in memory."""
  try:
    with pq.ParquetFile(path) as file:
      kind = dict(zip(file.schema_arrow.names, file.schema_arrow.types)).get('text')
      if kind not in (pa.string(), pa.large_string()):
        what = 'is missing' if kind is None else f'is {kind}, not text'
        raise UserError(f"{field}: {path}: column 'text' {what}")
      number = 0
      for batch in file.iter_batches(ROWS):
        for row in batch.to_pylist():
          number += 1
          jsonl.text(row, 'text', f'{path}, row {number}')
          yield row
  except (OSError, pa.ArrowException) as error:
    reason = str(error).split('\n')[0]
    raise UserError(f'{field}: {path} cannot be read: {reason}') from None
