"""Reads the files beside a stage's parameters and checks their digests (3.3.4)."""

import os
import pathlib

from absl import logging

from llama3_jax.base import files
from llama3_jax.base.errors import UserError
from llama3_jax.train import digest

MADE_AGAIN = 'make the stage again'


def digests(folder: pathlib.Path) -> dict | None:
  """Content of digests.json in a folder of parameters; None if it has no digests."""
  path = folder / 'digests.json'
  if not path.exists():
    if (folder / 'identity.json').exists():
      raise damaged(folder, path.name, MADE_AGAIN)
    logging.info('%s has no digests: it is used unchecked', folder)
    return None
  recorded = parse(path)
  if not all(isinstance(recorded.get(part), dict) for part in ('files', 'arrays')):
    raise damaged(folder, path.name, MADE_AGAIN)
  return recorded


def check(path: pathlib.Path) -> None:
  """Raises UserError when a file beside the parameters was changed after the save."""
  recorded = digests(path.parent)
  if recorded is None:
    return
  try:
    actual = digest.content(path.read_bytes())
  except OSError as e:
    raise UserError(f'{path} cannot be read ({e}): {MADE_AGAIN}')
  if recorded['files'].get(path.name) != actual:
    raise damaged(path.parent, path.name, MADE_AGAIN)


def read(path: pathlib.Path) -> dict:
  """The JSON object in a file beside the parameters, compared with its digest."""
  check(path)
  return parse(path)


def parse(path: pathlib.Path) -> dict:
  """The JSON object in a file; UserError when it is damaged or no object."""
  try:
    value = files.read_json(path)
  except (UserError, OSError, RecursionError):
    raise damaged(path.parent, path.name, MADE_AGAIN)
  if not isinstance(value, dict):
    raise UserError(f'{path} holds no JSON object: {MADE_AGAIN}')
  return value


def damaged(folder: os.PathLike, name: str, remedy: str) -> UserError:
  """UserError that says which part of `folder` is damaged, and the way out."""
  return UserError(f'{folder}: {name} is not what was written there: {remedy}')
