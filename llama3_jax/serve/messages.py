"""Dialogs and tools of the OpenAI API: to prompts of a model, and its calls back."""

import dataclasses
import json
import secrets
from collections.abc import Mapping
from collections.abc import Sequence

from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError
from llama3_jax.serve import read
from llama3_jax.serve.faults import Fault
from llama3_jax.serve.faults import wrong
from llama3_jax.text import chat
from llama3_jax.text import tool_calls
from llama3_jax.text.chat import Message
from llama3_jax.text.library import Library
from llama3_jax.text.tokenizer import Tokenizer
from llama3_jax.tools import parser
from llama3_jax.tools import prompt as prompts
from llama3_jax.tools import registry

ROLES = {'system': 'system', 'developer': 'system', 'user': 'user'}
ROLES |= {'assistant': 'assistant', 'tool': 'ipython'}


def prompt(
  tokenizer: Tokenizer | Library, messages: Sequence[Message], tools: Sequence[Mapping]
) -> list[int]:
  """Token ids of a dialog with an open answer; Fault where it cannot be written."""
  if not isinstance(tokenizer, Library):
    messages = _apart(messages)
  told = declared(tools)
  try:
    return prompts.encode(tokenizer, messages, told).ids.tolist()
  except UserError as error:
    raise Fault(400, f"'messages': {error}", 'messages', 'invalid_value') from None


def declared(rows: Sequence[Mapping]) -> list[registry.Tool]:
  """The tools of a body; Fault for a definition that cannot be read."""
  try:
    return [registry.declared(row, f'tools[{i}]') for i, row in enumerate(rows)]
  except UserError as error:
    raise Fault(400, f"'tools': {error}", 'tools', 'invalid_value') from None


def _apart(messages):
  """The dialog with a message a call, each before its result: Llama 3 writes one call
  in a message."""
  found, left = [], list(messages)
  while left:
    m = left.pop(0)
    if len(m.calls) < 2:
      found.append(m)
      continue
    for call in m.calls:
      found.append(dataclasses.replace(m, calls=(call,)))
      if left and left[0].role == 'ipython':
        found.append(left.pop(0))
      m = dataclasses.replace(m, content='')
  return found


def messages(body: Mapping) -> list[Message]:
  """The dialog of a body; Fault for what cannot be read."""
  rows = body.get('messages')
  if rows is None:
    raise Fault(400, "'messages' is missing", 'messages', 'missing_field')
  if not isinstance(rows, list) or not rows:
    raise wrong('messages', 'it must be a list with at least one message')
  return _in_order(
    rows, [_message(row, f'messages[{i}]') for i, row in enumerate(rows)]
  )


def _in_order(rows, found):
  """The messages, with the results of several calls in the order of the calls."""
  result, ids = [], []
  for row, m in zip(rows, found):
    if m.role != 'ipython':
      ids = [call.get('id') for call in row.get('tool_calls') or ()]
      first = len(result) + 1
    key = row.get('tool_call_id')
    result.append((ids.index(key) if key in ids else len(ids), m))
    if m.role == 'ipython':
      result[first:] = sorted(result[first:], key=lambda pair: pair[0])
  return [m for _, m in result]


def _message(row, where):
  if not isinstance(row, Mapping):
    raise wrong(where, f'a message is an object, not a {jsonl.kind(row)}')
  role = row.get('role')
  if not isinstance(role, str) or role not in ROLES:
    raise wrong(f'{where}.role', f'it must be one of {", ".join(ROLES)}')
  calls = row.get('tool_calls')
  if calls is not None and role != 'assistant':
    raise wrong(f'{where}.tool_calls', 'only an assistant has them')
  calls = _calls(calls or [], f'{where}.tool_calls')
  return Message(ROLES[role], _content(row, where, bool(calls)), calls=calls)


def _content(row, where, empty):
  """The text of a message; `empty`: it may have none."""
  value, name = row.get('content'), f'{where}.content'
  if value is None and empty:
    return ''
  if isinstance(value, str):
    return value
  if not isinstance(value, list) or not value:
    raise wrong(name, f'it must be a text, not a {jsonl.kind(value)}')
  for part in value:
    if not isinstance(part, Mapping) or not isinstance(part.get('text'), str):
      raise wrong(name, 'this model reads parts {"type": "text", "text": ...} alone')
  return ''.join(part['text'] for part in value)


def _calls(rows, where):
  due = 'it must be a list of {"function": {"name": text, "arguments": JSON text}}'
  if not isinstance(rows, list):
    raise wrong(where, due)
  found = []
  for row in rows:
    function = row.get('function') if isinstance(row, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get('name'), str):
      raise wrong(where, due)
    try:
      arguments = json.loads(function.get('arguments') or '{}')
    except (ValueError, TypeError, RecursionError):
      arguments = None
    if not isinstance(arguments, dict):
      raise wrong(where, 'arguments must be the text of a JSON object')
    found.append(tool_calls.Call(function['name'], arguments))
  return tuple(found)


def tools(body: Mapping) -> list[Mapping]:
  """The functions that may be called, as a chat template reads them."""
  rows = body.get('tools')
  if rows is None:
    return []
  if not isinstance(rows, list):
    raise wrong('tools', f'it must be a list, not a {jsonl.kind(rows)}')
  for i, row in enumerate(rows):
    function = row.get('function') if isinstance(row, Mapping) else None
    if not isinstance(function, Mapping) or row.get('type') != 'function':
      raise wrong(f'tools[{i}]', 'it must be {"type": "function", "function": {...}}')
    if not isinstance(function.get('name'), str) or not function['name']:
      raise wrong(f'tools[{i}].function.name', 'it must be a text')
    if not isinstance(function.get('parameters') or {}, Mapping):
      raise wrong(f'tools[{i}].function.parameters', 'it must be an object')
  return rows


def choice(body: Mapping, tools: Sequence[Mapping]) -> str:
  """Which tools must be called: none | auto | required | the name of one."""
  value = body.get('tool_choice')
  if value is None:
    return 'auto' if tools else 'none'
  names = [tool['function']['name'] for tool in tools]
  if isinstance(value, Mapping):
    value = read.nested(value, 'function').get('name')
    if value in names:
      return value
  elif value == 'none' or (value in ('auto', 'required') and names):
    return value
  raise wrong('tool_choice', 'it must be none, auto, required or a function of tools')


def schema(body: Mapping, tools: Sequence[Mapping], chosen: str) -> Mapping | None:
  """The JSON schema that the answer must meet; None: there is none."""
  if chosen not in ('none', 'auto'):
    named = [t['function'] for t in tools if chosen in ('required', _name(t))]
    return {'anyOf': [_call_schema(function) for function in named]}
  form = read.nested(body, 'response_format')
  kind = form.get('type', 'text')
  if kind == 'text':
    return None
  if kind == 'json_object':
    return {'type': 'object'}
  if kind != 'json_schema':
    raise wrong('response_format', 'type must be text, json_object or json_schema')
  given = read.nested(form, 'json_schema').get('schema')
  if not isinstance(given, Mapping):
    raise wrong('response_format', 'json_schema.schema must be an object')
  return given


def _name(tool):
  return tool['function']['name']


def _call_schema(function):
  parameters = function.get('parameters') or {'type': 'object'}
  properties = {'name': {'const': function['name']}, 'parameters': parameters}
  rule = dict(required=['name', 'parameters'], additionalProperties=False)
  return {'type': 'object', 'properties': properties, **rule}


def parallel(body: Mapping) -> bool:
  """Whether an answer may have several calls."""
  value = body.get('parallel_tool_calls')
  if value is not None and not isinstance(value, bool):
    raise wrong('parallel_tool_calls', 'it must be true or false')
  return value is not False


def called(
  tokenizer: Tokenizer | Library,
  ids: Sequence[int],
  tools: Sequence[Mapping],
  several: bool = True,
) -> list[dict] | None:
  """The calls of sampled ids, in the form of the API; None where they are text.

  several: more than the first one, where there are more.
  """
  told = declared(tools)
  try:
    made = parser.calls(chat.decode(tokenizer, ids), told)
  except parser.Unreadable:
    return None
  return [
    {
      'id': f'call_{secrets.token_hex(12)}',
      'type': 'function',
      'function': {'name': c.name, 'arguments': json.dumps(parser.plain(c.arguments))},
    }
    for c in (made if several else made[:1])
  ] or None
