"""Reads and writes crawled pages (WARC) and documents (JSONL), gzip or plain."""

import gzip
import json
import os
import pathlib
import uuid

from fastwarc.warc import ArchiveIterator
from fastwarc.warc import WarcRecordType
from resiliparse.parse.encoding import bytes_to_str
from resiliparse.parse.encoding import detect_encoding

from llama3_jax.config import UserError

GZIP_MEMBER = b'\x1f\x8b\x08'
HTML_TYPES = ('text/html', 'application/xhtml+xml')


def read(path, category='general', source=None):
  """Reads a .warc[.gz] or .jsonl[.gz] file.

  Args:
    path: the file.
    category, source: for rows that do not say.

  Returns:
    (rows, problems): dicts with url, date, source, category and html or text; and one
    line of text for each record that could not be read. A page that the crawler cut
    short has a drop_reason.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise UserError(f'{path}: no such input file; correct config.inputs')
  name = path.name.removesuffix('.gz')
  if name.endswith('.warc'):
    rows, problems = _read_warc(path)
  elif name.endswith('.jsonl'):
    rows, problems = _read_jsonl(path)
  else:
    raise UserError(f'{path}: inputs are .warc, .warc.gz, .jsonl or .jsonl.gz')
  stem = name.rsplit('.', 1)[0]
  for row in rows:
    row['category'] = row.get('category') or category
    row['source'] = row.get('source') or source or stem
  return rows, problems


def write(path, pages):
  """Writes pages as gzip WARC response records, atomically.

  Args:
    path: ends in .warc.gz.
    pages: iterable of dicts with url, date (YYYY-MM-DD) and html (str).
  """
  partial = pathlib.Path(f'{path}.partial')
  with open(partial, 'wb') as f:
    for page in pages:
      # mtime 0: the same pages give the same bytes.
      f.write(gzip.compress(_record(page), compresslevel=6, mtime=0))
  os.replace(partial, path)


def write_jsonl(path, rows):
  """Writes dicts as gzip JSONL, atomically."""
  partial = pathlib.Path(f'{path}.partial')
  with open(partial, 'wb') as raw, gzip.GzipFile('', 'wb', 6, raw, 0) as f:
    for row in rows:
      f.write(json.dumps(row, ensure_ascii=False).encode('utf-8', 'replace') + b'\n')
  os.replace(partial, path)


def _record(page):
  """One WARC 1.0 response record."""
  body = page['html'].encode('utf-8')
  payload = (
    b'HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n'
    b'Content-Length: %d\r\n\r\n' % len(body)
  ) + body
  identity = uuid.uuid5(uuid.NAMESPACE_URL, page['url'] + page['date'])
  lines = [
    'WARC/1.0',
    'WARC-Type: response',
    f'WARC-Record-ID: <urn:uuid:{identity}>',
    f'WARC-Target-URI: {page["url"]}',
    f'WARC-Date: {page["date"]}T00:00:00Z',
    'Content-Type: application/http; msgtype=response',
    f'Content-Length: {len(payload)}',
  ]
  return '\r\n'.join(lines).encode() + b'\r\n\r\n' + payload + b'\r\n\r\n'


def _read_warc(path):
  """Reads response records; after a corrupt one goes on at the next record."""
  rows, problems, start = [], [], 0
  size = path.stat().st_size
  marker = GZIP_MEMBER if path.name.endswith('.gz') else b'WARC/1.'
  while start < size:
    last = None  # offset of the last good record of this pass
    try:
      with open(path, 'rb') as f:
        f.seek(start)
        for record in ArchiveIterator(
          f, record_types=WarcRecordType.response, parse_http=True
        ):
          rows.extend(_page(record))
          last = start + record.stream_pos
      break
    except Exception as error:  # fastwarc raises several kinds for damaged input
      bad = _find(path, marker, (start if last is None else last) + 1)
      # After good records the pass begins again at the bad one, to see that it is.
      if last is None or bad == size:
        where = start if last is None else last
        problems.append(f'{path}: record at or after byte {where} unreadable ({error})')
      start = bad
  return rows, problems


def _page(record):
  """[row] of a response record, or [] when it is not an HTML page."""
  http = record.http_headers
  if http is None or http.status_code not in (200, None):
    return []
  kind = (record.http_content_type or '').lower()
  if kind and kind not in HTML_TYPES:
    return []
  size = record.content_length
  body = record.reader.read()
  if record.headers.get('Content-Length') is None or len(body) < size:
    raise ValueError(f'{len(body)} of {size} bytes')
  encoding = record.http_charset or detect_encoding(body)
  row = {
    'url': record.headers.get('WARC-Target-URI', ''),
    'date': (record.headers.get('WARC-Date') or '')[:19],
    'html': bytes_to_str(body, encoding),
  }
  if record.headers.get('WARC-Truncated'):
    row.update(drop_reason='warc.truncated', drop_value=float(len(body)))
  return [row]


def _find(path, marker, start):
  """Offset of the next `marker` at or after `start`; the file's size if none."""
  with open(path, 'rb') as f:
    f.seek(start)
    rest = f.read()
  at = rest.find(marker)
  return start + (at if at >= 0 else len(rest))


def _read_jsonl(path):
  """Reads JSONL; a bad line, or a damaged end of the file, is named and left out."""
  rows, problems = [], []
  opener = gzip.open if path.name.endswith('.gz') else open
  number = 0
  try:
    with opener(path, 'rb') as f:
      for number, line in enumerate(f, 1):  # bytes: lines end at b'\n' only
        if line.strip():
          _append_line(rows, problems, path, number, line)
  except (OSError, EOFError) as error:
    problems.append(f'{path}: unreadable after line {number} ({error})')
  return rows, problems


def _append_line(rows, problems, path, number, line):
  try:
    row = json.loads(line)
    if not isinstance(row, dict) or not isinstance(
      row.get('text', row.get('html')), str
    ):
      raise ValueError('no text')
  except ValueError as error:
    problems.append(f'{path}: line {number} is not a document ({error})')
    return
  keep = ('url', 'date', 'source', 'category', 'html', 'text', 'lang')
  row = {name: row[name] for name in keep if isinstance(row.get(name), str)}
  row.setdefault('url', f'{path.name}/{number}')
  row.setdefault('date', '')
  rows.append(row)
