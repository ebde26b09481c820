"""Whether calls of functions are those of an answer, by their syntax (5.2).

The rules are those of the Berkeley leaderboard for Python: an answer lists, for every
argument, the values that are right; "" among them says that it may be left out.
"""

import re
from collections.abc import Mapping
from collections.abc import Sequence

from llama3_jax.text.tool_calls import Call

TYPES = {
  'string': str,
  'integer': int,
  'float': float,
  'boolean': bool,
  'array': list,
  'tuple': list,
  'dict': dict,
  'any': str,
}
IGNORED = re.compile(r'[ ,./\-_*^]')  # in texts that are compared


def same(
  functions: Sequence[Mapping],
  calls: Sequence[Call],
  answers: Sequence[Mapping[str, Mapping]],
) -> bool:
  """Whether the calls are those of the answers, in any order.

  functions: definitions, {"name", "parameters": {"properties", "required"}}.
  answers: {name: {argument: [right values]}} for each call.
  """
  left = list(calls)
  if len(left) != len(answers):
    return False
  rules = {one['name']: one['parameters'] for one in functions}
  for answer in answers:
    [(name, values)] = answer.items()
    fits = [c for c in left if c.name == name and arguments(rules[name], c, values)]
    if not fits:
      return False
    left.remove(fits[0])
  return True


def arguments(rule: Mapping, call: Call, answer: Mapping[str, Sequence]) -> bool:
  """Whether the arguments of one call are those of an answer."""
  given, properties = call.arguments, rule.get('properties', {})
  if any(name not in given for name in rule.get('required', ())):
    return False
  if any(name not in given and '' not in right for name, right in answer.items()):
    return False
  return all(
    name in properties
    and name in answer
    and _value(properties[name], value, answer[name])
    for name, value in given.items()
  )


def _value(rule, value, right):
  """Whether a value has its type and is one of those that are right."""
  kind = TYPES[rule['type']]
  if rule['type'] == 'float' and type(value) is int:
    value = float(value)
  inner = TYPES[rule['items']['type']] if kind is list and 'items' in rule else None
  # An answer of another type than the definition's is the name of a variable.
  meant = next((type(one) for one in right if one != ''), kind)
  if type(value) is not kind or (inner and not _items(value, right, inner)):
    return type(value) is meant and value in right
  if meant is not kind:
    return value in right
  if kind is dict:
    return any(_fields(value, one) for one in right if one != '')
  if inner is dict:
    return any(_rows(value, one) for one in right)
  if kind is str:
    return _plain(value) in [_plain(one) for one in right if isinstance(one, str)]
  if kind is list:
    return _list(value) in [_list(one) for one in right if isinstance(one, (list, str))]
  return value in right


def _items(values, right, inner):
  """Whether the items of a list have their type, or that of a right list's items."""
  for one in right:
    if not isinstance(one, list):
      return True
    meant = next((type(item) for item in one if item != ''), inner)
    if all(type(item) in (inner, meant) for item in values):
      return True
  return False


def _rows(values, right):
  """Whether objects are those of a list of objects with right values, in order."""
  if len(values) != len(right) or not all(isinstance(v, Mapping) for v in values):
    return False
  return all(_fields(value, one) for value, one in zip(values, right) if one != '')


def _fields(value, right):
  """Whether an object has the right values, a list of them for each key."""
  missing = any(key not in value and '' not in one for key, one in right.items())
  return not missing and all(
    key in right and _plain(one) in [_plain(other) for other in right[key]]
    for key, one in value.items()
  )


def _list(values):
  return [_plain(one) for one in values]


def _plain(value):
  """A text as it is compared: without case, spaces and some marks."""
  if not isinstance(value, str):
    return value
  return IGNORED.sub('', value).lower().replace("'", '"')
