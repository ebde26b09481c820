"""The chat protocol: messages to ids and back, with masks (4.1.1, 4.3.5).

Llama 3's own is written here; a model of others has a template (templated.py).
"""

import dataclasses
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

from llama3_jax.base.errors import UserError
from llama3_jax.text import messages as rows
from llama3_jax.text import templated
from llama3_jax.text import tool_calls
from llama3_jax.text.library import Library
from llama3_jax.text.tokenizer import Tokenizer

Message, Encoded = rows.Message, rows.Encoded
message, fields = rows.message, rows.fields


def sampled(tokenizer: Tokenizer | Library, ids: Iterable[int]) -> Message:
  """The assistant's message of sampled ids, with their stop token."""
  ids = tuple(int(i) for i in ids)
  decoded = decode(tokenizer, ids)
  return dataclasses.replace(decoded, ids=ids, vocabulary=tokenizer.fingerprint)


def encode(
  tokenizer: Tokenizer | Library,
  messages: Sequence[Message],
  prompt: bool = False,
  call_format: str | None = None,
  tools: Sequence[Mapping] = (),
) -> Encoded:
  """Ids and masks of a dialog: begin_of_text, then header, content, end of each.

  Args:
    messages: the dialog.
    prompt: end with an open assistant header, which the model continues.
    call_format: how custom tool calls are written, one of tool_calls.FORMATS; None:
      as the tokenizer's model does.
    tools: JSON schemas of tools, as a chat template writes them; in the chats of
      Llama 3 they are part of the system message.

  Raises:
    UserError: unknown role, end or call format; a token that the vocabulary's
      variant lacks; several calls in a format for one; sampled ids of another
      vocabulary, or that decode to another message.
  """
  for i, m in enumerate(messages):
    rows.check(m, f'message {i}')
  if isinstance(tokenizer, Library):
    return templated.encode(tokenizer, messages, prompt, tools)
  call_format = call_format or tokenizer.call_format
  if call_format not in tool_calls.FORMATS:
    raise UserError(f'call format {call_format!r} must be one of {tool_calls.FORMATS}')
  parts = [([tokenizer.bos], False, True)]
  for i, m in enumerate(messages):
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


def decode(tokenizer: Tokenizer | Library, ids: Iterable[int]) -> Message:
  """The assistant's message from the ids that followed an open assistant header.

  Reads up to the first stop id; `end` is None when there is none (cut off) or
  when it is end_of_text. Text that is a tool call, whole, becomes `calls`.
  """
  if isinstance(tokenizer, Library):
    return templated.decode(tokenizer, ids)
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
