"""The chat protocol: messages to ids and back, with masks (4.1.1, 4.3.5)."""

import dataclasses
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

from llama3_jax import tool_calls
from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError
from llama3_jax.tokenizer import Tokenizer

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
  _check(result, where)
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


def sampled(tokenizer: Tokenizer, ids: Iterable[int]) -> Message:
  """The assistant's message of sampled ids, with their stop token."""
  ids = tuple(int(i) for i in ids)
  decoded = decode(tokenizer, ids)
  return dataclasses.replace(decoded, ids=ids, vocabulary=tokenizer.fingerprint)


def encode(
  tokenizer: Tokenizer,
  messages: Sequence[Message],
  prompt: bool = False,
  call_format: str | None = None,
) -> Encoded:
  """Ids and masks of a dialog: begin_of_text, then header, content, end of each.

  Args:
    messages: the dialog.
    prompt: end with an open assistant header, which the model continues.
    call_format: how custom tool calls are written, one of tool_calls.FORMATS; None:
      as the tokenizer's model does.

  Raises:
    UserError: unknown role, end or call format; a token that the vocabulary's
      variant lacks; several calls in a format for one; sampled ids of another
      vocabulary, or that decode to another message.
  """
  call_format = call_format or tokenizer.call_format
  if call_format not in tool_calls.FORMATS:
    raise UserError(f'call format {call_format!r} must be one of {tool_calls.FORMATS}')
  parts = [([tokenizer.bos], False, True)]
  for i, m in enumerate(messages):
    _check(m, f'message {i}')
    answer = m.role == 'assistant'
    parts.append((header(tokenizer, m.role), False, True))
    if m.ids is not None:
      parts += _sampled_parts(tokenizer, m, f'message {i}')
      continue
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


def decode(tokenizer: Tokenizer, ids: Iterable[int]) -> Message:
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
  # By id: a text that spells out the tag is not run as code.
  tagged = bool(ids) and ids[0] == specials.get('<|python_tag|>')
  content = tokenizer.decode(ids[1:] if tagged else ids)
  calls = tool_calls.parse(content)
  if not calls and tagged:
    # Tagged text that is not a call is a program for the interpreter.
    code = tool_calls.Call(tool_calls.CODE, {'code': content})
    return Message('assistant', '', end, (code,))
  return Message('assistant', '' if calls else content, end, calls, tagged)


def _ids(values: object, where: str) -> tuple[int, ...]:
  whole = isinstance(values, (list, tuple)) and all(type(i) is int for i in values)
  if not whole or any(i < 0 for i in values):
    raise UserError(f'{where}: ids must be a list of token ids, whole numbers from 0')
  return tuple(values)


def _check(m: Message, where: str) -> None:
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


def _sampled_parts(tokenizer: Tokenizer, m: Message, where: str):
  """Parts of the sampled ids, unchanged; the stop token, if any, is format."""
  if m.vocabulary != tokenizer.fingerprint:
    raise UserError(
      f'{where}: its ids are of vocabulary {m.vocabulary[:12]!r}, the tokenizer is '
      f'{tokenizer.fingerprint[:12]!r}: name the one that it was sampled with, or '
      'remove ids and vocabulary from the message'
    )
  decoded, ids = decode(tokenizer, m.ids), list(m.ids)
  same = ('content', 'end', 'calls', 'python_tag')
  early = any(i in tokenizer.stop_ids for i in ids[:-1])
  if early or any(getattr(decoded, name) != getattr(m, name) for name in same):
    raise UserError(
      f'{where}: its ids say something else than its content, calls and end: remove '
      'ids and vocabulary from a message that was edited'
    )
  n = len(ids) - int(bool(ids) and ids[-1] in tokenizer.stop_ids)
  return [(ids[:n], True, False), (ids[n:], True, True)]


def _content(tokenizer: Tokenizer, m: Message, call_format: str) -> list[int]:
  tagged = m.python_tag or any(call.name == tool_calls.CODE for call in m.calls)
  ids = [tokenizer.python_tag] if tagged else []
  ids += tokenizer.encode(m.content)
  if m.context is not None:
    # Encoded separately, as the released code does: no token spans the boundary.
    ids += tokenizer.encode('\n\n') + tokenizer.encode(m.context)
  if m.calls:
    ids += tokenizer.encode(tool_calls.write_all(m.calls, call_format))
  return ids
