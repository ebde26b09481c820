"""Rows of others: every common form of a chat or a preference, read as ours (4.1).

A form is told by the fields of a row. What a form becomes is a row of this code:
{"messages": [...]} for finetuning, {"prompt": [...], "responses": [best, worst]} for
preferences, {"text": ...} for plain text.
"""

import collections
import dataclasses
import difflib
import json
import os
import re
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence

from absl import logging

from llama3_jax.base import jsonl
from llama3_jax.base import rows
from llama3_jax.base.errors import UserError

# Who speaks, by the names that ShareGPT's rows and others use.
ROLES = {
  **dict.fromkeys(('human', 'user', 'prompter', 'customer'), 'user'),
  **dict.fromkeys(('gpt', 'assistant', 'bot', 'model', 'chatgpt', 'bing'), 'assistant'),
  **dict.fromkeys(('system', 'developer'), 'system'),
  **dict.fromkeys(
    ('tool', 'ipython', 'function', 'observation', 'function_response'), 'tool'
  ),
}
# Fields that carry no text to train on: any row may have them.
BESIDE = ('source', 'reward', 'id', 'metadata')
LABELS = ('margin', 'strength', 'round')  # of a preference
MODELS = ('edited_model', 'chosen_model', 'rejected_model')
CARRIED = ('source', 'reward')
TASKS = 'verifiable tasks, made here'


@dataclasses.dataclass(frozen=True)
class Form:
  """A form of rows.

  name: as documents call it. needs: fields that a row of it has; may: others that it
  may have. read: (row, where) -> our row.
  """

  name: str
  needs: tuple[str, ...]
  may: tuple[str, ...]
  read: Callable[[Mapping, str], dict]


def read(
  path: str | os.PathLike,
  field: str,
  forms: tuple[Form, ...],
  quiet: bool = False,
  bad: Callable[[UserError], None] | None = None,
) -> Iterator[tuple[str, dict, str]]:
  """Yields (where, our row, name of its form) of every row of a file, and logs how many
  of each form there are.

  path: .jsonl, .parquet or .csv (base/rows.py); field: of the config that named it;
  quiet: without a line in the log. bad: is called for a bad row, which is then left
  out; None: it raises.
  """
  counts = collections.Counter()
  for where, row in rows.read(path, field, bad):
    try:
      name, made = of(row, forms, where)
    except UserError as error:
      if bad is None:
        raise
      bad(error)
      continue
    counts[name] += 1
    yield where, made, name
  shown = ', '.join(f'{n} rows of {name}' for name, n in counts.items())
  if not quiet:
    logging.info('%s: %s', path, shown)


def counted(examples: Sequence) -> list[dict]:
  """[{'from': file, 'form', 'rows'}] of Dialogs or Preferences, for the report; those
  of no file are of the verifiable tasks."""
  files = [re.sub(r', (line|row) \d+(, message \d+)?$', '', e.where) for e in examples]
  named = [(f, e.form) if e.form else (TASKS, '') for f, e in zip(files, examples)]
  counts = collections.Counter(named)
  return [{'from': f, 'form': form, 'rows': n} for (f, form), n in counts.items()]


def of(row: Mapping, forms: tuple[Form, ...], where: str) -> tuple[str, dict]:
  """(name of the form, our row) of somebody's row.

  Raises UserError that names the nearest form where none fits.
  """
  for form in forms:
    if all(row.get(name) is not None for name in form.needs):
      known = (*form.needs, *form.may, *BESIDE)
      jsonl.known(row, known, where)
      made = form.read(row, where)
      kept = (*CARRIED, 'id') if forms is PREFERENCES else CARRIED
      return form.name, made | {k: row[k] for k in kept if k in row}
  raise UserError(f'{where}: {_nearest(row, forms)}')


def _nearest(row, forms):
  """Says what a row that fits no form has, and what the nearest form needs."""
  have = [name for name in row if row[name] is not None]

  def near(form):
    fields = (*form.needs, *form.may)
    alike = [difflib.get_close_matches(name, have, 1, 0.75) for name in fields]
    same = [name in have for name in fields]
    return sum(map(bool, alike)) + sum(same), -len(form.needs)

  other = PREFERENCES if forms is DIALOGS else DIALOGS
  if fits := next((f for f in other if all(n in have for n in f.needs)), None):
    recipe = '--config=sft' if forms is PREFERENCES else '--config=dpo or reward'
    return f'this is a row of {fits.name}, which {recipe} reads'
  best = max(forms, key=near)
  missing = [name for name in best.needs if name not in have]
  names = ', '.join(form.name for form in forms)
  return (
    f'a row with {", ".join(have) or "nothing in it"} is of no known form ({names}); '
    f'nearest is {best.name}, which lacks {", ".join(missing)}: docs/formats.md has a '
    'row of each'
  )


def turns(value: object, where: str, field: str = 'messages') -> list[dict]:
  """Messages of a list in any of the usual forms, as rows of ours."""
  if not isinstance(value, list):
    raise UserError(f'{where}: field {field!r} is a {jsonl.kind(value)}, not a list')
  return [_turn(turn, where, field) for turn in value]


def _turn(turn, where, field):
  if not isinstance(turn, Mapping):
    raise UserError(
      f'{where}: {field} holds a {jsonl.kind(turn)}; each is {{"role", "content"}}'
    )
  if 'from' in turn and 'role' not in turn:  # ShareGPT
    turn = {'role': turn['from'], 'content': turn.get('value')} | {
      k: v for k, v in turn.items() if k not in ('from', 'value')
    }
  role = turn.get('role')
  if not isinstance(role, str) or role not in ROLES:
    near = difflib.get_close_matches(str(role), ROLES, 1)
    hint = f'; is it {near[0]!r}?' if near else f': one of {", ".join(ROLES)}'
    raise UserError(f'{where}: {field}: nobody is called {role!r}{hint}')
  made = {**turn, 'role': ROLES[role]}
  calls = made.pop('tool_calls', None)
  if made.get('weight') not in (None, 1):
    raise UserError(
      f'{where}: {field}: a message has weight {made["weight"]!r}, and every answer '
      'counts alike here: remove it, or train on the last one (data.turns=last)'
    )
  for name in ('name', 'tool_call_id', 'weight', 'refusal', 'function_call'):
    if made.get(name) is None or name in ('name', 'tool_call_id', 'weight'):
      made.pop(name, None)
  if calls:
    made['calls'] = [_call(call, where) for call in calls]
  content = made.get('content')
  if isinstance(content, list):  # parts, of which we know texts
    made['content'] = _parts(content, where, field)
  elif content is None and made.get('calls'):
    made['content'] = ''
  return made


def _parts(parts, where, field):
  texts = []
  for part in parts:
    if not isinstance(part, Mapping) or part.get('type') != 'text':
      kind = part.get('type') if isinstance(part, Mapping) else jsonl.kind(part)
      raise UserError(f'{where}: {field}: a part of kind {kind!r}; only text is read')
    texts.append(part.get('text', ''))
  return ''.join(texts)


def _call(call, where):
  """{'name', 'arguments'} of a call in OpenAI's form or plainly."""
  inside = call.get('function', call) if isinstance(call, Mapping) else None
  if not isinstance(inside, Mapping) or not isinstance(inside.get('name'), str):
    raise UserError(f'{where}: a tool call needs {{"name", "arguments"}}')
  arguments = inside.get('arguments', {})
  if isinstance(arguments, str):
    try:
      arguments = json.loads(arguments or '{}')
    except ValueError:
      raise UserError(
        f'{where}: the arguments of the call of {inside["name"]} are not JSON'
      ) from None
  return {'name': inside['name'], 'arguments': arguments}


def _messages(row, where):
  return {'messages': _with_tools(turns(row['messages'], where), row, where)}


def _conversations(row, where):
  said = turns(row['conversations'], where, 'conversations')
  if row.get('system'):
    said = [{'role': 'system', 'content': row['system']}, *said]
  return {'messages': _with_tools(said, row, where)}


def _completion(row, where):
  answer = _answer(row['completion'], where, 'completion')
  said = [*prompt(row['prompt'], where), *answer]
  return {'messages': _with_tools(said, row, where)}


def _instruction(row, where):
  texts = [jsonl.text(row, n, where, '') for n in ('instruction', 'input')]
  asked = '\n\n'.join(text for text in texts if text)
  said = [{'role': 'system', 'content': row['system']}] if row.get('system') else []
  said += [{'role': 'user', 'content': asked}]
  answer = jsonl.text(row, 'output', where)
  return {'messages': [*said, {'role': 'assistant', 'content': answer}]}


def _text(row, where):
  return {'text': jsonl.text(row, 'text', where)}


def prompt(value: object, where: str) -> list[dict]:
  """Messages of a prompt that is a text or a list of messages, as rows of ours."""
  if isinstance(value, str):
    if not value.strip():
      raise UserError(f'{where}: field prompt is empty')
    return [{'role': 'user', 'content': value}]
  return turns(value, where, 'prompt')


def _answer(value, where, field):
  """Messages of an answer that is a text or a list of messages."""
  if isinstance(value, str):
    return [{'role': 'assistant', 'content': value}]
  if isinstance(value, Mapping):
    value = [value]
  return turns(value, where, field)


def _with_tools(messages, row, where):
  """The dialog with the tools of the row, where it has a column of them."""
  tools = row.get('tools')
  if isinstance(tools, str):
    try:
      tools = json.loads(tools) if tools.strip() else None
    except ValueError:
      raise UserError(f'{where}: field tools is not JSON') from None
  if not tools:
    return messages
  if not isinstance(tools, list):
    raise UserError(f'{where}: field tools is a {jsonl.kind(tools)}, not a list')
  listed = '\n\n'.join(json.dumps(t, indent=2, ensure_ascii=False) for t in tools)
  text = f'You can call these functions:\n\n{listed}'
  if messages and messages[0]['role'] == 'system':
    first = {**messages[0], 'content': f'{text}\n\n{messages[0]["content"]}'}
    return [first, *messages[1:]]
  return [{'role': 'system', 'content': text}, *messages]


def _ranked(row, where):
  made = {k: row[k] for k in ('responses', 'rewards', *LABELS, 'models') if k in row}
  return {'prompt': _with_tools(prompt(row['prompt'], where), row, where), **made}


def _pair(row, where):
  """prompt, chosen, rejected: texts or messages, with the prompt in them or beside."""
  names = ('edited',) if row.get('edited') is not None else ()
  names += ('chosen', 'rejected')
  answers = [_answer(row[name], where, name) for name in names]
  if row.get('prompt') is not None:
    before = prompt(row['prompt'], where)
    answers = [a[len(before) :] if a[: len(before)] == before else a for a in answers]
  else:
    same = 0
    for said in zip(*answers):
      if any(one != said[0] for one in said):
        break
      same += 1
    before, answers = answers[0][:same], [a[same:] for a in answers]
    if not before:
      raise UserError(
        f'{where}: chosen and rejected begin with no message that is the same, and '
        'there is no prompt: give prompt, or both answers as messages with it'
      )
  for name, answer in zip(names, answers):
    if len(answer) != 1 or answer[0]['role'] != 'assistant':
      raise UserError(
        f'{where}: {name} must be one message of the assistant after the prompt; it is '
        f'{len(answer)}'
      )
  before = _with_tools(before, row, where)
  made = {'prompt': before, 'responses': [a[0] for a in answers]}
  models = [row.get(f'{name}_model') for name in names]
  if any(models):
    made['models'] = [name or '' for name in models]
  return made | {k: row[k] for k in LABELS if k in row}


def _dialog(row, where):
  if not isinstance(row['dialog'], list):
    kind = jsonl.kind(row['dialog'])
    raise UserError(f"{where}: field 'dialog' is a {kind}, not a list of messages")
  return {k: row[k] for k in ('dialog', 'round') if k in row}


DIALOGS = (
  Form('messages', ('messages',), ('tools',), _messages),
  Form('ShareGPT', ('conversations',), ('system', 'tools'), _conversations),
  Form('prompt/completion', ('prompt', 'completion'), ('tools',), _completion),
  Form(
    'instruction/output', ('instruction', 'output'), ('input', 'system'), _instruction
  ),
  Form('text', ('text',), (), _text),
)
PREFERENCES = (
  Form(
    'prompt/responses',
    ('prompt', 'responses'),
    (*LABELS, 'models', 'rewards', 'tools'),
    _ranked,
  ),
  Form(
    'prompt/chosen/rejected',
    ('chosen', 'rejected'),
    ('prompt', 'edited', *LABELS, *MODELS, 'tools'),
    _pair,
  ),
  Form('dialog with responses', ('dialog',), ('round',), _dialog),
)
