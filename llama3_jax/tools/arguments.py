"""Whether the arguments of a call fit the schema of its tool."""

from collections.abc import Mapping

from llama3_jax.base import jsonl

# Of JSON, and names that definitions by others use for them.
TYPES = {
  'string': (str,),
  'integer': (int,),
  'number': (int, float),
  'float': (int, float),
  'boolean': (bool,),
  'array': (list, tuple),
  'tuple': (list, tuple),
  'object': (Mapping,),
  'dict': (Mapping,),
  'null': (type(None),),
}
DEEPEST = 32


def fault(schema: Mapping, arguments: Mapping) -> str:
  """Why arguments do not fit, in words that tell how they would; '' where they do."""
  return _object(schema, arguments, '', 0)


def _object(schema, values, where, depth):
  properties = schema.get('properties')
  properties = properties if isinstance(properties, Mapping) else {}
  required = schema.get('required')
  for name in required if isinstance(required, (list, tuple)) else ():
    if name not in values:
      return f'argument {where}{name} is missing'
  more = schema.get('additionalProperties', not properties)
  for name, value in values.items():
    if name in properties:
      rule = properties[name]
    elif more is False or (not where and not more):
      known = ', '.join(properties) or 'none'
      return f'argument {where}{name} is unknown; there are: {known}'
    else:
      rule = more if isinstance(more, Mapping) else {}
    if found := _value(rule, value, f'{where}{name}', depth + 1):
      return found
  return ''


def _value(rule, value, where, depth):
  if not isinstance(rule, Mapping) or depth > DEEPEST:
    return ''
  choices = rule.get('anyOf') or rule.get('oneOf')
  if isinstance(choices, (list, tuple)) and choices:
    faults = [_value(one, value, where, depth + 1) for one in choices]
    return '' if '' in faults else faults[0]
  if isinstance(rule.get('enum'), (list, tuple)) and value not in rule['enum']:
    allowed = ', '.join(map(repr, rule['enum']))
    return f'argument {where} is {value!r}: it must be one of {allowed}'
  kind = rule.get('type')
  kinds = kind if isinstance(kind, (list, tuple)) else [kind]
  known = [k for k in kinds if isinstance(k, str) and k in TYPES]
  if known and not any(_is(value, k) for k in known):
    return f'argument {where} is a {jsonl.kind(value)}: it must be {" or ".join(known)}'
  if isinstance(value, Mapping):
    return _object(rule, value, f'{where}.', depth + 1)
  if isinstance(value, (list, tuple)):
    for i, one in enumerate(value):
      if found := _value(rule.get('items'), one, f'{where}[{i}]', depth + 1):
        return found
  return ''


def _is(value, kind):
  if isinstance(value, bool):  # a number to Python, not to JSON
    return kind == 'boolean'
  if kind == 'integer' and isinstance(value, float):
    return value.is_integer()
  return isinstance(value, TYPES[kind])
