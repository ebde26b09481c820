"""Fields of configs: which one a path is, and checks before anything is done."""

import fnmatch
import functools
from collections.abc import Mapping

from llama3_jax.base.errors import UserError
from llama3_jax.base.field import Field
from llama3_jax.base.ranges import FIELDS


@functools.cache  # it is asked for each field of every config that is made
def find(path: str) -> Field | None:
  """The field of a path such as 'optim.peak'."""
  for pattern, field in FIELDS.items():
    if path == pattern or fnmatch.fnmatchcase(path, pattern):
      return field
  return None


def _of_stage(path, flat):
  """The field of a path, which may begin with the name of a stage."""
  stage, _, rest = path.partition('.')
  return find(rest if f'{stage}.experiment' in flat else path)


def free(path: str) -> bool:
  """Whether a field may change between two starts of one run."""
  field = find(path)
  return field is not None and field.free


def check(flat: Mapping[str, object]) -> None:
  """Raises UserError for the first value of a flat config outside its range.

  Args:
    flat: {path: value}; a path may begin with the name of a stage (the herd's).
  """
  for path, value in flat.items():
    field = _of_stage(path, flat)
    fault = field.fault(value) if field else ''
    if fault:
      raise UserError(f'--config.{path}={value}: {fault} ({field.text})')


def describe(flat: Mapping[str, object], flags: Mapping[str, str]) -> list[str]:
  """A line for every field of `flags`, {path: flag}: value, description, range."""
  lines = []
  for path, flag in flags.items():
    value, field = flat[path], _of_stage(path, flat)
    setting = f'  {flag}={value}'
    about = f'{field.text} {field.range}'.strip() if field else ''
    number = isinstance(value, (int, float, tuple)) and not isinstance(value, bool)
    about = about if number or not field else field.text
    about += ', may change on resume' if field and field.free else ''
    lines.append(f'{setting:<44} {about}'.rstrip())
  return lines
