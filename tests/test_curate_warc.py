"""WARC and JSONL: round trip, damaged input."""

import gzip

import pytest

from llama3_jax.config import UserError
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
  rows, problems = warc.read(tmp_path / 'a.warc.gz')
  assert problems == []
  assert [row['html'] for row in rows] == [page['html'] for page in PAGES]
  assert [row['url'] for row in rows] == [page['url'] for page in PAGES]
  assert rows[0]['date'][:10] == '2024-01-01'
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
  assert len(warc.read(tmp_path / 'b.warc')[0]) == 10


def test_a_corrupt_record_is_named_and_the_others_are_read(tmp_path):
  path = tmp_path / 'a.warc.gz'
  sizes = []
  for page in PAGES:
    warc.write(path, [page])
    sizes.append(path.stat().st_size)
  warc.write(path, PAGES)
  data = bytearray(path.read_bytes())
  middle = sum(sizes[:4]) + sizes[4] // 2
  data[middle : middle + 40] = b'\xff' * 40
  path.write_bytes(data)
  rows, problems = warc.read(path)
  assert {row['url'] for row in rows} >= {
    page['url'] for i, page in enumerate(PAGES) if i != 4
  }
  assert len(problems) == 1 and 'a.warc.gz' in problems[0]


def test_a_cut_off_file_gives_what_is_whole(tmp_path):
  path = tmp_path / 'a.warc.gz'
  warc.write(path, PAGES)
  data = path.read_bytes()
  path.write_bytes(data[: len(data) - 100])
  rows, problems = warc.read(path)
  assert [row['url'] for row in rows] == [page['url'] for page in PAGES[:9]]
  assert len(problems) == 1


def test_garbage_is_named(tmp_path):
  (tmp_path / 'a.warc.gz').write_bytes(b'not a gzip file at all' * 100)
  rows, problems = warc.read(tmp_path / 'a.warc.gz')
  assert rows == [] and len(problems) == 1


def test_a_page_that_the_crawler_cut_short_is_dropped(tmp_path):
  path = tmp_path / 'a.warc'
  record = warc._record(PAGES[0])
  path.write_bytes(
    record.replace(b'WARC-Type', b'WARC-Truncated: length\r\nWARC-Type', 1)
  )
  rows, _ = warc.read(path)
  assert rows[0]['drop_reason'] == 'warc.truncated'


def test_responses_that_are_no_pages_are_left_out(tmp_path):
  path = tmp_path / 'a.warc'
  image = warc._record(PAGES[0]).replace(b'text/html', b'image/png')
  missing = warc._record(PAGES[1]).replace(b'200 OK', b'404 No')
  path.write_bytes(image + missing + warc._record(PAGES[2]))
  rows, problems = warc.read(path)
  assert [row['url'] for row in rows] == [PAGES[2]['url']] and problems == []


def test_jsonl_is_split_at_newlines_only_and_bad_lines_are_named(tmp_path):
  path = tmp_path / 'a.jsonl'
  path.write_text(
    '{"text": "one\u2028still one"}\n'
    '{"text": \n'
    '{"no": "text"}\n\n'
    '[1]\n'
    '{"text": "two", "url": "u", "category": "code"}\n',
    'utf-8',
  )
  rows, problems = warc.read(path, source='s')
  assert [row['text'] for row in rows] == ['one\u2028still one', 'two']
  assert rows[0]['url'] == 'a.jsonl/1' and rows[0]['source'] == 's'
  assert rows[1]['category'] == 'code'
  assert [p.split('line ')[1][0] for p in problems] == ['2', '3', '5']


def test_jsonl_round_trip_and_damaged_end(tmp_path):
  path = tmp_path / 'a.jsonl.gz'
  rows = [{'text': f'{i} é \u2028 ' * 50} for i in range(500)]
  warc.write_jsonl(path, rows)
  assert [r['text'] for r in warc.read(path)[0]] == [r['text'] for r in rows]
  path.write_bytes(path.read_bytes()[:-40])
  found, problems = warc.read(path)
  assert 0 < len(found) < 500 and len(problems) == 1 and 'a.jsonl.gz' in problems[0]


def test_missing_file_and_unknown_kind_are_the_users_mistake(tmp_path):
  with pytest.raises(UserError, match='no such input file'):
    warc.read(tmp_path / 'a.warc.gz')
  (tmp_path / 'a.txt').write_text('x')
  with pytest.raises(UserError, match='.warc.gz'):
    warc.read(tmp_path / 'a.txt')
