"""Reading: one schema, ids in order, the same rows from every format and batch size."""

import gzip
import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from llama3_jax.base.errors import UserError
from llama3_jax.curate.machine import documents
from llama3_jax.curate.machine import run
from llama3_jax.curate.reading import read

ROWS = [
  {'url': f'https://www.A.example/{i}', 'date': '2024', 'text': f'text {i} é'}
  for i in range(25)
]
LINES = ''.join(json.dumps(row) + '\n' for row in ROWS).encode()


def write(folder, end):
  path = folder / f'a{end}'
  if end == '.parquet':
    pq.write_table(pa.Table.from_pylist([{**row, 'n': 1} for row in ROWS]), path)
  else:
    packed = {'.jsonl': bytes, '.gz': gzip.compress, '.zst': zstandard.compress}
    path.write_bytes(packed[path.suffix](LINES))
  return path


@pytest.mark.parametrize('end', ['.jsonl', '.jsonl.gz', '.jsonl.zst', '.parquet'])
@pytest.mark.parametrize('many', [1, 10, 256])
def test_every_format_and_batch_size_gives_the_same_rows(tmp_path, end, many):
  path = write(tmp_path, end)
  found = list(
    read.batches(path, 'math', 's', documents_per_batch=many, first_id=7 << 32)
  )
  assert all(batch.schema == documents.SCHEMA for batch, _ in found)
  assert [problem for _, problems in found for problem in problems] == []
  assert max(batch.num_rows for batch, _ in found) == min(many, 25)
  rows = [row for batch, _ in found for row in batch.to_pylist()]
  assert [row['id'] for row in rows] == [(7 << 32) + i for i in range(25)]
  for row, given in zip(rows, ROWS):
    assert {**row, **given} == row
    assert (row['host'], row['category'], row['source']) == (
      'www.a.example',
      'math',
      's',
    )


def test_what_a_row_says_goes_before_what_the_input_says(tmp_path):
  path = tmp_path / 'a.jsonl'
  path.write_text('{"text": "x", "category": "code", "source": "mine", "lang": "de"}\n')
  (row,), _ = read.rows(path, 'math', 'other')
  assert (row['category'], row['source'], row['lang']) == ('code', 'mine', 'de')


def test_columns_of_other_types_are_read_as_text(tmp_path):
  table = pa.table(
    {
      'html': pa.array([b'<p>a \xff', None, b'<p>b']),
      'date': pa.array([0, 0, 86400], pa.timestamp('s')),
    }
  )
  pq.write_table(table, tmp_path / 'a.parquet')
  rows, problems = read.rows(tmp_path / 'a.parquet')
  assert [row['html'] for row in rows] == ['<p>a \ufffd', '<p>b']
  assert rows[1]['date'].startswith('1970-01-02') and len(problems) == 1


def test_a_batch_ends_early_when_its_documents_are_large(tmp_path):
  path = write(tmp_path, '.jsonl')
  found = list(read.batches(path, limits=read.Limits(batch_bytes=30)))
  assert [batch.num_rows for batch, _ in found] == [4] * 6 + [1]


@pytest.mark.parametrize('pack', [gzip.compress, zstandard.compress])
def test_rows_before_a_cut_are_kept_and_the_cut_is_named(tmp_path, pack):
  end = {gzip.compress: '.gz', zstandard.compress: '.zst'}[pack]
  path, rng = tmp_path / f'a.jsonl{end}', random.Random(0)
  texts = [f'{i} {rng.getrandbits(800):x}' for i in range(5000)]
  lines = [json.dumps({'text': text}).encode() + b'\n' for text in texts]
  data = pack(b''.join(lines))
  for share in (0.001, 0.3, 0.9, 0.999):
    path.write_bytes(data[: int(len(data) * share)])
    rows, problems = read.rows(path)
    assert [row['text'] for row in rows] == texts[: len(rows)]
    assert len(rows) > 5000 * (share - 0.35)  # zstd: whole blocks of 128 KB only
    (problem,) = problems
    assert f'a.jsonl{end}: unreadable after line {len(rows)} (' in problem


@pytest.mark.parametrize('pack', [gzip.compress, zstandard.compress])
@pytest.mark.parametrize('last', [b'\n', b''])
def test_rows_before_garbage_are_kept_and_it_is_named(tmp_path, pack, last):
  end = {gzip.compress: '.gz', zstandard.compress: '.zst'}[pack]
  path = tmp_path / f'a.jsonl{end}'
  path.write_bytes(pack(LINES.strip() + last) + b'garbage' + pack(LINES))
  rows, (problem,) = read.rows(path)
  assert len(rows) == 25 and 'unreadable after line 25' in problem
  path.write_bytes(pack(LINES) * 2)
  assert [len(part) for part in read.rows(path)] == [50, 0]


def test_a_byte_order_mark_costs_no_document(tmp_path):
  path = tmp_path / 'a.jsonl'
  path.write_bytes(b'\xef\xbb\xbf' + LINES)
  rows, problems = read.rows(path)
  assert rows[0]['text'] == 'text 0 é' and len(rows) == 25 and not problems


def test_a_field_of_another_type_is_named_and_no_row_goes_without_a_word(tmp_path):
  path = tmp_path / 'a.jsonl'
  lines = [
    '{"text": null}',
    '{"text": ["one", "two"]}',
    '{"text": 5, "html": "<p>kept"}',
    '{"text": "kept", "lang": {"a": 1}, "date": 2024, "score": NaN, "url": ""}',
    '{"text": "kept"}',
  ]
  path.write_text('\n'.join(lines))
  rows, problems = read.rows(path)
  assert [row['url'] for row in rows] == ['a.jsonl/3', 'a.jsonl/4', 'a.jsonl/5']
  assert rows[1]['date'] == '2024' and 'lang' not in rows[1]
  assert [line.partition('a.jsonl: ')[2] for line in problems] == [
    'line 1 is not a document (no text)',
    "line 2: field 'text' is a list, not text",
    "line 3: field 'text' is a number, not text",
    "line 4: field 'lang' is a object, not text",
  ]


def test_parquet_text_that_is_no_text_is_named(tmp_path):
  path = tmp_path / 'a.parquet'
  pq.write_table(pa.table({'text': [['one', 'two'], ['three'], None]}), path)
  rows, problems = read.rows(path)
  assert rows == [] and len(problems) == 3
  assert problems[1].endswith("row 2: field 'text' is a list, not text")
  texts = pa.array([b'a', b'caf\xe9', b'c']).view(pa.string())
  pq.write_table(pa.table({'text': texts}), path)
  rows, problems = read.rows(path)
  assert [row['text'] for row in rows] == ['a', 'caf\ufffd', 'c'] and not problems


def test_folder_is_an_input_of_all_that_can_be_read(tmp_path):
  (tmp_path / 'in/deep').mkdir(parents=True)
  for folder in ('in', 'in/deep'):
    write(tmp_path / folder, '.jsonl')
  (tmp_path / 'in/notes.txt').write_text('x')
  found = run._files(str(tmp_path / 'in'))
  assert [name for _, name, _ in found] == ['a.jsonl', 'deep/a.jsonl']
  (tmp_path / 'other').mkdir()
  (tmp_path / 'other/notes.txt').write_text('x')
  with pytest.raises(UserError, match='is a folder of 1 files'):
    run._files(str(tmp_path / 'other'))
