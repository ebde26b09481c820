"""Dialogs of models with a chat template: messages to ids and back, with masks."""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

from llama3_jax.base.errors import UserError
from llama3_jax.text import template
from llama3_jax.text import tool_calls
from llama3_jax.text.library import Library
from llama3_jax.text.messages import Encoded
from llama3_jax.text.messages import Message


def encode(
  tokenizer: Library,
  messages: Sequence[Message],
  prompt: bool = False,
  tools: Sequence[Mapping] = (),
) -> Encoded:
  """Ids and masks of a dialog as its template writes it.

  Args:
    tokenizer: with a template.
    messages: the dialog; special tokens in their texts stay text.
    prompt: ends with an open answer, for the model to continue.
    tools: JSON schemas of the tools that the model may call, before an open answer.

  Raises:
    UserError: what the template refuses, or sampled ids of another vocabulary.
  """
  if tokenizer.template is None:
    raise UserError(
      'the tokenizer of this model has no chat template: ask it after solved examples '
      '(--config=evaluate:base), or give a model that chats'
    )
  for i, m in enumerate(messages):
    _check(tokenizer, m, f'message {i}', i == len(messages) - 1 and not prompt)
  rows = [_row(tokenizer, m) for m in messages]
  last = messages[-1] if messages else None
  if last is not None and last.ids is not None and not prompt:
    return _sampled(tokenizer, rows[:-1], last)
  if last is not None and last.end is None and not prompt:
    return _open(tokenizer, rows, last)
  if prompt:
    text, spans = template.render(tokenizer.template, rows, tools, True), ()
  else:
    rendered = template.answers(tokenizer.template, rows)
    text, spans = rendered.text, rendered.answers
  ids, starts = tokenizer.spans(text)
  response = np.zeros(len(ids), bool)
  for start, end in spans:
    response |= (starts >= start) & (starts < end)
  return Encoded(ids, response, _format(tokenizer, ids, response))


def decode(tokenizer: Library, ids: Iterable[int]) -> Message:
  """The assistant's message that was sampled after an open answer."""
  ids, end = [int(i) for i in ids], None
  for i, token in enumerate(ids):
    if token in tokenizer.stop_ids:
      ids, end = ids[:i], 'eot'
      break
  text = tokenizer.decode(ids)
  calls = tool_calls.parse(text)
  return Message('assistant', '' if calls else text, end, calls)


def end_of_turn(tokenizer: Library) -> int | None:
  """Id of the special token that the template writes after an answer; None: none."""
  marker = 'answer'
  rows = [_plain('user', 'question'), _plain('assistant', marker)]
  text = template.render(tokenizer.template, rows)
  ids, _ = tokenizer.spans(text[text.rindex(marker) + len(marker) :])
  special = [int(i) for i in ids if int(i) in set(tokenizer.specials.values())]
  return special[0] if special else None


def _check(tokenizer, m, where, last):
  """Raises UserError for a message that a template cannot write as it is."""
  if m.python_tag:
    raise UserError(f'{where}: python_tag is of the chats of Llama 3 alone')
  if m.end is None and not last:
    raise UserError(f'{where}: it was cut off, and only the last message may be')
  if m.ids is None:
    return
  if m.vocabulary != tokenizer.fingerprint:
    raise UserError(
      f'{where}: its ids are of vocabulary {m.vocabulary[:12]!r}, the tokenizer is '
      f'{tokenizer.fingerprint[:12]!r}: name the one that it was sampled with'
    )
  said = decode(tokenizer, m.ids)
  if (said.content, said.end, said.calls) != (m.content, m.end, m.calls):
    raise UserError(
      f'{where}: its ids say something else than its content, calls and end: remove '
      'ids and vocabulary from a message that was edited'
    )


def _sampled(tokenizer, before, last):
  """The prompt as it was, and what was sampled after it."""
  opened = template.render(tokenizer.template, before, prompt=True)
  prompt, _ = tokenizer.spans(opened)
  ids = np.concatenate([prompt, np.array(last.ids, np.int32)])
  response = np.arange(len(ids)) >= len(prompt)
  return Encoded(ids, response, _format(tokenizer, ids, response))


def _open(tokenizer, rows, last):
  """A dialog whose last answer is cut off: nothing follows its text."""
  opened = template.render(tokenizer.template, rows[:-1], prompt=True)
  ids, starts = tokenizer.spans(opened + tokenizer.hide(last.content))
  response = starts >= len(opened)
  return Encoded(ids, response, _format(tokenizer, ids, response))


def _format(tokenizer, ids, response):
  """Special tokens, what the template writes after the end of an answer (a new line),
  and all that no assistant said."""
  form, ended = np.isin(ids, list(tokenizer.specials.values())) | ~response, False
  stops = np.isin(ids, list(tokenizer.stop_ids))
  for i in np.flatnonzero(response):
    ended = bool(i and response[i - 1] and (ended or stops[i - 1]))
    form[i] |= ended
  return form


def _row(tokenizer: Library, m: Message) -> dict[str, object]:
  """A message as templates read it; its texts hold no special token."""
  content = m.content if m.context is None else f'{m.content}\n\n{m.context}'
  row = _plain('tool' if m.role == 'ipython' else m.role, tokenizer.hide(content))
  if m.calls:
    row['tool_calls'] = [
      {
        'type': 'function',
        'function': {'name': c.name, 'arguments': _hidden(tokenizer, c.arguments)},
      }
      for c in m.calls
    ]
  return row


def _plain(role, content):
  return {'role': role, 'content': content}


def _hidden(tokenizer, value):
  """Arguments of a call, with no special token in their texts."""
  if isinstance(value, str):
    return tokenizer.hide(value)
  if isinstance(value, Mapping):
    return {name: _hidden(tokenizer, v) for name, v in value.items()}
  if isinstance(value, (list, tuple)):
    return [_hidden(tokenizer, v) for v in value]
  return value
