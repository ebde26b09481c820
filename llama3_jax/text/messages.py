"""Messages of dialogs, and rows of JSON that hold them (4.1.1)."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError
from llama3_jax.text import tool_calls

ROLES = ('system', 'user', 'assistant', 'ipython')
ENDS = ('eot', 'eom')


@dataclasses.dataclass(frozen=True)
class Message:
  """One message of a dialog.

  Attributes:
    role: system, user, assistant, or ipython (the output of a tool).
    content: text; special tokens spelt out in it stay text.
    end: 'eot' ends the turn, 'eom' only the message (a tool's result follows), None
      leaves it open (a reply that was cut off).
    calls: tool calls of an assistant, written after the content.
    python_tag: whether the assistant's message starts with the python_tag token, as
      code and calls do where the system message says `Environment: ipython`.
    context: text retrieved for a user's message.
    ids: tokens that a model sampled after the open header, with its stop token. They
      are encoded unchanged, and checked against the other fields.
    vocabulary: fingerprint of the tokenizer that `ids` belong to.
  """

  role: str
  content: str = ''
  end: str | None = 'eot'
  calls: tuple[tool_calls.Call, ...] = ()
  python_tag: bool = False
  context: str | None = None
  ids: tuple[int, ...] | None = None
  vocabulary: str = ''


@dataclasses.dataclass(frozen=True)
class Encoded:
  """A dialog as ids.

  Attributes:
    ids: int32 [T].
    response: bool [T], tokens of assistants with their eot or eom: the SFT targets.
    format: bool [T], begin of text, headers and eot or eom, which DPO leaves out of
      its loss (4.1.4).
  """

  ids: np.ndarray
  response: np.ndarray
  format: np.ndarray


def message(row: object, where: str, role: str | None = None) -> Message:
  """Message from a JSON row {"role", "content", optional "end", "calls", ...}.

  Role `tool` becomes ipython; `role` is that of a row without one. A UserError begins
  with `where` (file and line).
  """
  if not isinstance(row, Mapping):
    raise UserError(
      f'{where}: a message is a {jsonl.kind(row)}, not an object {{"role", "content"}}'
    )
  known = {f.name for f in dataclasses.fields(Message)}
  if wrong := [key for key in row if key not in known]:
    raise UserError(
      f'{where}: field {wrong[0]!r} is unknown; a message has {sorted(known)}'
    )
  if 'content' not in row and not row.get('calls') and row.get('ids') is None:
    raise UserError(f"{where}: field 'content' is missing")
  values = {**row, 'role': row.get('role', role)}
  if values['role'] == 'tool':
    values['role'] = 'ipython'
  values['calls'] = tool_calls.read(row.get('calls', []), where)
  if values.get('ids') is not None:
    values['ids'] = _ids(values['ids'], where)
  result = Message(**values)
  check(result, where)
  return result


def fields(m: Message) -> dict[str, object]:
  """The JSON row that `message` reads back as `m`: role, content, and all other fields
  that differ from their default."""
  row = {'role': m.role, 'content': m.content}
  for field in dataclasses.fields(m)[2:]:
    value = getattr(m, field.name)
    if value != field.default:
      row[field.name] = value
  if m.calls:
    row['calls'] = [{'name': c.name, 'arguments': dict(c.arguments)} for c in m.calls]
  if m.ids is not None:
    row['ids'] = list(m.ids)
  return row


def _ids(values: object, where: str) -> tuple[int, ...]:
  whole = isinstance(values, (list, tuple)) and all(type(i) is int for i in values)
  if not whole or any(i < 0 for i in values):
    raise UserError(f'{where}: ids must be a list of token ids, whole numbers from 0')
  return tuple(values)


def check(m: Message, where: str) -> None:
  """Raises UserError (it begins with `where`) unless the fields fit together."""
  if m.role not in ROLES:
    raise UserError(f'{where}: role {m.role!r} must be one of {", ".join(ROLES)}')
  if m.end is not None and m.end not in ENDS:
    raise UserError(f'{where}: end {m.end!r} must be one of {", ".join(ENDS)}, null')
  for name in ('content', 'context', 'vocabulary'):
    value = getattr(m, name)
    if not isinstance(value, str) and not (name == 'context' and value is None):
      raise UserError(f'{where}: {name} is not a string but a {jsonl.kind(value)}')
  if not isinstance(m.python_tag, bool):
    raise UserError(f'{where}: python_tag is {m.python_tag!r}: write true or false')
  own = {'calls': m.calls, 'python_tag': m.python_tag, 'ids': m.ids is not None}
  for name in [name for name in own if own[name] and m.role != 'assistant']:
    raise UserError(f'{where}: only an assistant has {name}, not {m.role!r}')
  if m.role != 'assistant' and m.end != 'eot':
    raise UserError(f'{where}: the end of a message of {m.role!r} is eot')
  if m.role != 'user' and m.context is not None:
    raise UserError(f'{where}: only a user has context, not {m.role!r}')
  if m.vocabulary and m.ids is None:
    raise UserError(f'{where}: vocabulary is that of ids, which are missing')
  if m.content and any(call.name == tool_calls.CODE for call in m.calls):
    raise UserError(f'{where}: content beside code would be run with it: leave one out')
  for call in m.calls:
    tool_calls.check(call, where, m.ids is not None)
