"""Fingerprints of what a run is made from: a path may move, content may not."""

import json
import pathlib

import xxhash

# Config fields that name an input. The path is free to change; its content is not.
INPUTS = (
  *('init_from', 'reward_from', 'members', 'tokenizer', 'base', 'documents', 'inputs'),
  *('data.root', 'data.tokenizer', 'data.files', 'data.heldout_files'),
  *('needle.tokenizer', 'needle.documents'),
)
# These compare by themselves (curate), or belong to no one model (chat).
EXEMPT = ('curate', 'herd', 'plan', 'chat', 'inspect')
CHUNK = 1 << 22


def inputs(flat):
  """{field: fingerprint} of every input that a flat config names and that is there; of
  a folder of shards one a source, so that a new source changes no other."""
  made_from = {}
  if flat.get('experiment') in EXEMPT:
    return made_from
  for field in INPUTS:
    value = flat.get(field)
    paths = [value] if isinstance(value, str) else value
    if not paths or not all(isinstance(p, str) and p for p in paths):
      continue
    if field == 'data.root':
      for index in sorted(pathlib.Path(value).glob('**/index.json')):
        name = index.parent.relative_to(value).as_posix()
        made_from[f'{field}/{name}'] = of(index)
      continue
    marks = [of(path) for path in paths]
    if all(marks):
      made_from[field] = marks[0] if len(marks) == 1 else ' '.join(marks)
  return made_from


def of(path):
  """Fingerprint of a file, a stage's final parameters or a folder of files; '' when
  nothing is there.

  A stage is known by the digest of its arrays, other folders by every byte.
  """
  path = pathlib.Path(path)
  if path.is_file():
    return _digest([path])
  if not path.is_dir():
    return ''
  for folder in (path, path / 'final'):
    if (folder / 'model.json').exists():
      return _stage(folder)
  return _digest(sorted(p for p in path.rglob('*') if p.is_file()))


def _stage(folder):
  """The digest that a stage wrote; of older ones, names and sizes of their files."""
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


def _digest(paths):
  hasher = xxhash.xxh3_128()
  for path in paths:
    if len(paths) > 1:
      hasher.update(f'{path.name} {path.stat().st_size}\n'.encode())
    with open(path, 'rb') as file:
      while chunk := file.read(CHUNK):
        hasher.update(chunk)
  return hasher.hexdigest()
