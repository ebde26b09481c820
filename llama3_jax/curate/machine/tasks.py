"""The tasks of a curation run: each reads files, calls a step, writes files.

A task is (kind, stage, number). Its output depends on its inputs alone, so it may run
anywhere, in any order within its kind, and more than once.
"""

import collections
import time

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from llama3_jax.base import files
from llama3_jax.curate.machine import keys as key_files
from llama3_jax.curate.machine import stages
from llama3_jax.curate.machine import store as stores
from llama3_jax.curate.machine import tables
from llama3_jax.curate.reading import read

MAX_PROBLEMS = 100  # of a shard of which the text is kept
MAX_HOSTS = 2000  # of a shard that are counted by name


def work(
  job: tuple[stores.Store, stages.Config, str, int, int | tuple[int, int]],
) -> int:
  """Runs one task.

  Args:
    job: (Store, stages.Config, kind, number of the stage, argument). The argument is a
      shard; to reduce, (partition, number of partitions); to resolve, that number.

  Returns:
    Documents done, for the progress bar.
  """
  store, config, kind, number, argument = job
  stage = stages.stages(config)[number]
  kinds = {'map': _map, 'emit': _emit, 'reduce': _reduce, 'resolve': _resolve}
  return kinds[kind](store, stage, number, argument)


def partitions(store: stores.Store, stage: int, memory_bytes: int) -> int:
  """Number of key ranges for reduce(), each of which fits into `memory_bytes`."""
  facts = [store.emit_done(stage, i) for i in range(len(store.shards))]
  rows = sum(f['keys'] for f in facts)
  size = sum(f['bytes'] for f in facts) / max(rows, 1)
  return key_files.partitions(rows, size, memory_bytes)


def _map(store, stage, number, shard):
  """Calls the steps of a stage on every batch of a shard."""
  began, stats = time.process_time(), _Stats()
  state = stores.state(store, number)
  with stores.columns(store, number, shard, stage.writes) as out:
    for before, problems in _source(store, stage, number, shard):
      after = before
      for step, config in stage.steps:
        after = step(after, config, state)
      if not number or 'text' in stage.writes:
        after = _sized(after)
      stats.add(before, after, problems, not number)
      out.add(before, after)
  facts = {**stats.facts(), 'seconds': time.process_time() - began}
  facts['input'] = store.shards[shard].identity
  files.write_json(store.at(number, f'{shard:05d}.json'), facts)
  return facts['rows']


def _source(store, stage, number, shard):
  """(batch, problems) of a shard, from the input file or as earlier stages left it."""
  if number:
    for batch in stores.batches(store, number, shard, stage.columns):
      yield batch, ()
  else:
    s = store.shards[shard]
    yield from read.batches(
      s.path,
      s.category,
      s.source,
      limits=stage.limits,
      first_id=shard << 32,
      name=s.name,
    )


def _emit(store, stage, number, shard):
  """Writes the result of emit() for a shard, keys in order."""
  began, rows = time.process_time(), 0

  def counted():
    nonlocal rows
    for batch in stores.batches(store, number, shard, stage.columns):
      rows += batch.num_rows
      yield batch

  result = stage.emit(counted(), stage.steps[0][1])
  facts = {'rows': rows, 'keys': 0, 'bytes': 0}
  folder = store.at(number, 'keys')
  folder.mkdir(parents=True, exist_ok=True)
  if 'keys' in result:
    key_files.write(folder / f'{shard:05d}.arrow', result['keys'])
    facts |= {'keys': result['keys'].num_rows, 'bytes': result['keys'].nbytes}
  if 'side' in result:
    tables.write(store.at(number, 'side', f'{shard:05d}.arrow'), result['side'])
  facts['seconds'] = time.process_time() - began
  files.write_json(folder / f'{shard:05d}.json', facts)
  return rows


def _reduce(store, stage, number, partition):
  """Calls reduce() with one key range of all shards, in their order."""
  index, count = partition
  shards = range(len(store.shards))
  paths = [store.at(number, 'keys', f'{i:05d}.arrow') for i in shards]
  rows = key_files.read(paths, index, count)
  reduced = stage.reduce(rows, stage.steps[0][1])
  tables.write(store.reduced(number, index, count), reduced)
  return rows.num_rows


def _resolve(store, stage, number, count):
  """Calls resolve() with the results of reduce() for `count` partitions."""
  began, config = time.process_time(), stage.steps[0][1]
  reduced = (tables.read(store.reduced(number, i, count)) for i in range(count))
  paths = [store.at(number, 'side', f'{i:05d}.arrow') for i in range(len(store.shards))]
  sides = (tables.read(path) for path in paths if path.exists())
  arrays = stage.resolve(reduced, sides, config)
  stores.write_state(store, number, arrays, {'seconds': time.process_time() - began})
  return 0


class _Stats:
  """Counts of one shard and stage: documents read, left, and dropped by reason."""

  def __init__(self):
    self.rows = self.documents = self.bytes = 0
    self.read = {'documents': 0, 'bytes': 0}
    self.dropped = {}
    self.languages = collections.Counter()
    self.categories = collections.Counter()
    self.hosts = collections.Counter()
    self.problems, self.more = [], 0

  def add(self, before, after, problems, first):
    self.rows += after.num_rows
    sizes, sizes_before = _sizes(after), _sizes(before)
    alive = np.asarray(after['drop_reason'].is_null())
    old = np.asarray(before['drop_reason'].is_null())
    if first:
      self.read['documents'] += len(old)
      self.read['bytes'] += int(sizes_before.sum())
      old = np.ones(len(old), bool)  # documents that the reader dropped count here
    self.documents += int(alive.sum())
    self.bytes += int(sizes[alive].sum())
    gone = np.flatnonzero(old & ~alive)
    reasons = after['drop_reason'].take(pa.array(gone)).to_pylist()
    for reason, size in zip(reasons, sizes_before[gone].tolist()):
      count = self.dropped.setdefault(reason, {'documents': 0, 'bytes': 0})
      count['documents'] += 1
      count['bytes'] += size
    kept = after.filter(pa.array(alive))
    for counter, name in (
      (self.languages, 'lang'),
      (self.categories, 'category'),
      (self.hosts, 'host'),
    ):
      if name in kept.schema.names:
        for entry in pc.value_counts(kept[name]).to_pylist():
          counter[entry['values'] or 'unknown'] += entry['counts']
    room = MAX_PROBLEMS - len(self.problems)
    self.problems += list(problems)[:room]
    self.more += max(len(problems) - room, 0)

  def facts(self):
    hosts = sorted(self.hosts.items(), key=lambda pair: (-pair[1], pair[0]))
    return {
      'rows': self.rows,
      'read': self.read,
      'documents': self.documents,
      'bytes': self.bytes,
      'dropped': dict(sorted(self.dropped.items())),
      'languages': dict(sorted(self.languages.items())),
      'categories': dict(sorted(self.categories.items())),
      'hosts': dict(hosts[:MAX_HOSTS]),
      'problems': self.problems,
      'more_problems': self.more,
    }


def _sized(batch):
  """A batch with `bytes`, the size of its text, for stages that do not read text."""
  sizes, i = _sizes(batch), batch.schema.get_field_index('bytes')
  if i >= 0:
    return batch.set_column(i, 'bytes', pa.array(sizes))
  return batch.append_column('bytes', pa.array(sizes))


def _sizes(batch):
  """np.int64 [documents]: bytes of the text, or of the page before extraction."""
  names = batch.schema.names
  if 'text' not in names:
    return np.asarray(batch['bytes'])
  text = batch['text']
  if 'html' in names:
    text = pc.coalesce(text, batch['html'])
  return np.asarray(pc.fill_null(pc.binary_length(text), 0)).astype(np.int64)
