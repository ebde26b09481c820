"""Overrides of a config: text of the command line to values of the fields' types."""

import ast
import fractions
import re
from collections.abc import Mapping

import ml_collections

from llama3_jax import config as configs
from llama3_jax.base.errors import UserError

EVERY = 10**9  # examples: all there are
KINDS = {
  bool: 'true or false',
  int: 'a whole number',
  float: 'a number',
}


def apply(config: ml_collections.ConfigDict, overrides: Mapping[str, object]) -> None:
  """Sets {'optim.peak': '1e-3'} in place, with the type of the present value.

  'files' is whatever a config calls rows of your own: data.files, with no generated
  examples beside them, or the questions of tasks. 'own_text' is its field `text`, of an
  evaluation with no questions beside it.
  """
  if isinstance(overrides.get('tools'), str):
    overrides = {**overrides, 'tools': _names(overrides['tools'])}
  for path, text in _with_files(config, overrides).items():
    *parents, name = path.split('.')
    section = _section(config, parents)
    known = section is not None and name in section
    if known and f'{path}.' in configs.OPEN and str(text).startswith('{'):
      _replace(section, path, text)
      continue
    if not known or _is_section(section[name]):
      near = configs.nearest(path, sorted(configs.flatten(config)))
      hint = f'did you mean {" or ".join(near)}?' if near else 'see --help'
      raise UserError(f'--config.{path}: no such field; {hint}')
    section[name] = _parse(path, text, section[name])


def _with_files(config, overrides):
  """The overrides with the fields that `files` and `own_text` stand for here."""
  if 'own_text' in overrides:
    alone = {'tasks': ()} if 'tasks' in config else {}
    given = {('text' if k == 'own_text' else k): v for k, v in overrides.items()}
    if isinstance(config.get('text'), tuple):
      given['text'] = _paths(given['text'])
    overrides = alone | given
  if 'files' in overrides:
    overrides = {**overrides, 'files': _paths(overrides['files'])}
  if 'files' not in overrides or 'files' in config:
    return overrides
  given = {path: text for path, text in overrides.items() if path != 'files'}
  paths = overrides['files']
  if 'files' in config.get('data', {}):
    alone = {'tasks': 0, 'heldout_tasks': 0, 'heldout': 0.05}
    alone = {f'data.{name}': v for name, v in alone.items() if name in config.data}
    return alone | {'data.files': paths} | given
  if 'tasks' in config:
    tasks = tuple(f'rows={path}' for path in paths)
    return {'examples': EVERY} | given | {'tasks': tasks}
  raise UserError('--files: this config reads no rows of yours; see --help')


def _paths(text):
  """The paths in a text: a tuple or list of them, else the text itself is one, which
  may be a number or begin with a bracket."""
  if not isinstance(text, str):  # of a sweep
    return text
  try:
    value = ast.literal_eval(text)
  except (ValueError, SyntaxError, RecursionError, MemoryError):
    value = text
  several = isinstance(value, (tuple, list)) and all(isinstance(v, str) for v in value)
  return tuple(value) if several else (value if isinstance(value, str) else text,)


def _names(text):
  """The names in a text with commas between them; a text of Python as it is."""
  try:
    ast.literal_eval(text)
  except (ValueError, SyntaxError, RecursionError, MemoryError):
    written = not text.strip() or text.lstrip()[0] in '(['
    return text if written else tuple(name.strip() for name in text.split(','))
  return text


def _is_section(value):
  return isinstance(value, ml_collections.ConfigDict)


def _section(config, names):
  """The section at a path, None if there is none."""
  for name in names:
    if not _is_section(config) or name not in config:
      return None
    config = config[name]
  return config if _is_section(config) else None


def _replace(section, path, text):
  """Sets a section whose keys are the user's, such as data.mix, as a whole."""
  try:
    value = {str(k): float(v) for k, v in ast.literal_eval(text).items()}
  except (ValueError, SyntaxError, TypeError, AttributeError, RecursionError):
    raise UserError(f'--config.{path}={text}: write {{"source": weight, ...}}')
  if dotted := [k for k in value if '.' in k]:
    raise UserError(f'--config.{path}: {dotted[0]!r} has a dot: rename that folder')
  name = path.split('.')[-1]
  del section[name]
  section[name] = ml_collections.ConfigDict(value)


def _parse(path, text, present):
  if not isinstance(text, str):
    return text
  try:
    if isinstance(present, bool):
      return {'true': True, '1': True, 'false': False, '0': False}[text.lower()]
    if isinstance(present, int):
      return _whole(text)
    if isinstance(present, float):
      return float(text)
    if isinstance(present, (tuple, list)):
      return _list(text, present)
  except (KeyError, ValueError, SyntaxError, RecursionError, MemoryError):
    kind = KINDS.get(type(present), 'a list such as (1, 2)')
    raise UserError(f'--config.{path}={text}: not {kind} (it is {present!r} now)')
  return text


def _list(text, present):
  """The tuple of a text; a bare word is a tuple of one where words are expected."""
  words = all(isinstance(v, str) for v in present)
  try:
    value = ast.literal_eval(text)
  except (ValueError, SyntaxError):
    if not words or text.lstrip()[:1] in ('(', '['):
      raise
    value = text
  value = tuple(value) if isinstance(value, (tuple, list)) else (value,)
  if present and {type(v) for v in value} - {type(v) for v in present} - {int}:
    raise ValueError(text)
  if present and words and not all(isinstance(v, str) for v in value):
    raise ValueError(text)
  return value


def _whole(text):
  """The int of '3', '0x10', '1_000' or '1e6'; ValueError for others."""
  try:
    return int(text, 0)
  except ValueError:
    if not re.fullmatch(r'[+-]?\d{1,30}(\.\d{0,30})?([eE][+-]?\d{1,2})?', text):
      raise
    value = fractions.Fraction(text)  # exact, as a float is not
    if value.denominator != 1:
      raise ValueError(text)
    return int(value)
