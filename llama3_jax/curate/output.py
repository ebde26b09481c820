"""What curation gives: documents by category, and what was dropped and why (3.1.1)."""

import gzip
import json
import os
import pathlib
import shutil

import xxhash

from llama3_jax.base import files
from llama3_jax.base.errors import UserError
from llama3_jax.curate import documents
from llama3_jax.curate import engine as engines
from llama3_jax.curate import store as stores

EXCERPT = 300  # characters of a dropped document that are kept for the reader
FIELDS = ('text', 'url', 'date', 'source', 'lang', 'category')
DROPPED = ('drop_reason', 'drop_value', *FIELDS)
NAMES = (*documents.CATEGORIES, 'dropped')


def write(store, config, stages, each):
  """Writes documents/<category>.jsonl.gz and dropped.jsonl.gz, in input order.

  Args:
    stages: number of stages that are done.
    each: of the engine.
  """
  shards = range(len(store.shards))
  place = _folder(store, config, stages)
  done = lambda i: all(_part(place, i, name).exists() for name in NAMES)
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
    for name in NAMES:
      parts = [_part(place, i, name) for i in shards]
      _join(parts, path_of(pathlib.Path(store.folder).parent, name))
    for left in pathlib.Path(store.folder).rglob('*.partial'):  # of killed processes
      left.unlink(missing_ok=True)


def check(folder):
  """UserError where documents/ is a link: what it leads to is not this run's."""
  path = pathlib.Path(folder, 'documents')
  if path.is_symlink():
    raise UserError(f'{path} is a symbolic link: remove it, or name another workdir')


def path_of(folder, name):
  """The file of a category, or of what was dropped."""
  folder = pathlib.Path(folder)
  folder = folder if name == 'dropped' else folder / 'documents'
  return folder / f'{name}.jsonl.gz'


def _folder(store, config, stages):
  """Folder of the parts; its name covers all stages, the inputs and what is kept."""
  named = f'{store.stages[stages - 1][1]} {store.fingerprint} {config.keep_dropped}'
  digest = xxhash.xxh3_64_hexdigest(named.encode())
  return pathlib.Path(store.folder, f'output-{digest}')


def _part(folder, shard, name):
  """A shard's part of an output."""
  return folder / f'{shard:05d}.{name}.gz'


def _shard(job):
  """Writes one shard's part of every output; returns its documents."""
  store, config, stages, shard = job
  rows = {name: [] for name in NAMES}
  count = 0
  for batch in stores.batches(store, stages, shard, DROPPED + ('id',)):
    for row in batch.to_pylist():
      count += 1
      if row['drop_reason'] is None:
        kept = {name: row[name] for name in FIELDS}
        kept['date'] = (kept['date'] or '')[:10]
        rows[row['category']].append(kept)
      elif _sampled(row['id'], config.keep_dropped):
        rows['dropped'].append(_dropped(row))
  for name in NAMES:
    path = _part(_folder(store, config, stages), shard, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.renamed(path) as partial:
      with open(partial, 'wb') as raw, gzip.GzipFile('', 'wb', 6, raw, 0) as f:
        for row in rows[name]:
          line = json.dumps(row, ensure_ascii=False)
          f.write(line.encode('utf-8', 'replace') + b'\n')
  return count


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


def _join(parts, path):
  """One file of all parts: gzip members one after the other are a gzip file."""
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
