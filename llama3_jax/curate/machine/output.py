"""Output of curation: documents by category, dropped ones with reasons (3.1.1)."""

import contextlib
import gzip
import json
import os
import pathlib
import shutil

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from llama3_jax.base import files
from llama3_jax.base.errors import UserError
from llama3_jax.curate.machine import documents
from llama3_jax.curate.machine import engine as engines
from llama3_jax.curate.machine import store as stores
from llama3_jax.curate.machine.stages import Config

EXCERPT = 300  # characters of a dropped document that are written
FIELDS = ('text', 'url', 'date', 'source', 'lang', 'category')
DROPPED = ('drop_reason', 'drop_value', *FIELDS)
DROPPED_FILE = 'dropped.jsonl.gz'
INDEX = 'index.json'  # of documents/: lists its Parquet files
FORMS = ('jsonl', 'parquet')


def write(store: stores.Store, config: Config, stages: int, each: engines.Each) -> None:
  """Writes documents/ and dropped.jsonl.gz, in input order.

  Documents are in documents/<category>.jsonl.gz or, with config.form='parquet', in one
  file per input in documents/<category>/, so that readers can read them in parts.

  Args:
    stages: number of stages that are done.
    each: from engine.start().
  """
  shards = range(len(store.shards))
  source = _folder(store, config, stages)
  done = lambda i: _part(source, i, 'dropped').exists()  # it is written last
  jobs = [
    (store, config, stages, i)
    for i in shards
    if not done(i) and i % config.hosts == config.host
  ]
  weight = lambda job: store.shards[job[3]].bytes
  pairs = each(_shard, jobs) if jobs else ()
  for _ in engines.watch('output', pairs, sum(map(weight, jobs)), weight):
    pass
  if config.hosts > 1:
    engines.wait('output', lambda: [str(i) for i in shards if not done(i)])
  if config.host == 0:
    folder = pathlib.Path(store.folder).parent
    _join([_part(source, i, 'dropped') for i in shards], folder / DROPPED_FILE)
    publish = _publish if config.form == 'parquet' else _publish_joined
    publish(source, shards, folder / 'documents')
    for partial in pathlib.Path(store.folder).rglob('*.partial'):  # of killed processes
      partial.unlink(missing_ok=True)


def written(folder: str | os.PathLike, config: Config) -> list[pathlib.Path]:
  """Paths of a run's outputs: all once it has ended, those known before that."""
  folder = pathlib.Path(folder)
  index = folder / 'documents' / INDEX
  if config.form == 'jsonl':
    names = [f'{name}.jsonl.gz' for name in documents.CATEGORIES]
  else:
    names = [INDEX, *(files.read_json(index) if index.exists() else ())]
  return [folder / DROPPED_FILE, *(folder / 'documents' / name for name in names)]


def check(folder: str | os.PathLike) -> None:
  """Raises UserError where documents/ is a link, which would lead out of the run."""
  path = pathlib.Path(folder, 'documents')
  if path.is_symlink():
    raise UserError(f'{path} is a symbolic link: remove it, or name another workdir')


def _folder(store, config, stages):
  """Folder of the parts; its name depends on all stages, the inputs and the form."""
  kept = f'{config.keep_dropped} {config.form}'
  identity = f'{store.stages[stages - 1][1]} {store.fingerprint} {kept}'
  digest = xxhash.xxh3_64_hexdigest(identity.encode())
  return pathlib.Path(store.folder, f'output-{digest}')


def _part(folder, shard, name, kind='gz'):
  """Path of a shard's part of an output."""
  return folder / f'{shard:05d}.{name}.{kind}'


def _shard(job):
  """Writes a shard's part of every output; returns the number of its documents."""
  store, config, stages, shard = job
  folder, count = _folder(store, config, stages), 0
  folder.mkdir(parents=True, exist_ok=True)
  kind = _Rows if config.form == 'jsonl' else _Table
  with contextlib.ExitStack() as opened:
    dropped = opened.enter_context(_Rows(_part(folder, shard, 'dropped')))
    suffix = 'gz' if config.form == 'jsonl' else 'parquet'
    outputs = {
      name: opened.enter_context(kind(_part(folder, shard, name, suffix)))
      for name in documents.CATEGORIES
    }
    for batch in stores.batches(store, stages, shard, DROPPED + ('id',)):
      count += batch.num_rows
      kept = batch['drop_reason'].is_null()
      for name, output in outputs.items():
        own = pc.and_(kept, pc.equal(batch['category'], name))
        output.add(_documents(batch.filter(own)))
      rows = batch.filter(pc.invert(kept)).to_pylist()
      dropped.rows(_dropped(r) for r in rows if _sampled(r['id'], config.keep_dropped))
  return count


def _documents(batch):
  """The columns of the documents to write, the date as YYYY-MM-DD."""
  columns = {name: batch[name] for name in FIELDS}
  columns['date'] = pc.utf8_slice_codeunits(pc.fill_null(columns['date'], ''), 0, 10)
  return pa.table(columns)


class _Rows:
  """Writes a part as gzip JSONL; the file appears when the block ends."""

  def __init__(self, path):
    self._stack, self._path = contextlib.ExitStack(), path

  def __enter__(self):
    partial = self._stack.enter_context(files.renamed(self._path))
    raw = self._stack.enter_context(open(partial, 'wb'))
    self._file = self._stack.enter_context(gzip.GzipFile('', 'wb', 6, raw, 0))
    return self

  def __exit__(self, *error):
    return self._stack.__exit__(*error)

  def add(self, table):
    self.rows(table.to_pylist())

  def rows(self, rows):
    for row in rows:
      line = json.dumps(row, ensure_ascii=False)
      self._file.write(line.encode('utf-8', 'replace') + b'\n')


class _Table:
  """Writes a part as Parquet, a row group a batch; without rows there is no file."""

  def __init__(self, path):
    self._path, self._partial, self._writer = path, None, None

  def __enter__(self):
    return self

  def add(self, table):
    if not table.num_rows:
      return
    if self._writer is None:
      self._partial = self._path.with_name(f'{self._path.name}.{os.getpid()}.partial')
      self._writer = pq.ParquetWriter(self._partial, table.schema, compression='zstd')
    self._writer.write_table(table)

  def __exit__(self, kind, *error):
    if self._writer is not None:
      self._writer.close()
      if kind is None:
        os.replace(self._partial, self._path)


def _sampled(number, share):
  """Whether a dropped document belongs to the sample that is written."""
  digest = xxhash.xxh3_64_intdigest(int(number).to_bytes(8, 'little'))
  return digest < share * 2**64


def _dropped(row):
  fields = {name: row[name] for name in FIELDS if name != 'text'}
  text = (row['text'] or '')[:EXCERPT]
  return {
    'reason': row['drop_reason'],
    'value': row['drop_value'],
    **fields,
    'text': text,
  }


def _publish_joined(source, shards, folder):
  """Writes documents/<category>.jsonl.gz of all parts; removes files of other forms."""
  for name in documents.CATEGORIES:
    _join([_part(source, i, name) for i in shards], folder / f'{name}.jsonl.gz')
    shutil.rmtree(folder / name, ignore_errors=True)
  (folder / INDEX).unlink(missing_ok=True)


def _publish(source, shards, folder):
  """Links the parts as documents/<category>/<input>.parquet; index.json lists them."""
  try:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / INDEX).unlink(missing_ok=True)
    names = []
    for name in documents.CATEGORIES:
      shutil.rmtree(folder / name, ignore_errors=True)
      (folder / f'{name}.jsonl.gz').unlink(missing_ok=True)
      parts = [(i, _part(source, i, name, 'parquet')) for i in shards]
      for i, part in parts:
        if part.exists():
          (folder / name).mkdir(exist_ok=True)
          names.append(f'{name}/{i:05d}.parquet')
          _link(part, folder / names[-1])
    files.write_json(folder / INDEX, names)
  except OSError as error:
    raise UserError(f'{folder}: cannot be written: {error.strerror}') from error


def _link(source, target):
  """Makes a hard link, or a copy where the file system has no hard links."""
  try:
    os.link(source, target)
  except OSError:
    shutil.copyfile(source, target)


def _join(parts, path):
  """Joins all parts to one file: gzip members in a row are a gzip file."""
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.renamed(path) as partial, open(partial, 'wb') as out:
      for part in parts:
        with open(part, 'rb') as f:
          shutil.copyfileobj(f, out)
      out.flush()
      os.fsync(out.fileno())
  except OSError as error:
    raise UserError(f'{path}: cannot be written: {error.strerror}') from error
