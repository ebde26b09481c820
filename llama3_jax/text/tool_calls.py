"""Tool calls: written in the formats of Llama 3, and read back (4.3.5)."""

import ast
import dataclasses
import json
import re
from collections.abc import Mapping
from collections.abc import Sequence

from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError

FORMATS = ('json', 'function_tag', 'python_list')
# Written tool.call(query="..."); all other tools are defined by the user.
BUILTIN = ('brave_search', 'wolfram_alpha', 'photogen')
CODE = 'code_interpreter'
# The one argument, a text, of the tools that are not written as JSON.
NEEDED = {CODE: 'code'} | dict.fromkeys(BUILTIN, 'query')

BUILTIN_CALL = re.compile(
  r'(?P<name>\w+)\.call\(query="(?P<query>(?:(?!"\)).)*)"\)', re.S
)
TAGGED_CALL = re.compile(
  r'<function=(?P<name>[^>{}]+)>(?P<arguments>\{.*\})</function>'
)


@dataclasses.dataclass(frozen=True)
class Call:
  """A tool call: the tool's name and its arguments by name."""

  name: str
  arguments: Mapping[str, object]


def write(call: Call, call_format: str = 'json') -> str:
  """Text of a tool call. Code is itself; built-in tools take one query."""
  if call.name == CODE:
    return call.arguments['code']
  if call.name in BUILTIN:
    return f'{call.name}.call(query="{call.arguments["query"]}")'
  if call_format == 'json':
    return json.dumps(
      {'type': 'function', 'name': call.name, 'parameters': dict(call.arguments)}
    )
  if call_format == 'function_tag':
    return f'<function={call.name}>{json.dumps(dict(call.arguments))}</function>'
  arguments = ', '.join(f'{k}={_python(v)}' for k, v in call.arguments.items())
  return f'[{call.name}({arguments})]'


def parse(text: str) -> tuple[Call, ...]:
  """The tool calls of a text, in any format; () if the text is anything else.

  Only a text that is a call from its first to its last character counts: an
  answer that quotes a call is an answer.
  """
  text = text.strip()
  if match := BUILTIN_CALL.fullmatch(text):
    return (Call(match['name'], {'query': match['query']}),)
  if match := TAGGED_CALL.fullmatch(text):
    arguments = _plain(_json_object(match['arguments']))
    return () if arguments is None else (Call(match['name'], arguments),)
  if text.startswith('{'):
    value = _json_object(text) or {}
    name, arguments = value.get('name'), value.get('parameters')
    arguments = _plain(arguments) if isinstance(arguments, dict) else None
    if isinstance(name, str) and name and arguments is not None:
      return (Call(name, arguments),)
  if text.startswith('['):
    return _python_calls(text)
  return ()


def write_all(calls: Sequence[Call], call_format: str = 'json') -> str:
  """Text of a message's calls; UserError where `parse` would read something else."""
  if len(calls) == 1:
    text = write(calls[0], call_format)
  elif call_format == 'python_list' and not any(c.name in NEEDED for c in calls):
    text = f'[{", ".join(write(call, call_format)[1:-1] for call in calls)}]'
  else:
    raise UserError(
      f'{len(calls)} tool calls in one message: only custom tools in the format '
      'python_list can be several; write one message a call'
    )
  plain = tuple(Call(c.name, _plain(c.arguments)) for c in calls)
  # A text that is not a call is a program, which has no form of its own.
  read_back = parse(text) or (Call(CODE, {'code': text}),)
  if read_back != plain:
    raise UserError(
      f'tool call {calls[0].name} written as {text[:80]!r} would be read as another '
      'call: leave out arguments that its format has no place for, and change the text '
      'that ends it early'
    )
  return text


def read(rows: object, where: str) -> tuple[Call, ...]:
  """Calls from the JSON list of a row; a UserError begins with `where`."""
  shape = 'calls must be a list of {"name": text, "arguments": object}'
  if not isinstance(rows, list):
    raise UserError(f'{where}: {shape}, not a {jsonl.kind(rows)}')
  for row in rows:
    if not isinstance(row, Mapping) or set(row) != {'name', 'arguments'}:
      raise UserError(f'{where}: {shape}')
    if not isinstance(row['arguments'], Mapping):
      raise UserError(f'{where}: {shape}')
  return tuple(Call(row['name'], dict(row['arguments'])) for row in rows)


def check(call: Call, where: str, sampled: bool) -> None:
  """Raises UserError for a call that cannot be written.

  sampled: the ids of the model are written instead, so arguments may be missing.
  """
  if not isinstance(call.name, str) or not call.name:
    raise UserError(f'{where}: calls must have a name, a text, not {call.name!r}')
  if _plain(call.arguments) is None:
    raise UserError(
      f'{where}: the arguments of tool call {call.name} cannot be written as JSON: use '
      'texts, finite numbers, lists and objects'
    )
  needed = None if sampled else NEEDED.get(call.name)
  if needed and not isinstance(call.arguments.get(needed), str):
    lacks = needed not in call.arguments
    what = 'lacks its argument' if lacks else 'has no text as its argument'
    raise UserError(f'{where}: tool call {call.name} {what} {needed!r}')


def _python(value: object) -> str:
  """A JSON value as Python source, strings in double quotes."""
  if isinstance(value, str):
    return json.dumps(value, ensure_ascii=False)
  if isinstance(value, (list, tuple)):
    return f'[{", ".join(map(_python, value))}]'
  if isinstance(value, Mapping):
    return f'{{{", ".join(f"{_python(k)}: {_python(v)}" for k, v in value.items())}}}'
  return repr(value)


def _json_object(text: str) -> dict[str, object] | None:
  try:
    value = json.loads(text)
  except (ValueError, RecursionError):
    return None
  return value if isinstance(value, dict) else None


def _plain(value: object) -> object:
  """The value after a round trip through JSON; None where JSON cannot express it: sets,
  bytes, numbers that are not finite, lone surrogates. So a call read can be written."""
  try:
    text = json.dumps(value, allow_nan=False, ensure_ascii=False)
    text.encode()
    return json.loads(text)
  except (TypeError, ValueError, RecursionError):
    return None


def _python_calls(text: str) -> tuple[Call, ...]:
  """Calls of a Python list `[name(key=literal, ...), ...]`; () for another text."""
  try:
    tree = ast.parse(text, mode='eval').body
    calls = []
    for node in tree.elts if isinstance(tree, ast.List) else ():
      if not isinstance(node, ast.Call) or node.args:
        return ()
      pairs = {k.arg: ast.literal_eval(k.value) for k in node.keywords}
      if not isinstance(node.func, ast.Name) or None in pairs:
        return ()
      pairs = _plain(pairs)
      if pairs is None:
        return ()
      calls.append(Call(node.func.id, pairs))
  except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
    return ()
  return tuple(calls)
