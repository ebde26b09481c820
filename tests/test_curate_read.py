"""Reading: one schema, ids in order, the same rows from every format and batch size."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from llama3_jax.curate import documents
from llama3_jax.curate import read

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
