"""Curation's inputs: two files are two, whatever their names; damage is reported."""

import dataclasses
import gzip
import json
import os
import pickle
import random

import crawls as runs
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError
from llama3_jax.curate.machine import run
from llama3_jax.curate.machine import stages
from llama3_jax.curate.machine import store as stores

STAGES = ('extract', 'url', 'document')
CONFIG = dataclasses.replace(
  runs.CONFIG,
  skip=tuple({s.name for s in stages.stages(stages.Config())} - set(STAGES)),
)
OUTPUT = 'documents/general.jsonl.gz'


def rows_of(i, count=20):
  return [{'text': _text(20 * i + k)} for k in range(count)]


def _text(i):
  """Of words that no other document has."""
  rng = random.Random(i)
  return ' '.join(''.join(rng.choices('abcdefghij', k=6)) for _ in range(60))


def names_of(inputs, folder):
  return [shard.name for shard in run.open_store(inputs, CONFIG, folder).shards]


def write_lines(path, rows):
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))


@pytest.mark.parametrize('end', ['.jsonl', '.jsonl.gz', '.parquet'])
def test_files_of_one_name_in_two_folders_are_all_kept(tmp_path, end):
  for i, folder in enumerate(('a', 'b#%7E')):
    (tmp_path / folder).mkdir()
    path = tmp_path / folder / f'part-00000{end}'
    if end == '.parquet':
      pq.write_table(pa.Table.from_pylist(rows_of(i)), path)
    elif end == '.jsonl':
      write_lines(path, rows_of(i))
    else:
      jsonl.write(path, rows_of(i))
  many = (['*/*'], ['a/*', 'b*/*'], [f'a/part-00000{end}', f'b#%7E/part-00000{end}'])
  for number, patterns in enumerate(many):
    inputs = [{'path': str(tmp_path / pattern)} for pattern in patterns]
    runs.curated(inputs, CONFIG, tmp_path / f'out{number}')
    kept = runs.read(tmp_path / f'out{number}' / OUTPUT)
    assert len(kept) == 40 and len({row['url'] for row in kept}) == 40
    sources = {row['source'] for row in kept}
    assert len(sources) == 2 and 'b#%7E/part-00000' in sources


def test_a_compressed_copy_goes_as_a_duplicate_and_not_as_an_older_page(tmp_path):
  write_lines(tmp_path / 'p.jsonl', rows_of(0))
  jsonl.write(tmp_path / 'p.jsonl.gz', rows_of(0))
  result = runs.curated([{'path': str(tmp_path / 'p.*')}], CONFIG, tmp_path / 'out')
  dropped = {
    k: v['documents'] for s in result['steps'] for k, v in s['dropped'].items()
  }
  assert dropped == {'document.duplicate': 20}


def test_names_are_paths_below_the_input_also_of_remote_ones(tmp_path):
  memory = fsspec.filesystem('memory')
  for path in ('/names/x/1/p.jsonl', '/names/y/1/p.jsonl', '/names/y/2/q.jsonl'):
    memory.pipe(path, b'{"text": "a"}\n')
  one = [{'path': 'memory://names/*/1/p.jsonl'}]
  assert names_of(one, tmp_path) == ['x/1/p.jsonl', 'y/1/p.jsonl']
  two = [{'path': f'memory://names/{p}'} for p in ('y/2/q.jsonl', 'x/1/*', 'y/1/*')]
  assert names_of(two, tmp_path) == ['q.jsonl', 'x/1/p.jsonl', 'y/1/p.jsonl']
  assert names_of(two[:2] * 2, tmp_path) == ['q.jsonl', 'p.jsonl'] * 2


def test_documents_are_not_written_through_a_link(tmp_path):
  (tmp_path / 'elsewhere').mkdir()
  (tmp_path / 'out').mkdir()
  (tmp_path / 'out/documents').symlink_to(tmp_path / 'elsewhere')
  with pytest.raises(UserError, match='symbolic link'):
    runs.curated(runs.write_inputs(tmp_path), CONFIG, tmp_path / 'out')
  assert not list((tmp_path / 'elsewhere').iterdir())


def test_a_cut_input_is_in_the_funnel(tmp_path):
  inputs = runs.write_inputs(tmp_path)
  packed = zstandard.compress(json.dumps({'text': runs.article(1)}).encode() * 50)
  (tmp_path / 'cut.jsonl.zst').write_bytes(packed[: len(packed) // 2])
  inputs.append({'path': str(tmp_path / 'cut.jsonl.zst')})
  (problem,) = runs.curated(inputs, CONFIG, tmp_path / 'out')['problems']
  assert 'cut.jsonl.zst: unreadable after line 0 (the zstd frame is cut' in problem


class _Evil:
  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return os.remove, (self.path,)


def test_no_pickle_is_left_in_a_workdir_nor_loaded_from_it(tmp_path):
  path = tmp_path / 'x.jsonl'
  path.write_text('{"text": "a"}\n')
  store = run.open_store([{'path': str(path)}], CONFIG, tmp_path)
  sent = pickle.dumps(store)
  (listed,) = (tmp_path / 'work').glob('inputs-*')
  assert json.loads(listed.read_text())[0][:2] == [str(path), 'x.jsonl']
  stores._shards.cache_clear()
  assert pickle.loads(sent) == store
  listed.write_bytes(pickle.dumps(_Evil(str(path))))
  stores._shards.cache_clear()
  with pytest.raises(UserError, match='not a list of inputs'):
    pickle.loads(sent)
  assert path.exists()


@pytest.mark.parametrize('end', ['.jsonl', '.jsonl.gz', '.parquet'])
def test_an_input_without_documents_beside_others(tmp_path, end):
  write_lines(tmp_path / 'a.jsonl', rows_of(0))
  empty = tmp_path / f'b{end}'
  if end == '.parquet':
    pq.write_table(pa.table({'text': pa.array([], pa.string())}), empty)
  else:
    empty.write_bytes(gzip.compress(b'') if end == '.jsonl.gz' else b'')
  inputs = [{'path': str(tmp_path / 'a.jsonl')}, {'path': str(empty)}]
  runs.curated(inputs, CONFIG, tmp_path / 'out')
  assert len(runs.read(tmp_path / 'out' / OUTPUT)) == 20


def test_two_columns_of_one_name_are_named(tmp_path):
  texts = [pa.array(['x']), pa.array(['y'])]
  pq.write_table(pa.table(texts, names=['text', 'text']), tmp_path / 'a.parquet')
  with pytest.raises(UserError, match='a.parquet: two columns are called text'):
    runs.curated([{'path': str(tmp_path / 'a.parquet')}], CONFIG, tmp_path / 'out')
