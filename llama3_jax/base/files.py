"""Files that appear whole or not at all."""

import contextlib
import errno
import json
import os
import pathlib
import shutil

from llama3_jax.base.errors import UserError

FULL = 1 << 24  # a disk with fewer bytes left


@contextlib.contextmanager
def renamed(path):
  """The name to write under; the file has its own name once the block has ended."""
  path = pathlib.Path(path)
  partial = path.with_name(f'{path.name}.{os.getpid()}.partial')
  try:
    yield partial
    with open(partial, 'rb') as f:
      os.fsync(f.fileno())
    os.replace(partial, path)
  except OSError as error:
    # numpy does not say why it wrote less than it should.
    if error.errno is None and shutil.disk_usage(path.parent).free < FULL:
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from None
    raise
  finally:
    partial.unlink(missing_ok=True)


def write_text(path, text):
  """Writes a text file in UTF-8; its folder is made."""
  pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
  with renamed(path) as partial:
    partial.write_text(text, encoding='utf-8')


def write_json(path, value):
  """Writes one JSON value; of several processes one calls it (see processes.py)."""
  write_text(path, json.dumps(value, indent=1) + '\n')


def read_json(path):
  """The value in a JSON file; UserError when it is missing or cut off."""
  try:
    return json.loads(pathlib.Path(path).read_text(encoding='utf-8'))
  except FileNotFoundError:
    raise UserError(f'{path} is missing: run the step that writes it first')
  except OSError as e:
    raise UserError(f'{path} cannot be read ({e.strerror}): is it a file?')
  except (ValueError, RecursionError) as e:
    raise UserError(f'{path} is not valid JSON ({e}): remove it and run the step again')


def cache_folder():
  """LLAMA3_CACHE, or ~/.cache/llama3_jax."""
  default = pathlib.Path.home() / '.cache' / 'llama3_jax'
  return pathlib.Path(os.environ.get('LLAMA3_CACHE') or default)
