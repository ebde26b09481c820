"""Installed packages that programs may import: shown read-only, and started before."""

import ctypes
import importlib
import importlib.machinery
import importlib.util
import os
from collections.abc import Mapping
from collections.abc import Sequence

from llama3_jax.base.errors import UserError

SHOWN = '/packages'  # where they are, under a root of its own
COMPILED = tuple(importlib.machinery.EXTENSION_SUFFIXES)


def find(names: Sequence[str]) -> dict[str, str]:
  """Name -> folder of packages that this Python can import, or the file of one that is
  a file of compiled code; those that they import are to be named too.

  Raises:
    UserError: one is not installed, or neither of these.
  """
  found = {}
  for name in names:
    if not isinstance(name, str) or not name.isidentifier():
      raise UserError(f'sandbox: packages: {name!r} is not the name of a package')
    try:
      spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
      spec = None
    if spec is None:
      raise UserError(f'sandbox: packages: {name} is not installed: install it')
    file = spec.origin or ''
    if file.endswith('__init__.py'):
      file = os.path.dirname(file)
    elif not file.endswith(COMPILED):
      raise UserError(
        f'sandbox: packages: {name} is not a folder with an __init__.py, and no file '
        'of compiled code'
      )
    found[name] = os.path.realpath(file)
  return found


def words(folders: Mapping[str, str]) -> list[str]:
  """Them as words of a command."""
  return [f'{name}={folder}' for name, folder in folders.items()]


def read(given: Sequence[str]) -> dict[str, str]:
  """The inverse of `words`."""
  return dict(word.split('=', 1) for word in given)


def load(folders: Mapping[str, str]) -> None:
  """Loads the libraries of those that are a file of compiled code, which are not shown;
  an OSError names the one that is missing."""
  for path in folders.values():
    if path.endswith(COMPILED):
      ctypes.CDLL(path)


def inside(folders: Mapping[str, str]) -> dict[str, str]:
  """Name -> folder or file under a root of its own."""
  last = lambda name, path: os.path.basename(path) if path.endswith(COMPILED) else name
  return {name: f'{SHOWN}/{last(name, path)}' for name, path in folders.items()}


class Finder:
  """Finds these packages and no other; their neighbours stay unseen."""

  def __init__(self, folders: Mapping[str, str]) -> None:
    self._folders = dict(folders)

  def find_spec(
    self, name: str, path: object = None, target: object = None
  ) -> importlib.machinery.ModuleSpec | None:
    """As importlib asks it."""
    folder = self._folders.get(name)
    if folder is None:
      return None
    if folder.endswith(COMPILED):
      return importlib.util.spec_from_file_location(name, folder)
    file = os.path.join(folder, '__init__.py')
    return importlib.util.spec_from_file_location(
      name, file, submodule_search_locations=[folder]
    )
