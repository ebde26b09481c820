"""The chat protocol: messages to ids and back, with masks (4.1.1, 4.3.5)."""

import ast
import dataclasses
import json
import re
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np

from llama3_jax.base.errors import UserError
from llama3_jax.tokenizer import Tokenizer

ROLES = ('system', 'user', 'assistant', 'ipython')
ENDS = ('eot', 'eom')
CALL_FORMATS = ('json', 'function_tag', 'python_list')
# Written tool.call(query="..."); every other tool is one that the user defined.
BUILTIN = ('brave_search', 'wolfram_alpha', 'photogen')
CODE = 'code_interpreter'

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
  arguments: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Message:
  """One message of a dialog.

  Attributes:
    role: system, user, assistant, or ipython (the output of a tool).
    content: text; special-looking text in it stays text.
    end: 'eot' ends the turn, 'eom' the message only (a tool's result is awaited),
      None leaves it open (a reply that was cut off).
    calls: tool calls of an assistant, written after the content.
    python_tag: the assistant's message starts with the python_tag token, as code
      and calls do where the system message says `Environment: ipython`.
    context: text retrieved for a user's message.
  """

  role: str
  content: str = ''
  end: str | None = 'eot'
  calls: tuple[Call, ...] = ()
  python_tag: bool = False
  context: str | None = None


@dataclasses.dataclass(frozen=True)
class Encoded:
  """A dialog as ids.

  Attributes:
    ids: int32 [T].
    response: bool [T], what assistants said, with its eot or eom: the SFT targets.
    format: bool [T], begin of text, headers and eot or eom: what DPO leaves out of
      its loss (4.1.4).
  """

  ids: np.ndarray
  response: np.ndarray
  format: np.ndarray


def message(row: Mapping[str, Any], where: str) -> Message:
  """Message from a JSON row {"role", "content", optional "end", "calls", ...}.

  Role `tool` is taken for ipython. `where` (file and line) opens the UserError.
  """
  known = {f.name for f in dataclasses.fields(Message)}
  wrong = [key for key in row if key not in known]
  if wrong or not isinstance(row.get('content', ''), str):
    what = f'field {wrong[0]!r} is unknown' if wrong else 'content is not a string'
    raise UserError(f'{where}: {what}; a message has {sorted(known)}')
  role = 'ipython' if row.get('role') == 'tool' else row.get('role')
  try:
    calls = tuple(Call(c['name'], dict(c['arguments'])) for c in row.get('calls', ()))
  except (TypeError, KeyError, ValueError):
    raise UserError(f'{where}: calls must be a list of {{"name", "arguments"}}')
  result = Message(**{**row, 'role': role, 'calls': calls})
  _check(result, where)
  return result


def encode(
  tokenizer: Tokenizer,
  messages: Sequence[Message],
  prompt: bool = False,
  call_format: str = 'json',
) -> Encoded:
  """Ids and masks of a dialog: begin_of_text, then header, content, end of each.

  Args:
    messages: the dialog.
    prompt: end with an open assistant header, for the model to go on.
    call_format: how custom tool calls are written, one of CALL_FORMATS.

  Raises:
    UserError: unknown role, end or call format; a token that the vocabulary's
      variant lacks; several calls in a format that holds one.
  """
  if call_format not in CALL_FORMATS:
    raise UserError(f'call format {call_format!r} is none of {CALL_FORMATS}')
  parts = [([tokenizer.bos], False, True)]
  for i, m in enumerate(messages):
    _check(m, f'message {i}')
    answer = m.role == 'assistant'
    parts.append((header(tokenizer, m.role), False, True))
    parts.append((_content(tokenizer, m, call_format), answer, False))
    if m.end:
      end = tokenizer.eom if m.end == 'eom' else tokenizer.eot
      parts.append(([end], answer, True))
  if prompt:
    parts.append((header(tokenizer, 'assistant'), False, True))
  ids = [i for part, _, _ in parts for i in part]
  sizes = [len(part) for part, _, _ in parts]
  return Encoded(
    np.array(ids, np.int32),
    np.repeat([response for _, response, _ in parts], sizes),
    np.repeat([format for _, _, format in parts], sizes),
  )


def header(tokenizer: Tokenizer, role: str) -> list[int]:
  """Ids that open a message: source or destination of what follows (4.1.1)."""
  name, blank = tokenizer.encode(role), tokenizer.encode('\n\n')
  return [tokenizer.start_header, *name, tokenizer.end_header, *blank]


def decode(tokenizer: Tokenizer, ids: Sequence[int]) -> Message:
  """The assistant's message from the ids that followed an open assistant header.

  Reads up to the first stop id; `end` is None when there is none (cut off) or
  when it is end_of_text. Text that is a tool call, whole, becomes `calls`.
  """
  ids = [int(i) for i in ids]
  opening = header(tokenizer, 'assistant')
  if ids[: len(opening)] == opening:
    ids = ids[len(opening) :]
  specials = tokenizer.specials
  ends = {specials['<|eot_id|>']: 'eot', specials.get('<|eom_id|>'): 'eom'}
  end = None
  for i, token in enumerate(ids):
    if token in tokenizer.stop_ids:
      ids, end = ids[:i], ends.get(token)
      break
  # By id: a text that spells out the tag does not run as code.
  tagged = bool(ids) and ids[0] == specials.get('<|python_tag|>')
  content = tokenizer.decode(ids[1:] if tagged else ids)
  calls = parse_calls(content)
  if not calls and tagged:
    # What is no call is a program for the interpreter, tagged by definition.
    return Message('assistant', '', end, (Call(CODE, {'code': content}),))
  return Message('assistant', '' if calls else content, end, calls, tagged)


def write_call(call: Call, call_format: str = 'json') -> str:
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


def parse_calls(text: str) -> tuple[Call, ...]:
  """The tool calls that a text is, in any format; () if it is anything else.

  Only a text that is a call from its first to its last character counts: an
  answer that quotes a call is an answer.
  """
  text = text.strip()
  if match := BUILTIN_CALL.fullmatch(text):
    return (Call(match['name'], {'query': match['query']}),)
  if match := TAGGED_CALL.fullmatch(text):
    arguments = _json_object(match['arguments'])
    return () if arguments is None else (Call(match['name'], arguments),)
  if text.startswith('{'):
    value = _json_object(text) or {}
    name, arguments = value.get('name'), value.get('parameters')
    if isinstance(name, str) and isinstance(arguments, dict):
      return (Call(name, arguments),)
  if text.startswith('['):
    return _python_calls(text)
  return ()


def _check(m: Message, where: str) -> None:
  if m.role not in ROLES:
    raise UserError(f'{where}: role {m.role!r} is none of {", ".join(ROLES)}')
  if m.end is not None and m.end not in ENDS:
    raise UserError(f'{where}: end {m.end!r} is none of {", ".join(ENDS)}')
  if m.role != 'assistant' and (m.calls or m.python_tag):
    raise UserError(f'{where}: only an assistant calls tools, not {m.role!r}')


def _content(tokenizer: Tokenizer, m: Message, call_format: str) -> list[int]:
  tagged = m.python_tag or any(call.name == CODE for call in m.calls)
  ids = [tokenizer.python_tag] if tagged else []
  ids += tokenizer.encode(m.content)
  if m.context is not None:
    # Separately, as the released code does: no token reaches over the border.
    ids += tokenizer.encode('\n\n') + tokenizer.encode(m.context)
  if m.calls:
    ids += tokenizer.encode(_write_calls(m.calls, call_format))
  return ids


def _write_calls(calls: Sequence[Call], call_format: str) -> str:
  needed = {CODE: 'code'} | dict.fromkeys(BUILTIN, 'query')
  for call in calls:
    if call.name in needed and needed[call.name] not in call.arguments:
      raise UserError(f'tool call {call.name} lacks its argument {needed[call.name]!r}')
  if len(calls) == 1:
    return write_call(calls[0], call_format)
  if call_format != 'python_list' or any(call.name in needed for call in calls):
    raise UserError(
      f'{len(calls)} tool calls in one message: only custom tools in the format '
      'python_list can be several; write one message a call'
    )
  return f'[{", ".join(write_call(call, call_format)[1:-1] for call in calls)}]'


def _python(value: Any) -> str:
  """A JSON value as Python source, strings in double quotes."""
  if isinstance(value, str):
    return json.dumps(value, ensure_ascii=False)
  if isinstance(value, (list, tuple)):
    return f'[{", ".join(map(_python, value))}]'
  if isinstance(value, Mapping):
    return f'{{{", ".join(f"{_python(k)}: {_python(v)}" for k, v in value.items())}}}'
  return repr(value)


def _json_object(text: str) -> dict[str, Any] | None:
  try:
    value = json.loads(text)
  except (ValueError, RecursionError):
    return None
  return value if isinstance(value, dict) else None


def _python_calls(text: str) -> tuple[Call, ...]:
  """Calls of a Python list `[name(key=literal, ...), ...]`; () if it is none."""
  try:
    tree = ast.parse(text, mode='eval').body
    calls = []
    for node in tree.elts if isinstance(tree, ast.List) else ():
      if not isinstance(node, ast.Call) or node.args:
        return ()
      pairs = {k.arg: ast.literal_eval(k.value) for k in node.keywords}
      if not isinstance(node.func, ast.Name) or None in pairs:
        return ()
      calls.append(Call(node.func.id, pairs))
  except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
    return ()
  return tuple(calls)
