"""The JSON schema of a Python function: its annotations and its docstring (4.3.5)."""

import inspect
import re
import types
import typing
from collections.abc import Callable
from collections.abc import Mapping

from llama3_jax.base.errors import UserError

PLAIN = {
  str: 'string',
  int: 'integer',
  float: 'number',
  bool: 'boolean',
  list: 'array',
  tuple: 'array',
  dict: 'object',
  type(None): 'null',
}
ENTRY = re.compile(r'^(\s+)\*{0,2}(\w+)(?:\s*\([^)]*\))?:\s*(.*)$')
SHAPES = (list, tuple, dict)


def description(function: Callable) -> str:
  """The first paragraph of its docstring, in one line; '' without one."""
  said = inspect.getdoc(function) or ''
  return ' '.join(said.split('\n\n')[0].split())


def parameters(function: Callable, name: str) -> dict[str, object]:
  """The schema of its arguments: types by annotation, those without a default
  required, what the section `Args:` of the docstring says of each.

  Raises:
    UserError: an annotation that JSON has no type for, or *args or **kwargs.
  """
  told, properties, required = _told(inspect.getdoc(function) or ''), {}, []
  try:
    hints = typing.get_type_hints(function)
  except (NameError, TypeError) as error:
    raise UserError(f'tool {name}: its annotations cannot be read: {error}') from None
  for key, parameter in inspect.signature(function).parameters.items():
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
      raise UserError(f'tool {name}: *{key} has no schema: name its arguments')
    one = of(hints.get(key, typing.Any), f'tool {name}: argument {key}')
    if text := told.get(key):
      one['description'] = text
    if parameter.default is parameter.empty:
      required.append(key)
    elif isinstance(parameter.default, (str, int, float)):
      one['default'] = parameter.default
    properties[key] = one
  return {'type': 'object', 'properties': properties, 'required': required}


def of(hint: object, where: str) -> dict[str, object]:
  """The schema of an annotation; a UserError begins with `where`."""
  if hint in (typing.Any, object):
    return {}
  if hint in PLAIN:
    return {'type': PLAIN[hint]}
  origin, inner = typing.get_origin(hint), typing.get_args(hint)
  if origin is typing.Literal:
    return {'enum': list(inner)}
  if origin in (typing.Union, types.UnionType):
    return {'anyOf': [of(one, where) for one in inner]}
  kind = next((s for s in SHAPES if origin is not None and _is(origin, s)), None)
  if kind is None:
    raise UserError(
      f'{where}: {hint!r} has no JSON type: use str, int, float, bool, list, dict, '
      'Literal or a union of them'
    )
  inner = [one for one in inner if one is not ...]
  if kind is dict:
    return {'type': 'object', 'additionalProperties': of(inner[1], where)}
  items = of(inner[0], where) if len(set(inner)) == 1 else {}
  return {'type': 'array'} | ({'items': items} if items else {})


def _is(origin, kind):
  names = {list: ('Sequence', 'Iterable', 'Collection'), dict: ('Mapping',), tuple: ()}
  return origin is kind or getattr(origin, '__name__', '') in names[kind]


def _told(said: str) -> Mapping[str, str]:
  """Argument -> what the docstring says of it, in one line."""
  _, mark, rest = said.partition('\nArgs:\n')
  found, key, depth = {}, None, None
  for line in rest.split('\n') if mark else ():
    match = ENTRY.match(line)
    if line.strip() and not line[0].isspace():
      break  # another section
    if match and depth in (None, len(match[1])):
      depth, key = len(match[1]), match[2]
      found[key] = match[3].strip()
    elif key and line.strip():
      found[key] = f'{found[key]} {line.strip()}'.strip()
  return found
