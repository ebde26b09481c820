"""Curation: crawled pages to clean documents, with a count for every rule (3.1.1).

run() executes the stages in the paper's order. A stage that looks at the whole corpus
first emits narrow keys for every shard, reduces one range of keys at a time, and
resolves the results into a state; then its step is mapped over the shards.
"""

import collections
import os
import pathlib
import re
from collections.abc import Mapping
from collections.abc import Sequence

import fsspec
from absl import logging

from llama3_jax.base import files
from llama3_jax.base.errors import UserError
from llama3_jax.curate.machine import documents
from llama3_jax.curate.machine import engine as engines
from llama3_jax.curate.machine import output
from llama3_jax.curate.machine import stages
from llama3_jax.curate.machine import store as stores
from llama3_jax.curate.machine import tasks
from llama3_jax.curate.reading import read
from llama3_jax.curate.reporting import funnel


def open_store(
  inputs: Sequence[Mapping[str, str | None]],
  config: stages.Config,
  folder: str | os.PathLike,
) -> stores.Store:
  """The Store of a run in `folder`/work.

  Args:
    inputs: list of dicts with path (a file, a pattern or an fsspec URL) and,
      optionally, category and source.
    config: stages.Config.
  """
  shards = _shards(inputs)
  selected = stages.stages(config)
  digests = stores.fingerprints(selected, [s.identity for s in shards])
  names = tuple((s.name, f) for s, f in zip(selected, digests))
  return stores.Store(str(pathlib.Path(folder, 'work')), tuple(shards), names)


def run(store: stores.Store, config: stages.Config) -> dict[str, object]:
  """Curates the files of a store; the same call again resumes where it stopped.

  Writes documents/<category>.jsonl.gz and dropped.jsonl.gz beside work/.

  Returns:
    Content of funnel.json: see funnel.total.
  """
  output.check(pathlib.Path(store.folder).parent)
  selected = stages.stages(config)
  with engines.start(config.engine, config.workers) as each:
    for number, stage in enumerate(selected):
      _stage(store, config, number, stage, each)
      if not number:
        _begin(store, config)
    output.write(store, config, len(selected), each)
  return funnel.total(store)


def _stage(store, config, number, stage, each):
  """Runs all tasks of one stage that are not done."""
  every = range(len(store.shards))
  sizes = [s.bytes for s in store.shards]
  if stage.emit:
    todo = [i for i in every if not store.emit_done(number, i)]
    _do(store, config, each, 'emit', number, todo, sizes, store.emit_done)
  count = 0
  if stage.reduce and not store.state_done(number):
    count = tasks.partitions(store, number, config.memory_bytes)
    ranges = {p: (p, count) for p in range(count)}
    todo = [p for p in ranges if not store.reduce_done(number, p, count)]
    done = lambda n, p: store.reduce_done(n, p, count)
    _do(store, config, each, 'reduce', number, todo, [1] * count, done, ranges)
  if stage.resolve and not store.state_done(number):
    if config.host == 0:
      job = (store, config, 'resolve', number, count)
      list(each(tasks.work, [job]))
    _wait(config, stage.name, lambda: [] if store.state_done(number) else ['resolve'])
  todo = [i for i in every if not store.map_done(number, i)]
  _do(store, config, each, 'map', number, todo, sizes, store.map_done)
  last = [store.map_done(number, i) for i in every]
  left = sum(facts['documents'] for facts in last)
  logging.info('curate %s: %d documents left', stage.name, left)


def _do(store, config, each, kind, number, todo, weights, done, arguments=None):
  """Runs this host's part of some tasks; returns when all hosts are done.

  Args:
    todo: numbers of the tasks.
    weights: of every task, for the progress bar.
    done: done(stage, number).
    arguments: dict number -> argument of the task instead of its number.
  """
  name = f'{store.stages[number][0]} {kind}'
  jobs = [
    (store, config, kind, number, arguments[i] if arguments else i)
    for i in todo
    if i % config.hosts == config.host
  ]
  index = lambda job: job[4][0] if arguments else job[4]
  weight = lambda job: weights[index(job)]
  if jobs:
    pairs = each(tasks.work, jobs)
    for _ in engines.watch(name, pairs, sum(map(weight, jobs)), weight):
      pass
  _wait(config, name, lambda: [f'{kind} {i}' for i in todo if not done(number, i)])


def _wait(config, name, left):
  if config.hosts > 1:
    engines.wait(name, left)


def _begin(store, config):
  """Checks the documents once all inputs are read; writes where the shards start."""
  facts = [store.map_done(0, i) for i in range(len(store.shards))]
  problems = [line for f in facts for line in f['problems']]
  for line in problems[:20]:
    logging.warning('%s', line)
  if not sum(f['rows'] for f in facts):
    raise UserError('inputs: no document could be read from them')
  unknown = {c for f in facts for c in f['categories']} - set(documents.CATEGORIES)
  if unknown:
    raise UserError(
      f'inputs: category {sorted(unknown)[0]!r}; it is one of '
      f'{", ".join(documents.CATEGORIES)}'
    )
  path, starts = store.at(0, 'starts.json'), stores.starts(store).tolist()
  same = lambda: path.exists() and files.read_json(path) == starts
  if config.host == 0 and not same():
    files.write_json(path, starts)
  _wait(config, 'extract', lambda: [] if same() else ['starts.json'])


def _shards(inputs):
  """One Shard for each input file; UserError for a pattern that matches none."""
  matches = []
  for entry in inputs:
    category = entry.get('category') or 'general'
    if category not in documents.CATEGORIES:
      raise UserError(
        f'inputs: category {category!r} of {entry["path"]}; it is one of '
        f'{", ".join(documents.CATEGORIES)}'
      )
    for path, name, facts in _files(entry['path']):
      matches.append((path, name, category, entry.get('source'), facts))
  names = _apart([(path, name) for path, name, *_ in matches])
  result = []
  for name, (path, _, category, source, facts) in zip(names, matches):
    changed = facts.get('mtime') or facts.get('ETag') or facts.get('created') or ''
    identity = f'{path} {facts["size"]} {changed} {category} {source} {name}'
    result.append(
      stores.Shard(path, name, category, source, facts['size'] or 0, identity)
    )
  return result


def _apart(pairs):
  """Names of (path, name) pairs, with as many parent folders as make them unique."""
  names = [name for _, name in pairs]
  while True:
    paths = collections.defaultdict(set)
    for (path, _), name in zip(pairs, names):
      paths[name].add(path)
    longer = [
      _longer(path, name) if len(paths[name]) > 1 else name
      for (path, _), name in zip(pairs, names)
    ]
    if longer == names:
      return names
    names = longer


def _longer(path, name):
  """A name with its parent folder before it."""
  folder = path.removesuffix(name).rstrip('/').rpartition('/')[2]
  return f'{folder}/{name}' if folder else name


def _files(pattern):
  """(path, name, facts) of the files of a path, a folder, a pattern or an fsspec URL.

  The name is the path below the deepest folder without a wildcard. Of a folder, all
  readable files at any depth are taken; the number of the others is logged.
  """
  try:
    system, path = fsspec.core.url_to_fs(pattern)
    infos = system.glob(path, detail=True) if any(c in path for c in '*?[') else {}
    if system.isfile(path):
      infos = {path: system.info(path)}
    elif system.isdir(path):
      infos = _below(system.find(path, detail=True), pattern)
      path = path.rstrip('/') + '/'
  except (ImportError, OSError, ValueError) as error:
    raise UserError(f'inputs: {pattern}: cannot be read: {error}') from None
  infos = {p: f for p, f in infos.items() if f['type'] == 'file'}
  if not infos:
    known = f'; categories are {", ".join(documents.CATEGORIES)}'
    hint = known if '=' in pattern else ''
    raise UserError(f'{pattern}: no such input file; correct config.inputs{hint}')
  local = '://' not in pattern
  above = re.split(r'[*?[]', path)[0].rpartition('/')[0] + '/'
  return [
    (p if local else system.unstrip_protocol(p), p.removeprefix(above), infos[p])
    for p in sorted(infos)
  ]


def _below(infos, folder):
  """The readable files of a folder; UserError when there is none."""
  taken = {p: f for p, f in infos.items() if read.readable(p)}
  if not taken:
    raise UserError(
      f'inputs: {folder} is a folder of {len(infos)} files, none of them '
      f'{", ".join(read.KINDS)} (also .gz, .zst): write FOLDER/*.jsonl'
    )
  if len(taken) < len(infos):
    left = sorted(set(infos) - set(taken))
    logging.warning('%s: %d files not read, such as %s', folder, len(left), left[0])
  return taken
