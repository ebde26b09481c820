"""Files that appear whole or not at all."""

import contextlib
import errno
import json
import os
import pathlib
import shutil
import socket
from collections.abc import Iterator

from llama3_jax.base.errors import UserError

FULL = 1 << 24  # bytes; with less free space a disk counts as full


@contextlib.contextmanager
def renamed(path: str | os.PathLike) -> Iterator[pathlib.Path]:
  """Yields a temporary path; the file is renamed to `path` when the block ends."""
  path = pathlib.Path(path)
  # Jobs of an array may have the same number on two machines.
  mine = f'{socket.gethostname()}.{os.getpid()}'
  partial = path.with_name(f'{path.name}.{mine}.partial')
  try:
    yield partial
    with open(partial, 'rb') as f:
      os.fsync(f.fileno())
    os.replace(partial, path)
  except OSError as error:
    # numpy raises an error without errno when the disk is full.
    if error.errno is None and shutil.disk_usage(path.parent).free < FULL:
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from None
    raise
  finally:
    partial.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> None:
  """Writes a text file in UTF-8; creates its folder."""
  pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
  with renamed(path) as partial:
    partial.write_text(text, encoding='utf-8')


def write_json(path: str | os.PathLike, value: object) -> None:
  """Writes one JSON value. Several processes use processes.write_json instead."""
  write_text(path, json.dumps(value, indent=1) + '\n')


def read_json(path: str | os.PathLike) -> object:
  """The value in a JSON file; UserError when it is missing or cut off."""
  try:
    return json.loads(pathlib.Path(path).read_text(encoding='utf-8'))
  except FileNotFoundError:
    raise UserError(f'{path} is missing: run the step that writes it first')
  except OSError as e:
    raise UserError(f'{path} cannot be read ({e.strerror}): is it a file?')
  except (ValueError, RecursionError) as e:
    raise UserError(f'{path} is not valid JSON ({e}): remove it and run the step again')


def cache_folder() -> pathlib.Path:
  """The folder of LLAMA3_CACHE, or ~/.cache/llama3_jax."""
  default = pathlib.Path.home() / '.cache' / 'llama3_jax'
  return pathlib.Path(os.environ.get('LLAMA3_CACHE') or default)
