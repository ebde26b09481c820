"""What lies beside a stage's parameters, compared with its digests (3.3.4)."""

from absl import logging

from llama3_jax.base import files
from llama3_jax.base.errors import UserError
from llama3_jax.train import digest

MADE_AGAIN = 'make the stage again'


def digests(folder):
  """digests.json of a folder of parameters; None if it was made without."""
  path = folder / 'digests.json'
  if not path.exists():
    if (folder / 'identity.json').exists():
      raise damaged(folder, path.name, MADE_AGAIN)
    logging.info('%s has no digests: it is used unchecked', folder)
    return None
  found = parse(path)
  if not all(isinstance(found.get(part), dict) for part in ('files', 'arrays')):
    raise damaged(folder, path.name, MADE_AGAIN)
  return found


def check(path):
  """UserError when a file beside the parameters is not the one that was written."""
  wanted = digests(path.parent)
  if wanted is None:
    return
  try:
    found = digest.content(path.read_bytes())
  except OSError as e:
    raise UserError(f'{path} cannot be read ({e}): {MADE_AGAIN}')
  if wanted['files'].get(path.name) != found:
    raise damaged(path.parent, path.name, MADE_AGAIN)


def read(path):
  """The JSON object in a file beside the parameters, compared with its digest."""
  check(path)
  return parse(path)


def parse(path):
  try:
    found = files.read_json(path)
  except (UserError, OSError, RecursionError):
    raise damaged(path.parent, path.name, MADE_AGAIN)
  if not isinstance(found, dict):
    raise UserError(f'{path} holds no JSON object: {MADE_AGAIN}')
  return found


def damaged(folder, name, remedy):
  return UserError(f'{folder}: {name} is not what was written there: {remedy}')
