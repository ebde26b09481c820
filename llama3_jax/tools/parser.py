"""Calls in what a model wrote: built-in, JSON, function tag, Python list (4.3.5).

`text/tool_calls.py` reads the forms in which Llama 3 is trained. Here are those that
other models and slips have: several calls at a time, calls in arguments, `arguments`
for `parameters`, a block of code around all of it. They count only where every name is
that of a tool, so that an answer in JSON stays an answer.
"""

import ast
import json
import re
from collections.abc import Mapping
from collections.abc import Sequence

from llama3_jax.text import tool_calls
from llama3_jax.text.messages import Message
from llama3_jax.text.tool_calls import Call
from llama3_jax.tools import registry
from llama3_jax.tools.registry import Tool

TAG = '<|python_tag|>'
WRAPPED = re.compile(r'<tool_call>\s*(.*?)\s*(?:</tool_call>|\Z)', re.S)
FUNCTION = re.compile(r'<function=([^>{}\s]+)>\s*(.*?)\s*(?:</function>|\Z)', re.S)
FENCE = re.compile(r'```[\w-]*[ \t]*\n(.*)\n[ \t]*```', re.S)
BUILTIN = re.compile(rf'(?:{"|".join(tool_calls.BUILTIN)})\.call\(')
NAMED = re.compile(r'[\[\s]*\{\s*"(?:type|name|function)"\s*:')
LISTED = re.compile(r'\[?\s*([A-Za-z_][\w.]*)\s*\(')
ARGUMENTS = ('parameters', 'arguments')
# What is asked of a model whose call cannot be read.
FORM = 'write {"name": NAME, "parameters": {ARGUMENT: VALUE}} alone'


class Unreadable(Exception):
  """Why a text that begins as a call is none, as a clause."""


def calls(message: Message, tools: Sequence[Tool]) -> tuple[Call, ...]:
  """The calls of an assistant's message; () where it is an answer.

  Values of arguments may be calls themselves, which are run first.

  Raises:
    Unreadable: it is neither.
  """
  try:
    if message.calls:
      return tuple(_named(call, tools) for call in message.calls)
    found = read(message.content, tools)
  except RecursionError:
    raise Unreadable('it is nested too deeply') from None
  if not found and message.end == 'eom':
    raise Unreadable(f'the message ended as a call, and is none: {FORM}')
  return found


def read(text: str, tools: Sequence[Tool]) -> tuple[Call, ...]:
  """The calls of a text, as `calls` of a message."""
  text = text.strip().removeprefix(TAG).strip()
  if once := tool_calls.parse(text):
    return tuple(_named(call, tools) for call in once)
  if block := FENCE.fullmatch(text):
    text = block[1].strip()
  if '<tool_call>' in text:
    bodies = [one[1] for one in WRAPPED.finditer(text)]
    return tuple(call for body in bodies for call in _of_json(body, tools, True))
  if text.startswith('<function='):
    return _tagged(text, tools)
  if BUILTIN.match(text):
    parts = [tool_calls.parse(line) for line in _lines(text)]
    if not all(parts):
      raise Unreadable('a built-in tool is called as NAME.call(query="..."), alone')
    return tuple(call for part in parts for call in part)
  if text[:1] in ('{', '['):
    if found := _of_json(text, tools, False):
      return found
  return _python(text, tools)


def _lines(text):
  return [line for line in re.split(r'[;\n]\s*', text) if line.strip()]


def _tagged(text, tools):
  found, end = [], 0
  for match in FUNCTION.finditer(text):
    between = text[end : match.start()].strip(' \n\t;,')
    values = _json(match[2] or '{}')
    if between or not isinstance(values, dict):
      raise Unreadable(
        f'the arguments of {match[1]} are no JSON object: '
        '<function=NAME>{"ARGUMENT": VALUE}</function>'
      )
    found.append(_call(match[1], values, tools))
    end = match.end()
  if not found or text[end:].strip(' \n\t;,'):
    raise Unreadable('write <function=NAME>{"ARGUMENT": VALUE}</function> alone')
  return tuple(found)


def _of_json(text, tools, marked):
  """Calls of JSON: one object, a list of them, or one after the other.

  marked: a tag says that it is a call.
  """
  values, fault = _values(text)
  rows = [_row(value) for value in values]
  known = rows and all(rows)
  if known and (marked or all(registry.find(tools, name) for name, _ in rows)):
    if not fault:
      return tuple(_call(name, given, tools) for name, given in rows)
  if marked or (fault and NAMED.match(text) and _meant(text, tools)):
    raise Unreadable(f'{fault or "it is no call"}: {FORM}')
  return ()


def _meant(text, tools):
  """Whether a text that is no JSON is a call of a tool, with a slip."""
  names = {n for t in tools for n in (t.name, t.builtin) if n}
  return any(f'"{name}"' in text for name in names) or any(
    f'"{key}"' in text for key in ARGUMENTS
  )


def _values(text):
  """(JSON values one after the other, lists opened; why the text is no more)."""
  decoder, found, at = json.JSONDecoder(), [], 0
  while at < len(text):
    if text[at] in ' \t\r\n;,':
      at += 1
      continue
    try:
      value, at = decoder.raw_decode(text, at)
    except (ValueError, RecursionError) as error:
      said = getattr(error, 'msg', 'nested too deeply')
      return found, f'JSON that ends early or has a slip ({said})'
    found += value if isinstance(value, list) else [value]
  return found, ''


def _json(text):
  try:
    return json.loads(text)
  except (ValueError, RecursionError):
    return None


def _row(value):
  """(name, arguments) of an object that has the form of a call; None."""
  if not isinstance(value, dict):
    return None
  if isinstance(value.get('function'), dict):
    value = value['function']
  name = value.get('name', value.get('function'))
  given = next((value[key] for key in ARGUMENTS if key in value), None)
  if isinstance(given, str):  # as the OpenAI API has it
    given = _json(given)
  return (name, given) if isinstance(name, str) and isinstance(given, dict) else None


def _python(text, tools):
  """Calls of Python: name(key=value), several in a list, or one a line."""
  begun = LISTED.match(text)
  if not begun or not registry.find(tools, begun[1]):
    return ()
  try:
    body = ast.parse(text).body
    rows = [n.value for n in body if isinstance(n, ast.Expr)]
    if len(rows) != len(body):
      return ()  # a program, or words
    nodes = [n for r in rows for n in (r.elts if isinstance(r, ast.List) else [r])]
    return tuple(_node(node, tools) for node in nodes)
  except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
    if not text.rstrip().endswith((')', ']')):
      return ()  # words that begin with the name of a tool
    said = error.msg if isinstance(error, SyntaxError) else str(error)
    raise Unreadable(f'it is no call in Python ({said}): {FORM}') from None


def _node(node, tools):
  """The Call of a node of a call; its arguments are literals or calls."""
  name = ast.unparse(node.func) if isinstance(node, ast.Call) else ''
  tool = registry.find(tools, name)
  if tool is None:
    raise ValueError(f'{name or "a value"} is no tool')
  order = list(tool.parameters.get('properties', {}))
  if len(node.args) > len(order):
    raise ValueError(f'{name} takes {len(order)} arguments')
  pairs = list(zip(order, node.args)) + [(k.arg, k.value) for k in node.keywords]
  if None in dict(pairs) or len(dict(pairs)) < len(pairs):
    raise ValueError(f'arguments of {name} are not each given once')
  return Call(name, {key: _literal(value, tools) for key, value in pairs})


def _literal(node, tools):
  if isinstance(node, ast.Call):
    return _node(node, tools)
  if isinstance(node, (ast.List, ast.Tuple)):
    return [_literal(one, tools) for one in node.elts]
  if isinstance(node, ast.Dict):
    pairs = zip(node.keys, node.values)
    return {str(ast.literal_eval(k)): _literal(v, tools) for k, v in pairs}
  if isinstance(node, ast.Name) and node.id in ('true', 'false', 'null'):
    return {'true': True, 'false': False, 'null': None}[node.id]
  value = ast.literal_eval(node)
  if not isinstance(value, (str, int, float, bool, type(None))):
    raise ValueError(f'{ast.unparse(node)} is no value of JSON')
  return value


def _call(name, values, tools):
  return Call(name, {key: _inner(value, tools) for key, value in values.items()})


def _named(call, tools):
  return _call(call.name, call.arguments, tools)


def _inner(value, tools):
  """A value with the calls in it: objects of the name of a tool and its arguments."""
  if isinstance(value, Mapping):
    row = _row(dict(value))
    own = set(value) <= {'type', 'name', 'function', *ARGUMENTS}
    if row and own and registry.find(tools, row[0]):
      return _call(*row, tools)
    return {key: _inner(one, tools) for key, one in value.items()}
  if isinstance(value, list):
    return [_inner(one, tools) for one in value]
  return value


def may_be(text: str, tools: Sequence[Tool] = ()) -> bool:
  """Whether a text that has just begun may be a call, so that it is not shown yet."""
  begun = text.lstrip()
  if not begun or begun[0] in '{[<':
    return True
  names = [f'{name}.call(' for name in tool_calls.BUILTIN]
  names += [f'{tool.name}(' for tool in tools]
  return any(name.startswith(begun) or begun.startswith(name) for name in names)


def plain(value: object) -> object:
  """A value with the calls in it as JSON objects."""
  if isinstance(value, Call):
    return {'name': value.name, 'parameters': plain(value.arguments)}
  if isinstance(value, Mapping):
    return {key: plain(one) for key, one in value.items()}
  return [plain(one) for one in value] if isinstance(value, (list, tuple)) else value
