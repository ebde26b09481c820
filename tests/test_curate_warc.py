"""WARC and JSON lines that we write: the same bytes each time, and all of it back."""

import gzip

from llama3_jax.curate import read
from llama3_jax.curate import warc

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


def test_responses_that_are_no_pages_are_left_out(tmp_path):
  path = tmp_path / 'a.warc'
  image = warc._record(PAGES[0]).replace(b'text/html', b'image/png')
  missing = warc._record(PAGES[1]).replace(b'200 OK', b'404 No')
  path.write_bytes(image + missing + warc._record(PAGES[2]))
  rows, problems = read.rows(path)
  assert [row['url'] for row in rows] == [PAGES[2]['url']] and problems == []


def test_json_lines_come_back(tmp_path):
  rows = [{'text': f'{i} é \u2028 ' * 50} for i in range(500)]
  warc.write_jsonl(tmp_path / 'a.jsonl.gz', rows)
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
