"""Crawled pages in WARC files: reading past damage, and writing.

A damaged record (of a gzip or zstd member, or of plain text) is reported and left out;
reading continues at the next member. Bodies above the limit of a page are never held.
"""

import gzip
import os
import re
import uuid
import zlib
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import BinaryIO

from fastwarc.warc import ArchiveIterator
from fastwarc.warc import WarcRecordType

from llama3_jax.base import files
from llama3_jax.curate.reading import encoding

MARKERS = {'.gz': b'\x1f\x8b\x08', '.zst': b'\x28\xb5\x2f\xfd', '': b'WARC/1.'}
HTML_TYPES = ('text/html', 'application/xhtml+xml')
CHUNKED = re.compile(rb'([0-9a-fA-F]{1,8})[^\r\n]{0,99}\r\n')
CHUNK = 1 << 20  # bytes read at a time


def pages(
  f: BinaryIO, compression: str, max_bytes: int
) -> Iterator[dict[str, object] | str]:
  """Yields the pages of a WARC file and the problems of reading it.

  Args:
    f: seekable binary file.
    compression: '.gz', '.zst' or ''.
    max_bytes: larger pages come without html, with drop_reason 'read.too_large'.

  Yields:
    dicts with url, date, html (a page that the crawler cut short has a drop_reason), or
    str: one line for each run of records that could not be read.
  """
  marker = MARKERS[compression]
  size, start, whole = f.seek(0, os.SEEK_END), 0, True
  while start < size:
    last = None  # offset of the last good record of this pass
    f.seek(start)
    try:
      for record in ArchiveIterator(
        f, record_types=WarcRecordType.response, parse_http=True
      ):
        page = _page(record, max_bytes)
        last, whole = start + record.stream_pos, True
        if page:
          yield page
      if last is None and start == 0 and not _find(f, marker, 0, len(marker) + 8) == 0:
        yield 'no WARC record at the beginning'
      end = start if last is None else last
      if compression == '.gz' and not _ends(f, end):
        yield f'cut short in the record at or after byte {end}'
      return
    except Exception as error:  # fastwarc raises several kinds for damaged input
      bad = _find(f, marker, (start if last is None else last) + 1)
      # After good records, reading restarts at the next marker: at the bad record,
      # which fails again, or behind it. A run of damage is reported once.
      if whole:
        where = start if last is None else last
        yield f'record at or after byte {where} unreadable ({error})'
        whole = False
      start = bad


def _ends(f, start):
  """Whether the gzip members from `start` on end with the file.

  Where a member is cut within the header of its record, the iterator ends as it does at
  the end of a complete file.
  """
  f.seek(start)
  member, whole = zlib.decompressobj(31), True
  while part := f.read(CHUNK):
    while part:
      try:
        member.decompress(part, CHUNK)
      except zlib.error:
        return False
      whole = member.eof
      part = member.unused_data if whole else member.unconsumed_tail
      if whole:
        member = zlib.decompressobj(31)
  return whole


def _page(record, max_bytes):
  """A response record as a dict; None when it is not an HTML page."""
  # Wget writes <URL>, a possible reading of the first WARC standard.
  target = (record.headers.get('WARC-Target-URI') or '').strip('<> ')
  if record.http_headers is None and 'Content-Type' not in record.headers:
    # The standard makes it optional; a response from an http URL is HTTP.
    record.is_http = target.startswith(('http://', 'https://'))
    record.parse_http()
  http = record.http_headers
  if http is None or http.status_code not in (200, None):
    return None
  kind = (record.http_content_type or '').lower()
  if kind and kind not in HTML_TYPES:
    return None
  page = {'url': target, 'date': (record.headers.get('WARC-Date') or '')[:19]}
  size = record.content_length
  if size > max_bytes:
    left = size  # read to the end, so that a wrong length is noticed
    while left > 0 and (part := record.reader.read(min(left, CHUNK))):
      left -= len(part)
    if left > 0:
      raise ValueError(f'{size - left} of {size} bytes')
    return {**page, 'drop_reason': 'read.too_large', 'drop_value': float(size)}
  body = record.reader.read()
  if record.headers.get('Content-Length') is None or len(body) < size:
    raise ValueError(f'{len(body)} of {size} bytes')
  body, whole = _unpack(body, http, max_bytes)
  if len(body) > max_bytes:
    return {**page, 'drop_reason': 'read.too_large', 'drop_value': float(len(body))}
  page['html'] = encoding.decode(body, http.get('Content-Type'))
  if record.headers.get('WARC-Truncated') or not whole:
    page.update(drop_reason='warc.truncated', drop_value=float(len(body)))
  return page


def _unpack(body, http, max_bytes):
  """(body without its transfer and content codings, whether these are complete).

  At most max_bytes + 1 bytes of it. Many crawlers undo the codings and leave the
  headers, so the bytes decide.
  """
  whole, at = True, 0
  if 'chunked' in (http.get('Transfer-Encoding') or '').lower():
    parts = []
    while (chunk := CHUNKED.match(body, at)) and (size := int(chunk[1], 16)):
      parts.append(body[chunk.end() : chunk.end() + size])
      at = chunk.end() + size + 2
    whole = not parts or chunk is not None
    body = b''.join(parts) or body
  coding, bits = (http.get('Content-Encoding') or '').lower(), 0
  if 'gzip' in coding and body.startswith(MARKERS['.gz']):
    bits = 31
  elif 'deflate' in coding and body[:1] == b'\x78':
    bits = 15
  if not bits:
    return body, whole
  coded = zlib.decompressobj(bits)
  body = coded.decompress(body, max_bytes + 1)
  return body, whole and (coded.eof or len(body) > max_bytes)


def _find(f, marker, start, within=None):
  """Offset of the next `marker` at or after `start`; the file's size if none."""
  f.seek(start)
  offset, tail = start, b''
  while part := f.read(min(CHUNK, within or CHUNK)):
    index = (tail + part).find(marker)
    if index >= 0:
      return offset - len(tail) + index
    offset += len(part)
    tail = (tail + part)[-len(marker) + 1 :]
    if within:
      break
  return f.seek(0, os.SEEK_END)


def write(path: str | os.PathLike, pages: Iterable[Mapping[str, str]]) -> None:
  """Writes pages as gzip WARC response records, atomically.

  Args:
    path: ends in .warc.gz.
    pages: iterable of dicts with url, date (YYYY-MM-DD) and html (str).
  """
  with files.renamed(path) as partial, open(partial, 'wb') as f:
    for page in pages:
      # mtime 0: the same pages give the same bytes.
      f.write(gzip.compress(_record(page), compresslevel=6, mtime=0))


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
    'WARC-Identified-Payload-Type: text/html',
    f'Content-Length: {len(payload)}',
  ]
  return '\r\n'.join(lines).encode() + b'\r\n\r\n' + payload + b'\r\n\r\n'
