"""Reads crawled pages and documents as record batches, a batch at a time (3.1.1).

WARC, Parquet and JSON lines, plain or compressed, on disk or behind any URL that fsspec
opens. Input is not trusted: unreadable parts are reported and left out, documents that
are too large become dropped rows, and the limits, not the file, bound memory.
"""

import dataclasses
import gzip
import io
import os
import zlib
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError
from llama3_jax.curate.machine import documents
from llama3_jax.curate.reading import warc
from llama3_jax.curate.rules import urls

KINDS = ('.warc', '.jsonl', '.parquet')
COMPRESSIONS = ('.gz', '.zst')
FIELDS = ('url', 'date', 'source', 'category', 'html', 'text', 'lang')
TEXTS = ('html', 'text')
DAMAGE = (OSError, EOFError, zlib.error, zstandard.ZstdError)
CHUNK = 1 << 20


@dataclasses.dataclass(frozen=True)
class Limits:
  """Limits of the memory for reading.

  Fields:
    max_bytes: of one page or document; larger ones are dropped rows.
    batch_bytes: a batch ends early when its documents hold as much.
  """

  max_bytes: int = 10_000_000
  batch_bytes: int = 64_000_000


def batches(
  path: str | os.PathLike,
  category: str = 'general',
  source: str | None = None,
  limits: Limits = Limits(),
  documents_per_batch: int = 256,
  first_id: int = 0,
  name: str | None = None,
) -> Iterator[tuple[pa.RecordBatch, list[str]]]:
  """Reads .warc, .jsonl (both also .gz, .zst) or .parquet.

  Args:
    path: a file, or a URL that fsspec opens (s3://, gs://, memory://).
    category, source: of rows without their own; the default source is `name` without
      its suffixes.
    limits: Limits.
    documents_per_batch: maximum number of rows of a batch.
    first_id: id of the first row; the others follow.
    name: path below the input; rows without a URL are named by it and their number.
      None is the file's name.

  Yields:
    (pa.RecordBatch with the columns of documents.SCHEMA, list of str: one line for each
    part that could not be read). Rows may be dropped already: 'warc.truncated',
    'read.too_large' (value: bytes).

  Raises:
    UserError: no such file, unknown kind, no package for the URL, no text column.
  """
  path = str(path)
  name = name or path.rsplit('/', 1)[-1]
  stem, kind, compression = _kind(path, name)
  rows, problems, held = [], [], 0
  with _open(path) as f:
    for row in _rows(f, name, kind, compression, limits, documents_per_batch):
      if isinstance(row, str):
        problems.append(f'{path}: {row}')
        continue
      rows.append(_complete(row, category, source or stem, limits))
      held += len(rows[-1].get('html') or '') + len(rows[-1].get('text') or '')
      if len(rows) >= documents_per_batch or held >= limits.batch_bytes:
        yield documents.batch(rows, first_id), problems
        first_id += len(rows)
        rows, problems, held = [], [], 0
  if rows or problems:
    yield documents.batch(rows, first_id), problems


def rows(
  path: str | os.PathLike,
  category: str = 'general',
  source: str | None = None,
  limits: Limits = Limits(),
) -> tuple[list[dict[str, object]], list[str]]:
  """(list of dicts of a small file without null fields, problems)."""
  result, problems = [], []
  for batch, bad in batches(path, category, source, limits):
    problems.extend(bad)
    for row in batch.to_pylist():
      result.append({name: v for name, v in row.items() if v is not None})
  return result, problems


def readable(path: str) -> bool:
  """Whether a file's name has the suffix of a kind that `rows` reads."""
  try:
    _kind(path, path)
  except UserError:
    return False
  return True


def _kind(path, name):
  """(name without its suffixes, kind, compression)."""
  compression = next((end for end in COMPRESSIONS if name.endswith(end)), '')
  stem = name.removesuffix(compression)
  kind = next((kind for kind in KINDS if stem.endswith(kind)), None)
  if kind is None or (kind == '.parquet' and compression):
    raise UserError(
      f'{path}: inputs are .warc, .warc.gz, .warc.zst, .jsonl, .jsonl.gz, .jsonl.zst '
      'or .parquet'
    )
  return stem.removesuffix(kind), kind, compression


def _open(path):
  """A seekable binary file."""
  try:
    if '://' not in path:
      return open(path, 'rb')
    import fsspec  # only for URLs

    return fsspec.open(path, 'rb').open()
  except ImportError as error:
    raise UserError(f'{path}: needs a package that is not installed: {error}')
  except ValueError as error:  # fsspec: unknown protocol
    raise UserError(f'{path}: {error}')
  except (FileNotFoundError, IsADirectoryError):
    raise UserError(f'{path}: no such input file; correct config.inputs')


def _rows(f, name, kind, compression, limits, many):
  """Rows (dicts) and problems (str) of an open file."""
  if kind == '.parquet':
    yield from _parquet(f, name, many)
    return
  if not f.read(1):
    yield 'empty file'
    return
  f.seek(0)
  if kind == '.warc':
    yield from warc.pages(f, compression, limits.max_bytes)
  else:
    yield from _jsonl(f, name, compression, limits)


def _complete(row, category, source, limits):
  """A row of the table: default fields, host, and a check of its size."""
  row['category'] = row.get('category') or category
  row['source'] = row.get('source') or source
  row['host'] = urls.host(row.get('url'))
  size = max(_size(row.get('html')), _size(row.get('text')))
  if size > limits.max_bytes:
    row.update(html=None, text=None, drop_reason='read.too_large', drop_value=size)
  return {name: _valid(value) for name, value in row.items()}


def _size(text):
  """Bytes in UTF-8, or characters where it is the same for the limits."""
  return float(len(text.encode('utf-8', 'replace')) if text else 0)


def _valid(value):
  """Text without lone surrogates, which JSON can hold and UTF-8 cannot."""
  if isinstance(value, str) and not value.isascii():
    return value.encode('utf-8', 'replace').decode()
  return value


def _jsonl(f, name, compression, limits):
  """Documents of JSON lines; lines end at b'\\n' only."""
  number = 0
  most = 2 * limits.max_bytes + CHUNK  # of a line: escapes and other fields
  whole = _Whole(_decompress(f, compression))
  lines = io.BufferedReader(whole, CHUNK)
  while line := lines.readline(most):
    number += 1
    if number == 1:
      line = line.removeprefix(jsonl.BOM)
    size = len(line)
    if size == most and not line.endswith(b'\n'):
      while (part := lines.readline(CHUNK)) and not part.endswith(b'\n'):
        size += len(part)
      yield {
        'url': urls.of_row(name, number),
        'drop_reason': 'read.too_large',
        'drop_value': float(size + len(part)),
      }
    elif whole.error and not line.endswith(b'\n') and not _is_json(line):
      number -= 1  # the line in which the file is cut
    elif line.strip():
      yield from _line(line, name, number)
  if whole.error:
    yield f'unreadable after line {number} ({whole.error or "cut short"})'


class _Whole(io.RawIOBase):
  """A file that ends at the first unreadable byte; `error` has the reason."""

  def __init__(self, file):
    self._more, self.error = getattr(file, 'read1', file.read), None

  def readable(self):
    return True

  def readinto(self, buffer):
    try:
      part = b'' if self.error else self._more(len(buffer))
    except DAMAGE as error:
      self.error, part = error, b''
    buffer[: len(part)] = part
    return len(part)


def _decompress(f, compression):
  """The decompressed content as a file."""
  if compression == '.gz':
    return gzip.GzipFile(fileobj=f)
  return jsonl.Frames(f) if compression == '.zst' else f


def _is_json(line):
  try:
    return bool(jsonl.parse(line, '', finite=False))
  except UserError:
    return False


def _line(line, name, number):
  where = f'line {number}'
  try:
    text = line.decode('utf-8')
  except UnicodeDecodeError as error:
    yield f'{where}: invalid UTF-8, replaced ({error.reason})'
    text = line.decode('utf-8', 'replace')
  try:
    row = jsonl.parse(text, where, finite=False)
  except UserError as error:
    yield str(error)
  else:
    yield from _document(row, urls.of_row(name, number), where)


def _document(row, url, where):
  """Yields a row's document, and a line for each field that has a wrong type."""
  document, reported = {'url': url, 'date': ''}, False
  for name in FIELDS:
    value = row.get(name)
    if isinstance(value, bytes):  # of Parquet
      value = value.decode('utf-8', 'replace')
    if name not in TEXTS and not isinstance(value, (bool, list, dict, type(None))):
      value = str(value)  # a year, or a time of Parquet
    if isinstance(value, str) and (value or name != 'url'):
      document[name] = value
    elif value:
      reported = reported or name in TEXTS
      yield f'{where}: field {name!r} is a {jsonl.kind(value)}, not text'
  if 'text' in document or 'html' in document:
    yield document
  elif not reported:
    yield f'{where} is not a document (no text)'


def _parquet(f, name, many):
  """Documents of a Parquet file; optional columns that it lacks are left null."""
  try:
    file = pq.ParquetFile(f)
    names = file.schema_arrow.names
  except (pa.ArrowException, OSError) as error:
    yield f'not a readable Parquet file ({str(error).splitlines()[0]})'
    return
  if not {'text', 'html'} & set(names):
    raise UserError(
      f'{name}: no column text or html among {", ".join(names) or "none"}; rename one'
    )
  columns = [field for field in FIELDS if field in names]
  if twice := [field for field in columns if names.count(field) > 1]:
    raise UserError(f'{name}: two columns are called {twice[0]}; rename one')
  number = 0
  try:
    for batch in file.iter_batches(batch_size=many, columns=columns):
      for row in _rows_of(batch):
        number += 1
        yield from _document(row, urls.of_row(name, number), f'row {number}')
  except (pa.ArrowException, OSError) as error:
    yield f'unreadable after row {number} ({str(error).splitlines()[0]})'


def _rows_of(batch):
  """list of dicts; bytes where a text is not valid UTF-8."""
  try:
    return batch.to_pylist()
  except UnicodeDecodeError:
    binary = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}
    columns = [c.cast(binary.get(c.type, c.type)) for c in batch.columns]
    return pa.record_batch(columns, names=batch.schema.names).to_pylist()
