"""Fingerprints of a run's inputs: a path may change, the content may not."""

import glob
import itertools
import json
import os
import pathlib
from collections.abc import Mapping

import xxhash

# Config fields that name an input. The path is free to change; its content is not.
INPUTS = (
  *(
    'init_from',
    'reward_from',
    'members',
    'tokenizer',
    'base',
    'documents',
    'inputs',
    'text',
    'files',
  ),
  *('data', 'data.root', 'data.tokenizer', 'data.files', 'data.heldout_files'),
  'shards.root',
  *('needle.tokenizer', 'needle.documents', 'scaling.tokenizer'),
  *('source', 'params_json'),
  *('candidates', 'second_from', 'policies', 'pool', 'evaluations', 'against'),
)
# Imported weights may fill a disk: only samples of each of their files are hashed.
SAMPLED = ('source',)
# Experiments that check their inputs themselves (curate) or have no one model (chat).
EXEMPT = ('curate', 'herd', 'rounds', 'plan', 'chat', 'inspect')
# The files after a task's = are inputs, 'rows=a.jsonl,b.jsonl'. Folders of benchmarks
# are not: what an evaluation keeps of an answer says which question was asked.
TASKS = 'tasks'
BENCHMARKS = ('evaluate', 'robustness')  # whose `data` is such a folder
CHUNK = 1 << 22
PARTS = 64  # samples of a file
PART = 1 << 16  # bytes of a sample


def inputs(flat: Mapping[str, object]) -> dict[str, str]:
  """{field: fingerprint} of every input that a flat config names and that exists.

  A folder of shards has one entry a source, so that a new source changes no other.
  """
  made_from = {}
  if flat.get('experiment') in EXEMPT:
    return made_from
  for field in (*INPUTS, TASKS):
    value = flat.get(field)
    paths = [value] if isinstance(value, str) else value
    if not paths or not all(isinstance(p, str) and p for p in paths):
      continue
    if field == 'data' and flat.get('experiment') in BENCHMARKS:
      continue
    if field == TASKS:
      sources = [source for p in paths for source in p.partition('=')[2].split(',')]
      paths = sorted({path for path in sources if path and os.path.isfile(path)})
    if field in ('data.root', 'shards.root'):
      for index in sorted(pathlib.Path(value).glob('**/index.json')):
        name = index.parent.relative_to(value).as_posix()
        made_from[f'{field}/{name}'] = of(index)
      continue
    named = itertools.chain.from_iterable(map(_named, paths))
    fingerprints = [of(path, field in SAMPLED) for path in named]
    if fingerprints and all(fingerprints):
      made_from[field] = (
        fingerprints[0] if len(fingerprints) == 1 else ' '.join(fingerprints)
      )
  return made_from


def _named(name):
  """The paths that a name stands for: itself, or what a pattern matches."""
  path = os.path.expanduser(name)
  if os.path.exists(path) or not glob.has_magic(path):
    return [path]
  return sorted(glob.glob(path, recursive=True))


def inside(flat: Mapping[str, object], workdir: str | os.PathLike) -> str:
  """The folder of your own text in which a workdir lies, '' for none: the run would
  read what it writes."""
  names = flat.get('text') or ()
  place = pathlib.Path(workdir).resolve()
  for name in [names] if isinstance(names, str) else names:
    folder = pathlib.Path(name).expanduser().resolve()
    if folder.is_dir() and place.is_relative_to(folder):
      return name
  return ''


def same(field: str, before: Mapping[str, str], now: Mapping[str, str]) -> bool:
  """Whether two {field: fingerprint} show that an input is unchanged.

  False where `before` lacks the input. Every source of shards in `before` must be in
  `now` with the same fingerprint.
  """
  keys = [k for k in before if k.partition('/')[0] == field]
  return bool(keys) and all(now.get(k) == before[k] for k in keys)


def of(path: str | os.PathLike, sampled: bool = False) -> str:
  """Fingerprint of a file, a stage's final parameters or a folder of files.

  '' when the path does not exist. A stage is identified by the digest of its arrays,
  other folders by every byte; with `sampled` by the size of every file and 64 samples.
  """
  path = pathlib.Path(path)
  if path.is_file():
    return _digest([path], sampled)
  if not path.is_dir():
    return ''
  for folder in (path, path / 'final'):
    if (folder / 'model.json').exists():
      return _stage(folder)
  return _digest(sorted(p for p in path.rglob('*') if p.is_file()), sampled)


def _stage(folder):
  """The digest that a stage wrote; of older stages, a hash of file names and sizes."""
  try:
    digest = json.loads((folder / 'identity.json').read_text('utf-8'))['digest']
    if isinstance(digest, str) and digest:
      model = xxhash.xxh3_64_hexdigest((folder / 'model.json').read_bytes())
      return f'{digest}-{model}'
  except (OSError, ValueError, KeyError, TypeError, RecursionError):
    pass
  hasher = xxhash.xxh3_128((folder / 'model.json').read_bytes())
  for p in sorted((folder / 'params').rglob('*')):
    if p.is_file():
      hasher.update(f'{p.relative_to(folder)} {p.stat().st_size}\n'.encode())
  return hasher.hexdigest()


def _digest(paths, sampled=False):
  hasher = xxhash.xxh3_128()
  for path in paths:
    size = path.stat().st_size
    if len(paths) > 1 or sampled:
      hasher.update(f'{path.name} {size}\n'.encode('utf-8', 'surrogateescape'))
    if len(paths) > 1 and not os.access(path, os.R_OK):
      continue  # whoever reads the folder says that it is left out
    with open(path, 'rb') as file:
      if sampled and size > PARTS * PART:
        for i in range(PARTS):
          file.seek(i * (size - PART) // (PARTS - 1))
          hasher.update(file.read(PART))
        continue
      while chunk := file.read(CHUNK):
        hasher.update(chunk)
  return hasher.hexdigest()
