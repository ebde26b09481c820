"""Hostile input: counted, named, survived, within bounds of time and memory."""

import gzip
import io
import itertools
import json
import pathlib
import resource
import subprocess
import sys
import time

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from llama3_jax.base.errors import UserError
from llama3_jax.curate.extraction import extract
from llama3_jax.curate.extraction import markdown
from llama3_jax.curate.machine import documents
from llama3_jax.curate.reading import encoding
from llama3_jax.curate.reading import read
from llama3_jax.curate.reading import warc

PAGES = [
  {
    'url': f'https://a.example/{i}',
    'date': f'2024-01-{i + 1:02d}',
    'html': f'<html><body><p>Page {i} {"text " * 200}</p></body></html>',
  }
  for i in range(8)
]
RECORDS = [warc._record(page) for page in PAGES]
SMALL = read.Limits(max_bytes=100_000)


def write(folder, name, members, compress):
  path = folder / name
  path.write_bytes(b''.join(compress(member) for member in members))
  return path


COMPRESS = {
  'a.warc': lambda record: record,
  'a.warc.gz': lambda record: gzip.compress(record, mtime=0),
  'a.warc.zst': zstandard.compress,
}


def urls_of(rows):
  return [row['url'] for row in rows]


@pytest.mark.parametrize('name', COMPRESS)
def test_a_damaged_record_is_named_and_the_others_are_read(tmp_path, name):
  members = [COMPRESS[name](record) for record in RECORDS]
  bad = bytearray(members[3])
  bad[: len(bad) // 2] = b'\xff' * (len(bad) // 2)
  members[3] = bytes(bad)
  rows, problems = read.rows(write(tmp_path, name, members, bytes))
  assert urls_of(rows) == [p['url'] for i, p in enumerate(PAGES) if i != 3]
  assert len(problems) <= 1 and all(name in problem for problem in problems)
  assert problems or name == 'a.warc'


def _lying_length(member):
  return member[:-4] + (7).to_bytes(4, 'little')


def _lying_sum(member):
  return member[:-8] + b'\0\0\0\0' + member[-4:]


@pytest.mark.parametrize('lie', [_lying_length, _lying_sum, lambda m: m[:-60]])
def test_a_gzip_member_that_lies_costs_that_record_only(tmp_path, lie):
  members = [gzip.compress(record) for record in RECORDS]
  members[2] = lie(members[2])
  rows, _ = read.rows(write(tmp_path, 'a.warc.gz', members, bytes))
  others = {p['url'] for i, p in enumerate(PAGES) if i != 2}
  assert others <= set(urls_of(rows))
  assert len(urls_of(rows)) == len(set(urls_of(rows)))


def test_a_file_that_is_cut_off_gives_what_is_whole(tmp_path):
  for name, compress in COMPRESS.items():
    path = write(tmp_path, name, RECORDS, compress)
    path.write_bytes(path.read_bytes()[:-100])
    rows, problems = read.rows(path)
    assert urls_of(rows) == [p['url'] for p in PAGES[:-1]] and len(problems) == 1, name


def test_a_large_page_is_a_dropped_row_and_is_never_held(tmp_path):
  path = tmp_path / 'a.warc.gz'
  size = 200_000_000
  head, _, _ = RECORDS[1].partition(b'Content-Length')
  http = b'HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n'
  with gzip.open(path, 'wb', 1) as f:
    f.write(head + b'Content-Length: %d\r\n\r\n' % (size + len(http)) + http)
    for _ in range(200):
      f.write(b'a ' * 500_000)
    f.write(b'\r\n\r\n')
  with open(path, 'ab') as f:
    f.write(gzip.compress(RECORDS[2]))
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  rows, problems = read.rows(path)
  grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
  assert [row.get('drop_reason') for row in rows] == ['read.too_large', None]
  assert rows[0]['drop_value'] == size and 'html' not in rows[0]
  assert not problems and grown < 60_000  # KB


def test_a_member_that_holds_more_than_its_record_says_is_bounded(tmp_path):
  bomb = gzip.compress(RECORDS[0] + b'\0' * 50_000_000)
  members = [bomb, gzip.compress(RECORDS[1])]
  rows, _ = read.rows(write(tmp_path, 'a.warc.gz', members, bytes))
  assert {PAGES[0]['url'], PAGES[1]['url']} >= set(urls_of(rows)) >= {PAGES[0]['url']}


def test_bodies_in_the_coding_of_their_transfer_are_read_and_bounded(tmp_path):
  def record(body, codings):
    payload = (
      b'HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n' + codings + b'\r\n' + body
    )
    head = RECORDS[0].partition(b'Content-Length')[0]
    return head + b'Content-Length: %d\r\n\r\n' % len(payload) + payload + b'\r\n\r\n'

  packed, coding = gzip.compress(b'<p>packed'), b'Content-Encoding: gzip\r\n'
  chunks = b'%x\r\n%s\r\n0\r\n\r\n' % (len(packed), packed)
  records = [
    record(packed, coding),
    record(chunks, coding + b'Transfer-Encoding: chunked\r\n'),
    record(b'<p>packed', coding + b'Transfer-Encoding: chunked\r\n'),
    record(gzip.compress(bytes(50_000_000)), coding),
    record(b'<p>last', b''),
  ]
  rows, problems = read.rows(write(tmp_path, 'a.warc', records, bytes), limits=SMALL)
  assert [row.get('html', row.get('drop_reason')) for row in rows] == [
    *['<p>packed'] * 3,
    'read.too_large',
    '<p>last',
  ]
  assert problems == []


@pytest.mark.parametrize('end', ['', '.gz', '.zst'])
def test_long_and_bad_lines_are_dropped_or_named(tmp_path, end):
  lines = [
    b'{"text": "one\xe2\x80\xa8still one"}',
    b'{"text": "' + b'x' * 5_000_000 + b'"}',
    b'{"text": ',
    b'{"no": "text"}',
    b'[1]',
    b'[' * 100_000,
    b'{"text": "bad \xff byte"}',
    b'{"text": "half \\ud800 pair"}',
    b'{"text": "' + b'y' * 150_000 + b'"}',
    b'',
    b'{"text": "last", "category": "code"}',
  ]
  data = b'\n'.join(lines)
  packed = {'': bytes, '.gz': gzip.compress, '.zst': zstandard.compress}[end](data)
  path = tmp_path / f'a.jsonl{end}'
  path.write_bytes(packed)
  rows, problems = read.rows(path, source='s', limits=SMALL)
  assert [row.get('text', row.get('drop_reason')) for row in rows] == [
    'one\u2028still one',
    'read.too_large',
    'bad \ufffd byte',
    'half ? pair',
    'read.too_large',
    'last',
  ]
  assert rows[0]['url'] == f'a.jsonl{end}/1' and rows[0]['source'] == 's'
  assert rows[1]['drop_value'] > 5_000_000 and rows[-1]['category'] == 'code'
  assert [p.split('line ')[1][0] for p in problems] == ['3', '4', '5', '6', '7']
  if end:
    path.write_bytes(packed[:-12])
    assert len(read.rows(path, limits=SMALL)[1]) in (5, 6)


def test_nothing_and_garbage_are_named(tmp_path):
  for name in ('a.jsonl', 'a.warc.gz', 'a.warc.zst', 'a.jsonl.zst', 'a.parquet'):
    for data in (b'', b'not what the name says\n' * 50):
      (tmp_path / name).write_bytes(data)
      rows, problems = read.rows(tmp_path / name)
      assert rows == [] and problems, (name, data[:3])


def test_mistakes_of_the_user_are_named(tmp_path):
  with pytest.raises(UserError, match='no such input file'):
    read.rows(tmp_path / 'a.warc.gz')
  (tmp_path / 'a.txt').write_text('x')
  with pytest.raises(UserError, match='.warc.gz'):
    read.rows(tmp_path / 'a.txt')
  pq.write_table(pa.table({'body': ['x'], 'n': [1]}), tmp_path / 'a.parquet')
  with pytest.raises(UserError, match='body, n'):
    read.rows(tmp_path / 'a.parquet')
  with pytest.raises(UserError, match='nosuch'):
    read.rows('nosuch://bucket/a.jsonl')


def test_encodings_that_are_unknown_or_wrong_still_give_text():
  text = 'Grüße aus Köln, schöne Straße und viele Wörter'
  assert encoding.decode(text.encode(), 'text/html; charset=no-such-charset') == text
  assert encoding.decode(text.encode('latin-1'), 'x; charset=utf-8').startswith('Gr')
  assert encoding.decode(text.encode('latin-1')) == text
  assert isinstance(encoding.decode(bytes(range(256)) * 10, 'x; charset=utf-16'), str)


NESTED = {
  'div': ('<div>' * 1_000_000, 'extract.too_deep'),
  'closed': ('<b>' * 500_000 + 'x' + '</b>' * 500_000, 'extract.too_deep'),
  'many': ('<p>x' * 200_000, 'extract.too_many_nodes'),
  'copies': (
    ''.join(f'<font color={i}>' for i in range(900)) + '<p>x' * 5000,
    'extract.too_many_nodes',
  ),
  'attributes': (
    f'<p {" ".join(f"a{i}=1" for i in range(50_000))}>',
    'extract.too_many_attributes',
  ),
  'large': ('x' * 10_000_001, 'extract.too_large'),
}


@pytest.mark.parametrize('name', NESTED)
def test_pages_that_would_cost_too_much_are_dropped_before_they_are_parsed(name):
  html, reason = NESTED[name]
  row = {'html': f'<html><body>{html}', 'category': 'general'}
  start = time.process_time()
  found = extract.step(documents.batch([row]))
  assert found['drop_reason'].to_pylist() == [reason]
  assert found['drop_value'][0].as_py() > 0 and found['html'].null_count == 1
  assert time.process_time() - start < 2


@pytest.mark.parametrize(
  'html',
  [
    '<ul><li>' * 900 + 'x',
    '<pre>' + '<div>x</div>' * 5000,
    '<pre>x</pre>' * 3000,
    '<math><mi>x</mi></math>' * 3000,
    '<math>' * 900 + 'x',
    '<span class=katex>' * 900 + 'x',
    '<ul><li>word</ul>' * 3000,
    '<' * 100_000,
    '<!--' * 100_000,
    '\0' * 1000 + '<p\0>',
    '<table>' * 500 + 'x',
    '<select>' * 900,
    '<plaintext>' + '<p>' * 1000,
    '<svg><![CDATA[' * 900,
  ],
)
def test_odd_markup_within_the_limits_is_survived(html):
  start = time.process_time()
  extract.step(
    documents.batch([{'html': f'<html><body>{html}', 'category': 'general'}])
  )
  assert time.process_time() - start < 5


@pytest.mark.parametrize(
  'unit', ['**a', '[', '![a](', '`a ', '__a ', '*a', '-', '|---', ' \t', '# ', '> ']
)
def test_markdown_is_stripped_in_linear_time(unit):
  start = time.process_time()
  markdown.strip(unit * 100_000)
  assert time.process_time() - start < 2


def test_memory_is_bounded_by_the_batch_and_not_by_the_file(tmp_path):
  code = (
    'import itertools, json, resource\n'
    'from llama3_jax.curate.reading import read\n'
    'limits = read.Limits(batch_bytes=1_000_000)\n'
    f'found = read.batches({str(tmp_path / "a.jsonl.gz")!r}, limits=limits)\n'
    'n = [b.num_rows for b, _ in itertools.islice(found, 3)]\n'
    'base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n'
    'n += [b.num_rows for b, _ in found]\n'
    'peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n'
    'print(json.dumps([sum(n), max(n), peak - base]))\n'
  )
  line = json.dumps({'text': 'word ' * 20_000}) + '\n'
  with gzip.open(tmp_path / 'a.jsonl.gz', 'wt', 1) as f:
    f.writelines(itertools.repeat(line, 1000))
  root = pathlib.Path(__file__).parents[2]
  done = subprocess.run(
    [sys.executable, '-c', code], cwd=root, capture_output=True, timeout=120, check=True
  )
  count, most, grown = json.loads(done.stdout)
  assert (count, most) == (1000, 10) and grown < 30_000  # KB; the file holds 100 MB


def test_urls_of_fsspec_are_read(tmp_path):
  memory = fsspec.filesystem('memory')
  packed = io.BytesIO()
  with gzip.GzipFile(fileobj=packed, mode='wb') as f:
    f.write(b'{"text": "far away"}\n')
  memory.pipe('/curate_test/a.jsonl.gz', packed.getvalue())
  memory.pipe('/curate_test/a.warc', b''.join(RECORDS))
  try:
    assert read.rows('memory://curate_test/a.jsonl.gz')[0][0]['text'] == 'far away'
    assert len(read.rows('memory://curate_test/a.warc')[0]) == 8
  finally:
    memory.rm('/curate_test', recursive=True)
