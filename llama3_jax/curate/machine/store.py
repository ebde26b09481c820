"""The folder of a curation run: outputs of each stage, and which tasks are left.

  work/<number>-<stage>-<fingerprint>/
    keys/<shard>.arrow, side/<shard>.arrow   results of emit(), keys in order
    reduced/<partition>-of-<n>.arrow         results of reduce()
    state/<name>.npy, state.json             results of resolve()
    <shard>.parquet, <shard>.json            columns that a step wrote, its statistics
  work/inputs-<fingerprint>.json             the list of shards, for other processes

A file is written under another name and renamed when it is complete, and the .json is
written last: a task is done when its .json exists. The fingerprint covers the
configuration and code of the stage and of all stages before it, so that a change makes
a new folder for that stage and those after it, and for no other.
"""

import contextlib
import dataclasses
import functools
import hashlib
import inspect
import json
import pathlib
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from llama3_jax.base import files
from llama3_jax.base.errors import UserError
from llama3_jax.curate.machine import documents
from llama3_jax.curate.reading import read

HTML = 'html'  # read, never stored
PACKAGE = 'llama3_jax.curate.'  # code that a fingerprint covers


@dataclasses.dataclass(frozen=True)
class Shard:
  """One input file."""

  path: str
  name: str  # path below the input, unique
  category: str
  source: str | None
  bytes: int
  identity: str  # path, name, size and time of change: a changed file is read again


@dataclasses.dataclass(frozen=True)
class Store:
  """The folder, its shards, and the (name, fingerprint) of every stage."""

  folder: str
  shards: tuple[Shard, ...]
  stages: tuple[tuple[str, str], ...]

  def at(self, stage: int, *parts: str) -> pathlib.Path:
    """Path of a file of stage number `stage`."""
    name, fingerprint = self.stages[stage]
    return pathlib.Path(self.folder, f'{stage:02d}-{name}-{fingerprint}', *parts)

  @functools.cached_property
  def fingerprint(self) -> str:
    """Hash of configuration, code and inputs, which identifies the result."""
    identities = [shard.identity for shard in self.shards]
    return hashlib.sha256(repr((self.stages, identities)).encode()).hexdigest()[:16]

  def __reduce__(self):
    """Pickles the path of a list of shards in place of the list: every job has a store.

    The list is JSON, and not a pickle: a workdir is shared, and a pickle can run code.
    """
    path = pathlib.Path(self.folder, f'inputs-{self.fingerprint}.json')
    if not path.exists():
      path.parent.mkdir(parents=True, exist_ok=True)
      rows = [dataclasses.astuple(shard) for shard in self.shards]
      with files.renamed(path) as partial:
        partial.write_text(json.dumps(rows), encoding='utf-8')
    return _load, (self.folder, self.stages, str(path))

  def map_done(self, stage: int, shard: int) -> dict[str, object] | None:
    """Statistics of a finished shard; None when it is not done or of another input.

    Files that are added or removed change the numbers of the other files.
    """
    facts = _json(self.at(stage, f'{shard:05d}.json'))
    if facts and facts['input'] != self.shards[shard].identity:
      return None
    return facts

  def emit_done(self, stage: int, shard: int) -> dict[str, object] | None:
    """Facts about the keys of a shard; None when they are not written."""
    return _json(self.at(stage, 'keys', f'{shard:05d}.json'))

  def reduced(self, stage: int, partition: int, count: int) -> pathlib.Path:
    """Path of the result of reduce() for one of `count` partitions."""
    return self.at(stage, 'reduced', f'{partition:05d}-of-{count:05d}.arrow')

  def reduce_done(self, stage: int, partition: int, count: int) -> bool:
    """Whether the result of reduce() for a partition is written."""
    return self.reduced(stage, partition, count).exists()

  def state_done(self, stage: int) -> dict[str, object] | None:
    """Facts about the state of a stage; None when it is not written."""
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


def fingerprints(stages: Iterable[object], inputs: Sequence[str]) -> list[str]:
  """Fingerprint of every stage, each covering those before it.

  Args:
    stages: Stages of stages.py.
    inputs: identities of all input files; they count from the first global stage on, so
      that the other files are not read again when a file is added.
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
  """Hash of a file that a config names; None when it cannot be read."""
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
  sources, waiting = {}, list(modules)
  while waiting:
    module = waiting.pop()
    if module.__name__ not in sources:
      sources[module.__name__] = inspect.getsource(module)
      waiting += [
        value
        for value in vars(module).values()
        if inspect.ismodule(value) and value.__name__.startswith(PACKAGE)
      ]
  return sorted(sources.items())


def starts(store: Store) -> np.ndarray:
  """int64 [shards + 1]: number of each shard's first document in the whole input."""
  counts = [store.map_done(0, i)['rows'] for i in range(len(store.shards))]
  return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def batches(
  store: Store, stage: int, shard: int, columns: Collection[str] | None = None
) -> Iterator[pa.RecordBatch]:
  """Yields the batches of a shard as the stages before `stage` left them.

  Args:
    columns: names of the columns to read; None is all. `ordinal`, the number in the
      whole input, is added once the first stage of all shards is done (before that, the
      number in the shard).
  """
  opened, stage_of = [], {}
  for number in range(stage):
    file = pq.ParquetFile(store.at(number, f'{shard:05d}.parquet'), memory_map=True)
    opened.append(file)
    for name in file.schema_arrow.names:
      stage_of[name] = number  # a later stage replaces a column
  selected = [name for name in stage_of if columns is None or name in columns]
  offsets = _json(store.at(0, 'starts.json'))
  ordinal = offsets[shard] if offsets else 0
  for group in range(opened[0].num_row_groups):
    parts = {}
    for number, file in enumerate(opened):
      names = [name for name in selected if stage_of[name] == number]
      if names:
        table = file.read_row_group(group, names, use_threads=False)
        parts |= {name: table[name].combine_chunks() for name in names}
    rows = opened[0].metadata.row_group(group).num_rows
    parts['ordinal'] = pa.array(np.arange(ordinal, ordinal + rows, dtype=np.uint64))
    ordinal += rows
    yield pa.record_batch([*parts.values()], names=[*parts])
  for file in opened:
    file.close()


class Columns:
  """Writes the columns that a stage adds or changes, one row group a batch."""

  def __init__(self, path: pathlib.Path, writes: Sequence[str], first: bool) -> None:
    self.path, self.writes, self.first = path, writes, first
    self.writer = None

  def add(self, before: pa.RecordBatch, after: pa.RecordBatch) -> None:
    """Writes the columns of a batch: `before` as it was read, `after` the steps."""
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
def columns(
  store: Store, stage: int, shard: int, writes: Sequence[str]
) -> Iterator[Columns]:
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


def write_state(
  store: Store,
  stage: int,
  arrays: Mapping[str, np.ndarray],
  facts: Mapping[str, object],
) -> None:
  """Writes {name: np.ndarray} as .npy files, then state.json."""
  folder = store.at(stage, 'state')
  folder.mkdir(parents=True, exist_ok=True)
  for name, array in arrays.items():
    with files.renamed(folder / f'{name}.npy') as partial:
      with open(partial, 'wb') as f:
        np.save(f, array)
  files.write_json(store.at(stage, 'state.json'), {'names': [*arrays], **facts})


def state(store: Store, stage: int) -> dict[str, np.ndarray] | None:
  """{name: np.ndarray} of a stage, memory-mapped; None when it has none."""
  facts = store.state_done(stage)
  if facts is None:
    return None
  folder = store.at(stage, 'state')
  return {
    name: np.load(folder / f'{name}.npy', mmap_mode='r', allow_pickle=False)
    for name in facts['names']
  }


def _json(path):
  try:
    return json.loads(path.read_text(encoding='utf-8'))
  except FileNotFoundError:
    return None
