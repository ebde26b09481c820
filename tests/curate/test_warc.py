"""WARC and JSON lines that we write: the same bytes each time, and all of it back."""

import gzip
import zlib

import pytest

from llama3_jax.base import jsonl
from llama3_jax.curate.reading import read
from llama3_jax.curate.reading import warc

PAGES = [
  {
    'url': f'https://a.example/{i}',
    'date': f'2024-01-{i + 1:02d}',
    'html': f'<html><body><p>Grüße {i} \u2028 {"text " * 200}</p></body></html>',
  }
  for i in range(10)
]


def test_pages_come_back_from_our_writer(tmp_path):
  warc.write(tmp_path / 'a.warc.gz', PAGES)
  rows, problems = read.rows(tmp_path / 'a.warc.gz')
  assert problems == []
  assert [row['html'] for row in rows] == [page['html'] for page in PAGES]
  assert [row['url'] for row in rows] == [page['url'] for page in PAGES]
  assert rows[0]['date'][:10] == '2024-01-01' and rows[0]['host'] == 'a.example'
  assert rows[0]['category'] == 'general' and rows[0]['source'] == 'a'


def test_the_same_pages_give_the_same_bytes(tmp_path):
  for name in 'ab':
    warc.write(tmp_path / f'{name}.warc.gz', PAGES)
  a, b = ((tmp_path / f'{name}.warc.gz').read_bytes() for name in 'ab')
  assert a == b


def test_plain_warc_is_read_too(tmp_path):
  warc.write(tmp_path / 'a.warc.gz', PAGES)
  with gzip.open(tmp_path / 'a.warc.gz') as f:
    (tmp_path / 'b.warc').write_bytes(f.read())
  assert len(read.rows(tmp_path / 'b.warc')[0]) == 10


def test_a_page_that_the_crawler_cut_short_is_dropped(tmp_path):
  path = tmp_path / 'a.warc'
  record = warc._record(PAGES[0])
  path.write_bytes(
    record.replace(b'WARC-Type', b'WARC-Truncated: length\r\nWARC-Type', 1)
  )
  rows, _ = read.rows(path)
  assert rows[0]['drop_reason'] == 'warc.truncated'


def coded(page, body, *headers):
  """A record of that body, with further headers of HTTP."""
  head, _, plain = warc._record(page).partition(b'\r\n\r\nHTTP/1.1 200 OK\r\n')
  http, _, rest = plain.partition(b'\r\n\r\n')
  size = len(rest) - len(b'\r\n\r\n')
  http = http.replace(b'Content-Length: %d' % size, b'\r\n'.join(headers))
  payload = b'HTTP/1.1 200 OK\r\n' + http + b'\r\n\r\n' + body
  lines = [x for x in head.split(b'\r\n') if not x.startswith(b'Content-Length')]
  lines.append(b'Content-Length: %d' % len(payload))
  return b'\r\n'.join(lines) + b'\r\n\r\n' + payload + b'\r\n\r\n'


def chunks(body, end=b'0\r\n\r\n'):
  half = len(body) // 2
  parts = (body[:half], body[half:])
  return b''.join(b'%x\r\n%s\r\n' % (len(p), p) for p in parts) + end


CODINGS = {
  'gzip': (gzip.compress, b'Content-Encoding: gzip'),
  'deflate': (zlib.compress, b'Content-Encoding: deflate'),
  'chunked': (chunks, b'Transfer-Encoding: chunked'),
  'both': (
    lambda body: chunks(gzip.compress(body)),
    b'Content-Encoding: gzip\r\nTransfer-Encoding: chunked',
  ),
}


@pytest.mark.parametrize('coding', CODINGS)
def test_a_body_whose_coding_ends_early_is_dropped(tmp_path, coding):
  pack, header = CODINGS[coding]
  page = PAGES[0]['html'].encode()
  body = pack(page)
  records = [
    coded(PAGES[0], body, header),
    coded(PAGES[1], page, header),  # the crawler undid the coding
    *(coded(PAGES[2], body[: len(body) * i // 8], header) for i in range(4, 8)),
  ]
  (tmp_path / 'a.warc').write_bytes(b''.join(records))
  rows, problems = read.rows(tmp_path / 'a.warc')
  assert problems == [] and len(rows) == 6
  assert not any('drop_reason' in row for row in rows[:2])
  assert {row['html'] for row in rows[:2]} == {PAGES[0]['html']}
  assert {row['drop_reason'] for row in rows[2:]} == {'warc.truncated'}


def test_a_record_that_does_not_say_what_it_holds_is_http(tmp_path):
  record = warc._record(PAGES[0])
  kind = b'Content-Type: application/http; msgtype=response\r\n'
  assert record.count(kind) == 1
  other = record.replace(kind, b'Content-Type: text/dns\r\n')
  (tmp_path / 'a.warc').write_bytes(record.replace(kind, b'') + other)
  rows, problems = read.rows(tmp_path / 'a.warc')
  assert [row['html'] for row in rows] == [PAGES[0]['html']] and problems == []


def test_responses_that_are_no_pages_are_left_out(tmp_path):
  path = tmp_path / 'a.warc'
  image = warc._record(PAGES[0]).replace(b'text/html', b'image/png')
  missing = warc._record(PAGES[1]).replace(b'200 OK', b'404 No')
  path.write_bytes(image + missing + warc._record(PAGES[2]))
  rows, problems = read.rows(path)
  assert [row['url'] for row in rows] == [PAGES[2]['url']] and problems == []


def test_json_lines_come_back(tmp_path):
  rows = [{'text': f'{i} é \u2028 ' * 50} for i in range(500)]
  jsonl.write(tmp_path / 'a.jsonl.gz', rows)
  found, problems = read.rows(tmp_path / 'a.jsonl.gz')
  assert [row['text'] for row in found] == [
    row['text'] for row in rows
  ] and not problems


def test_real_crawls_are_read(assets):
  for path in sorted((assets / 'web_text').glob('*.warc.gz')):
    rows, problems = read.rows(path)
    assert rows and not problems and all(row['html'] for row in rows)
    assert all(row['host'] for row in rows)


def test_cut_anywhere_is_named(tmp_path):
  path = tmp_path / 'a.warc.gz'
  warc.write(path, [{'url': f'http://a/{i}', 'date': '', 'html': '<p>x'} for i in 'ab'])
  whole = path.read_bytes()
  second = whole.index(warc.MARKERS['.gz'], 1)
  for cut in {*range(1, len(whole), 3), len(whole) - 1} - {second}:
    path.write_bytes(whole[:cut])
    with open(path, 'rb') as f:
      found = list(warc.pages(f, '.gz', 1000))
    assert any(isinstance(x, str) for x in found), cut
