"""Dialogs and tools of the OpenAI API: to prompts of a model, and its calls back."""

import json
import re
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

ROLES = {'system': 'system', 'developer': 'system', 'user': 'user'}
ROLES |= {'assistant': 'assistant', 'tool': 'ipython'}
# What Llama 3.1 was given with tools of the user (its model card).
TOOLS = """Environment: ipython

You have access to the following functions. To call a function, please respond with \
JSON for a function call. Respond in the format {"name": function name, "parameters": \
dictionary of argument name and its value}. Do not use variables.

"""
# How a text begins that may be a call: nothing of it is shown before its end.
CALL = re.compile(r'\s*(?:[{\[<]|<\|python_tag\|>)')
BUILTIN = tuple(f'{name}.call(' for name in tool_calls.BUILTIN)


def prompt(
  tokenizer: Tokenizer | Library, messages: Sequence[Message], tools: Sequence[Mapping]
) -> list[int]:
  """Token ids of a dialog with an open answer; Fault where it cannot be written."""
  known = isinstance(tokenizer, Library) and tokenizer.template is not None
  if known and re.search(r'\btools\b', tokenizer.template.text):
    given = dict(tools=tools)
  else:
    given, messages = {}, _told(messages, tools)
  try:
    return chat.encode(tokenizer, messages, prompt=True, **given).ids.tolist()
  except UserError as error:
    raise Fault(400, f"'messages': {error}", 'messages', 'invalid_value') from None


def _told(messages, tools):
  """The dialog whose system message names the tools."""
  if not tools:
    return messages
  said = ''.join(f'{json.dumps(tool, indent=4)}\n\n' for tool in tools)
  system = messages[0].content if messages[0].role == 'system' else ''
  rest = messages[1:] if messages[0].role == 'system' else messages
  return [Message('system', f'{TOOLS}{said}{system}'.rstrip()), *rest]


def messages(body: Mapping) -> list[Message]:
  """The dialog of a body; Fault for what cannot be read."""
  rows = body.get('messages')
  if rows is None:
    raise Fault(400, "'messages' is missing", 'messages', 'missing_field')
  if not isinstance(rows, list) or not rows:
    raise wrong('messages', 'it must be a list with at least one message')
  return [_message(row, f'messages[{i}]') for i, row in enumerate(rows)]


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


def may_be_call(text: str) -> bool:
  """Whether a text that has just begun may be a call of a tool."""
  begun = text.lstrip()
  if CALL.match(text) or not begun:
    return True
  return any(b.startswith(begun) or begun.startswith(b) for b in BUILTIN)


def called(tokenizer: Tokenizer | Library, ids: Sequence[int]) -> list[dict] | None:
  """The calls of sampled ids, in the form of the API; None where they are text."""
  made = chat.decode(tokenizer, ids).calls
  return [
    {
      'id': f'call_{secrets.token_hex(12)}',
      'type': 'function',
      'function': {'name': c.name, 'arguments': json.dumps(dict(c.arguments))},
    }
    for c in made
  ] or None
