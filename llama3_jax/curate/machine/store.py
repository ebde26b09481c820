"""The folder of a curation run: what each stage wrote, and what is still to do.

  work/<number>-<stage>-<fingerprint>/
    keys/<shard>.arrow, side/<shard>.arrow   what emit() gave, sorted by key
    reduced/<partition>-of-<n>.arrow         what reduce() gave
    state/<name>.npy, state.json             what resolve() gave
    <shard>.parquet, <shard>.json            the columns a step wrote, its statistics
  work/inputs-<fingerprint>.json             the list of shards, for other processes

A file is written under another name and renamed when it is whole, and the .json comes
last: a task is done when its .json is there. The fingerprint covers the configuration
and code of the stage and of all stages before it, so that a change makes a new folder
for that stage and those after it, and no other.
"""

import contextlib
import dataclasses
import functools
import hashlib
import inspect
import json
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from llama3_jax.base import files
from llama3_jax.base.errors import UserError
from llama3_jax.curate.machine import documents
from llama3_jax.curate.reading import read

HTML = 'html'  # read, never stored
PACKAGE = 'llama3_jax.curate.'  # code of which a fingerprint takes account


@dataclasses.dataclass(frozen=True)
class Shard:
  """One input file."""

  path: str
  name: str  # path below the input, no two files' the same
  category: str
  source: str | None
  bytes: int
  identity: str  # path, name, size and time of change: another file is read again


@dataclasses.dataclass(frozen=True)
class Store:
  """The folder, its shards, and the name and fingerprint of every stage."""

  folder: str
  shards: tuple[Shard, ...]
  stages: tuple[tuple[str, str], ...]

  def at(self, stage, *parts):
    """Path of a file of stage number `stage`."""
    name, fingerprint = self.stages[stage]
    return pathlib.Path(self.folder, f'{stage:02d}-{name}-{fingerprint}', *parts)

  @functools.cached_property
  def fingerprint(self):
    """Names the result: configuration, code and inputs."""
    identities = [shard.identity for shard in self.shards]
    return hashlib.sha256(repr((self.stages, identities)).encode()).hexdigest()[:16]

  def __reduce__(self):
    """Every job carries the store: of the list of shards the name of its file only.

    The file is JSON, and not a pickle: a workdir is shared, and a pickle is a program.
    """
    path = pathlib.Path(self.folder, f'inputs-{self.fingerprint}.json')
    if not path.exists():
      path.parent.mkdir(parents=True, exist_ok=True)
      rows = [dataclasses.astuple(shard) for shard in self.shards]
      with files.renamed(path) as partial:
        partial.write_text(json.dumps(rows), encoding='utf-8')
    return _load, (self.folder, self.stages, str(path))

  def map_done(self, stage, shard):
    """Statistics of a finished shard, or None; also None when they are of another
    input: files that are taken away or put in between change the numbers of others."""
    found = _json(self.at(stage, f'{shard:05d}.json'))
    if found and found['input'] != self.shards[shard].identity:
      return None
    return found

  def emit_done(self, stage, shard):
    return _json(self.at(stage, 'keys', f'{shard:05d}.json'))

  def reduced(self, stage, partition, count):
    """Path of what reduce() gave for one of `count` partitions."""
    return self.at(stage, 'reduced', f'{partition:05d}-of-{count:05d}.arrow')

  def reduce_done(self, stage, partition, count):
    return self.reduced(stage, partition, count).exists()

  def state_done(self, stage):
    return _json(self.at(stage, 'state.json'))


def _load(folder, stages, path):
  return Store(folder, _shards(path), stages)


@functools.lru_cache(maxsize=2)
def _shards(path):
  try:
    rows = json.loads(pathlib.Path(path).read_text(encoding='utf-8'))
    return tuple(Shard(*row) for row in rows)
  except (OSError, ValueError, TypeError) as error:
    raise UserError(f'{path}: not a list of inputs ({error}): remove it') from None


def fingerprints(stages, inputs):
  """Fingerprint of every stage, each covering those before it.

  Args:
    stages: list of stages.Stage.
    inputs: identities of all input files; they count from the first global stage on,
      so that a file that is added later does not make the others be read again.
  """
  result, digest, joined = [], hashlib.sha256(), False
  for stage in stages:
    functions = [step for step, _ in stage.steps]
    functions += [f for f in (stage.emit, stage.reduce, stage.resolve) if f]
    modules = [inspect.getmodule(f) for f in functions]
    sources = _sources(modules + ([read] if stage.limits else []))
    contents = [_content(path) for path in stage.files]
    rules = [config for _, config in stage.steps]
    digest.update(repr((stage.name, rules, contents, sources)).encode())
    if stage.resolve and not joined:
      digest.update(repr(inputs).encode())
      joined = True
    result.append(digest.hexdigest()[:12])
  return result


def _content(path):
  """Hash of a file that a stage was told to use, or None."""
  digest = xxhash.xxh3_128()
  try:
    with open(path, 'rb') as f:
      while part := f.read(1 << 20):
        digest.update(part)
  except OSError:
    return None
  return digest.hexdigest()


def _sources(modules):
  """Source texts of modules and of the curation modules that they use, by name."""
  found, left = {}, list(modules)
  while left:
    module = left.pop()
    if module.__name__ not in found:
      found[module.__name__] = inspect.getsource(module)
      left += [
        value
        for value in vars(module).values()
        if inspect.ismodule(value) and value.__name__.startswith(PACKAGE)
      ]
  return sorted(found.items())


def starts(store):
  """Number of the first document of every shard in the whole input."""
  counts = [store.map_done(0, i)['rows'] for i in range(len(store.shards))]
  return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def batches(store, stage, shard, columns=None):
  """Yields the batches of a shard as the stages before `stage` left them.

  Args:
    columns: those that are needed; None is all. `ordinal`, the number in the whole
      input, is added when the first stage of all shards is done.
  """
  opened, place = [], {}
  for number in range(stage):
    file = pq.ParquetFile(store.at(number, f'{shard:05d}.parquet'), memory_map=True)
    opened.append(file)
    for name in file.schema_arrow.names:
      place[name] = number  # the later wins
  wanted = [name for name in place if columns is None or name in columns]
  first = _json(store.at(0, 'starts.json'))
  at = first[shard] if first else 0
  for group in range(opened[0].num_row_groups):
    parts = {}
    for number, file in enumerate(opened):
      names = [name for name in wanted if place[name] == number]
      if names:
        table = file.read_row_group(group, names, use_threads=False)
        parts |= {name: table[name].combine_chunks() for name in names}
    rows = opened[0].metadata.row_group(group).num_rows
    parts['ordinal'] = pa.array(np.arange(at, at + rows, dtype=np.uint64))
    at += rows
    yield pa.record_batch([*parts.values()], names=[*parts])
  for file in opened:
    file.close()


class Columns:
  """Writes the columns that a stage adds or changes, one row group a batch."""

  def __init__(self, path, writes, first):
    self.path, self.writes, self.first = path, writes, first
    self.writer = None

  def add(self, before, after):
    """before, after: the batch as it was read and as the steps left it."""
    if self.first:
      names = [name for name in after.schema.names if name != HTML]
    else:
      known = set(before.schema.names) | set(documents.SCHEMA.names)
      names = [*self.writes, 'drop_reason', 'drop_value']
      names += ['bytes'] if 'text' in self.writes else []
      names += [n for n in after.schema.names if n not in known]
    table = pa.Table.from_batches([after.select(names)])
    if self.writer is None:
      self.writer = pq.ParquetWriter(
        self.path, table.schema, compression='zstd', write_statistics=False
      )
    self.writer.write_table(table, row_group_size=max(table.num_rows, 1))


@contextlib.contextmanager
def columns(store, stage, shard, writes):
  """A Columns whose file appears when the block ends without an error."""
  path = store.at(stage, f'{shard:05d}.parquet')
  path.parent.mkdir(parents=True, exist_ok=True)
  with files.renamed(path) as partial:
    result = Columns(partial, writes, not stage)
    try:
      yield result
    finally:
      if result.writer is not None:
        result.writer.close()
    if result.writer is None:  # an input without documents
      schema = pa.schema([f for f in documents.SCHEMA if f.name != HTML])
      pq.ParquetWriter(partial, schema).close()  # no row group: no batch


def write_state(store, stage, arrays, facts):
  """Writes {name: np.ndarray} as .npy files, then state.json."""
  folder = store.at(stage, 'state')
  folder.mkdir(parents=True, exist_ok=True)
  for name, array in arrays.items():
    with files.renamed(folder / f'{name}.npy') as partial:
      with open(partial, 'wb') as f:
        np.save(f, array)
  files.write_json(store.at(stage, 'state.json'), {'names': [*arrays], **facts})


def state(store, stage):
  """{name: np.ndarray} of a stage, memory-mapped; None when it has none."""
  found = store.state_done(stage)
  if found is None:
    return None
  folder = store.at(stage, 'state')
  return {
    name: np.load(folder / f'{name}.npy', mmap_mode='r', allow_pickle=False)
    for name in found['names']
  }


def _json(path):
  try:
    return json.loads(path.read_text(encoding='utf-8'))
  except FileNotFoundError:
    return None
