"""Reads crawled pages and documents as record batches, a batch at a time (3.1.1).

WARC, Parquet and JSON lines, plain or compressed, on disk or behind any URL that fsspec
opens. Input is hostile until shown otherwise: what cannot be read is named and left
out, what is too large is a dropped row, and the limits, not the file, bound memory.
"""

import dataclasses
import gzip
import io
import json
import zlib

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from llama3_jax.base.errors import UserError
from llama3_jax.curate import documents
from llama3_jax.curate import urls
from llama3_jax.curate import warc

KINDS = ('.warc', '.jsonl', '.parquet')
COMPRESSIONS = ('.gz', '.zst')
FIELDS = ('url', 'date', 'source', 'category', 'html', 'text', 'lang')
DAMAGE = (OSError, EOFError, zlib.error, zstandard.ZstdError)
CHUNK = 1 << 20


@dataclasses.dataclass(frozen=True)
class Limits:
  """What reading may hold in memory.

  Fields:
    max_bytes: of one page or document; larger ones are dropped rows.
    batch_bytes: a batch ends early when its documents hold as much.
  """

  max_bytes: int = 10_000_000
  batch_bytes: int = 64_000_000


def batches(
  path,
  category='general',
  source=None,
  limits=Limits(),
  documents_per_batch=256,
  first_id=0,
):
  """Reads .warc, .jsonl (both also .gz, .zst) or .parquet.

  Args:
    path: a file, or a URL that fsspec opens (s3://, gs://, memory://).
    category, source: of rows that do not say; the source is else the file's name.
    limits: Limits.
    documents_per_batch: the most rows of a batch.
    first_id: id of the first row; the others follow.

  Yields:
    (pa.RecordBatch with the columns of documents.SCHEMA, list of str: one line for each
    thing that could not be read). Rows may be dropped already: 'warc.truncated',
    'read.too_large' (value: bytes).

  Raises:
    UserError: no such file, unknown kind, no package for the URL, no text column.
  """
  path = str(path)
  name, kind, compression = _kind(path)
  rows, problems, held = [], [], 0
  with _open(path) as f:
    for row in _rows(f, name, kind, compression, limits, documents_per_batch):
      if isinstance(row, str):
        problems.append(f'{path}: {row}')
        continue
      rows.append(_complete(row, category, source or name.rsplit('.', 1)[0], limits))
      held += len(rows[-1].get('html') or '') + len(rows[-1].get('text') or '')
      if len(rows) >= documents_per_batch or held >= limits.batch_bytes:
        yield documents.batch(rows, first_id), problems
        first_id += len(rows)
        rows, problems, held = [], [], 0
  if rows or problems:
    yield documents.batch(rows, first_id), problems


def rows(path, category='general', source=None, limits=Limits()):
  """(list of dicts of a small file without null fields, problems)."""
  found, problems = [], []
  for batch, bad in batches(path, category, source, limits):
    problems.extend(bad)
    for row in batch.to_pylist():
      found.append({name: v for name, v in row.items() if v is not None})
  return found, problems


def _kind(path):
  """(file name without the compression, kind, compression)."""
  name = path.rsplit('/', 1)[-1]
  compression = next((end for end in COMPRESSIONS if name.endswith(end)), '')
  name = name.removesuffix(compression)
  kind = next((kind for kind in KINDS if name.endswith(kind)), None)
  if kind is None or (kind == '.parquet' and compression):
    raise UserError(
      f'{path}: inputs are .warc, .warc.gz, .warc.zst, .jsonl, .jsonl.gz, .jsonl.zst '
      'or .parquet'
    )
  return name, kind, compression


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
  """A row of the table: fields that it does not say, its host, its size."""
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
  try:
    with _decompress(f, compression) as lines:
      while line := lines.readline(most):
        number += 1
        size = len(line)
        if size == most and not line.endswith(b'\n'):
          while (part := lines.readline(CHUNK)) and not part.endswith(b'\n'):
            size += len(part)
          yield {
            'url': f'{name}/{number}',
            'drop_reason': 'read.too_large',
            'drop_value': float(size + len(part)),
          }
        elif line.strip():
          yield from _line(line, name, number)
  except DAMAGE as error:
    yield f'unreadable after line {number} ({error})'


def _decompress(f, compression):
  """A buffered file of what is in the compressed one."""
  if compression == '.gz':
    return gzip.GzipFile(fileobj=f)
  if compression == '.zst':
    # A window above 128 MB is refused by zstandard itself.
    reader = zstandard.ZstdDecompressor().stream_reader(f, read_across_frames=True)
    return io.BufferedReader(reader, CHUNK)
  return io.BufferedReader(f, CHUNK)


def _line(line, name, number):
  try:
    text = line.decode('utf-8')
  except UnicodeDecodeError as error:
    yield f'line {number}: invalid UTF-8, replaced ({error.reason})'
    text = line.decode('utf-8', 'replace')
  try:
    row = json.loads(text)
    if not isinstance(row, dict):
      raise ValueError('no fields')
    yield _fields(row, f'{name}/{number}')
  except (ValueError, RecursionError) as error:
    yield f'line {number} is not a document ({error})'


def _fields(row, url):
  """The fields that a document may have; ValueError where it has no text."""
  row = {name: row[name] for name in FIELDS if isinstance(row.get(name), str)}
  if 'text' not in row and 'html' not in row:
    raise ValueError('no text')
  return {'url': url, 'date': '', **row}


def _parquet(f, name, many):
  """Documents of a Parquet file; columns that it need not have are left null."""
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
  number, columns = 0, [field for field in FIELDS if field in names]
  try:
    for batch in file.iter_batches(batch_size=many, columns=columns):
      for row in batch.to_pylist():
        number += 1
        try:
          yield _fields({k: _text(v) for k, v in row.items()}, f'{name}/{number}')
        except ValueError as error:
          yield f'row {number} is not a document ({error})'
  except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
    yield f'unreadable after row {number} ({str(error).splitlines()[0]})'


def _text(value):
  if isinstance(value, bytes):
    return value.decode('utf-8', 'replace')
  return value if value is None or isinstance(value, str) else str(value)
