"""Documents of files to token shards, part by part, in any number of processes."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs import shards as shards_config
from experiments import shards as experiment
from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError
from llama3_jax.curate.machine import engine
from llama3_jax.data import shards
from llama3_jax.data import texts
from llama3_jax.data import tokenise
from llama3_jax.text import vocabulary
from llama3_jax.text.tokenizer import Tokenizer


@pytest.fixture(scope='module')
def bytes_model(tmp_path_factory):
  path = tmp_path_factory.mktemp('vocabulary') / 'bytes.model'
  vocabulary.write([bytes([i]) for i in range(256)], path)
  return path


def rows(start, n=40):
  return [
    {'text': f'Document {i} ' + 'word ' * (i % 17), 'lang': ('en', 'de')[i % 2]}
    for i in range(start, start + n)
  ]


@pytest.fixture
def paths(tmp_path):
  """Five files of documents, of three forms."""
  jsonl.write(tmp_path / '0.jsonl', rows(0))
  jsonl.write(tmp_path / '1.jsonl.gz', rows(40))
  for i in (2, 3, 4):
    pq.write_table(pa.Table.from_pylist(rows(40 * i)), tmp_path / f'{i}.parquet')
  return texts.below(tmp_path)


def alone(work, jobs):
  return ((job, work(job)) for job in jobs)


def content(folder):
  """{split: ids of every document in order}."""
  return {
    split: [s[i].tolist() for i in range(len(s))]
    for split in tokenise.SPLITS
    for s in [shards.open_source(folder, split=split)]
  }


@pytest.mark.parametrize('size', [1, 4000, 1 << 28])
def test_parts_are_the_whole(tmp_path, paths, bytes_model, size):
  how = dict(heldout=0.2, seed=3, part_bytes=size)
  index = tokenise.write_files(paths, bytes_model, tmp_path / 'a', alone, **how)
  tokenizer = Tokenizer.load(bytes_model)
  documents = [row for start in range(0, 200, 40) for row in rows(start)]
  whole = tokenise.write(
    documents, tokenizer, tmp_path / 'b', vocabulary=bytes_model, **how
  )
  assert content(tmp_path / 'a') == content(tmp_path / 'b')
  for name in ('documents', 'tokens', 'languages', 'sources', 'vocabulary', 'seed'):
    assert index[name] == whole[name]
  files = len(index['splits']['train']['shards'])
  assert files in {1: (5,), 4000: (2, 3, 4), 1 << 28: (1,)}[size]
  for split in tokenise.SPLITS:
    source = shards.open_source(tmp_path / 'a', split=split)
    assert source.lengths.dtype == np.uint32
  same = index['splits']['train']['fingerprint']
  assert (same == whole['splits']['train']['fingerprint']) == (files == 1)
  left = {p.name for p in (tmp_path / 'a').iterdir()}
  assert not [name for name in left if name[0].isdigit() or 'plan' in name]


def test_processes_give_the_same_bytes(tmp_path, paths, bytes_model):
  tokenise.write_files(paths, bytes_model, tmp_path / 'a', alone, part_bytes=1)
  with engine.start('local', 2) as each:
    tokenise.write_files(paths, bytes_model, tmp_path / 'b', each, part_bytes=1)
  files = lambda f: {p.name: p.read_bytes() for p in (tmp_path / f).iterdir()}
  assert files('a') == files('b')


def test_a_stopped_run_goes_on_with_the_parts_that_are_missing(
  tmp_path, paths, bytes_model
):
  done = []

  def each(work, jobs, most):
    for job in jobs:
      if len(done) == most:
        raise KeyboardInterrupt
      done.append(job.number)
      yield job, work(job)

  stopped = lambda work, jobs: each(work, jobs, 3)
  with pytest.raises(KeyboardInterrupt):
    tokenise.write_files(paths, bytes_model, tmp_path / 'a', stopped, part_bytes=1)
  assert not (tmp_path / 'a').exists() and done == [0, 1, 2]
  tokenise.write_files(
    paths, bytes_model, tmp_path / 'a', lambda *x: each(*x, most=99), part_bytes=1
  )
  assert done == [0, 1, 2, 3, 4]
  tokenise.write_files(paths, bytes_model, tmp_path / 'b', alone)
  assert content(tmp_path / 'a') == content(tmp_path / 'b')


def test_a_file_that_changed_meanwhile_is_read_again(tmp_path, paths, bytes_model):

  def stopped(work, jobs):
    yield jobs[0], work(jobs[0])
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    tokenise.write_files(paths, bytes_model, tmp_path / 'a', stopped, part_bytes=1)
  jsonl.write(paths[0], rows(1000))
  tokenise.write_files(paths, bytes_model, tmp_path / 'a', alone, part_bytes=1)
  tokenise.write_files(paths, bytes_model, tmp_path / 'b', alone)
  assert content(tmp_path / 'a') == content(tmp_path / 'b')


def test_the_recipe_takes_parquet_and_gives_the_sources(tmp_path, bytes_model):
  folder = tmp_path / 'documents/general'
  folder.mkdir(parents=True)
  text = 'This is a sentence that is long enough to hide a needle in. '
  pages = [{'text': text * 4 + str(i), 'lang': 'en'} for i in range(50)]
  pq.write_table(pa.Table.from_pylist(pages), folder / '00000.parquet')
  pq.write_table(pa.Table.from_pylist(pages), folder / '00003.parquet')
  jsonl.write(tmp_path / 'documents/code.jsonl.gz', rows(0))
  c = shards_config.get_config()
  c.update(dict(documents=str(tmp_path / 'documents'), tokenizer=str(bytes_model)))
  c.update(dict(workers=1, task_pages=5, drills=7))
  c.needle.update(dict(short_pages=3, short=(300, 400), facts=(1, 2)))
  c.needle.update(dict(long_pages=2, long=(600, 700), long_facts=(1, 2)))
  found = experiment.main(c, str(tmp_path / 'shards'))
  counts = {name: entry['documents'] for name, entry in found.items()}
  made = dict(math=5, drill=7, needle=3, needle_long=2)
  assert counts == dict(general=100, code=40, **made)
  index = json.loads((tmp_path / 'shards/general/index.json').read_text())
  assert index['languages']['en']['documents'] == 100


@pytest.mark.parametrize(
  'table,words',
  [
    ({'body': ['a']}, "column 'text' is missing"),
    ({'text': [1]}, "column 'text' is int64"),
    ({'text': ['a', None]}, "row 2: field 'text' is a null"),
  ],
)
def test_parquet_without_text_is_one_line(tmp_path, table, words):
  pq.write_table(pa.table(table), tmp_path / 'a.parquet')
  with pytest.raises(UserError) as error:
    list(texts.read(tmp_path / 'a.parquet', 'documents'))
  assert words in str(error.value) and '\n' not in str(error.value)


def test_damaged_parquet_is_one_line(tmp_path):
  pq.write_table(pa.table({'text': ['a' * 9] * 4000}), tmp_path / 'a.parquet')
  whole = (tmp_path / 'a.parquet').read_bytes()
  for cut in (0, 3, len(whole) // 2, len(whole) - 1):
    (tmp_path / 'a.parquet').write_bytes(whole[:cut])
    with pytest.raises(UserError, match='cannot be read') as error:
      list(texts.read(tmp_path / 'a.parquet', 'documents'))
    assert '\n' not in str(error.value)


def test_a_folder_without_documents_is_one_line(tmp_path):
  (tmp_path / 'notes.txt').write_text('no documents')
  with pytest.raises(UserError, match='documents=.*curate first'):
    texts.categories(tmp_path, 'documents')
