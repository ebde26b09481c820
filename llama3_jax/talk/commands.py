"""Slash commands of a dialog: each takes a dialog and gives the next one and a note."""

import dataclasses
import json
import math
import pathlib
import re
from collections.abc import Callable

from llama3_jax import config as configs
from llama3_jax.base import fields
from llama3_jax.base import files
from llama3_jax.base import rows
from llama3_jax.base.errors import UserError
from llama3_jax.post import formats
from llama3_jax.post import sft
from llama3_jax.talk import calling
from llama3_jax.talk import dialog as dialogs
from llama3_jax.talk.dialog import Dialog
from llama3_jax.text import chat
from llama3_jax.text.library import Library
from llama3_jax.text.tokenizer import Tokenizer
from llama3_jax.tools import registry


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What a command leads to.

  Attributes:
    dialog: the next one.
    note: text for the user.
    ask: a question to ask now; '': none.
    done: whether the talk ends.
  """

  dialog: Dialog
  note: str = ''
  ask: str = ''
  done: bool = False


@dataclasses.dataclass(frozen=True)
class Command:
  """One command: its argument and purpose, for /help, and what it does."""

  argument: str
  text: str
  run: Callable[[Tokenizer | Library, Dialog, str], Outcome]


def split(line: str) -> tuple[str, str]:
  """(command, argument) of a line, ('', text) of one that is a message.

  A message that begins with a slash is written with two.
  """
  if line.startswith('//'):
    return '', line[1:]
  if not line.startswith('/'):
    return '', line
  word = re.match(r'/\S*', line).group()
  return word, line[len(word) :].strip()


def run(tokenizer: Tokenizer | Library, dialog: Dialog, line: str) -> Outcome:
  """The outcome of a typed line, a command or a question.

  Raises:
    UserError: no such command, or a value that cannot be; the dialog is as before.
  """
  word, argument = split(line)
  if not word:
    return Outcome(dialog, ask=argument)
  if word not in COMMANDS:
    near = configs.nearest(word, tuple(COMMANDS))
    hint = f'did you mean {near[0]}?' if near else '/help has all commands'
    raise UserError(f'{word}: no such command; {hint} (/{word} sends it as text)')
  command = COMMANDS[word]
  if argument and not command.argument:
    raise UserError(f'{word} takes nothing after it, and there is {argument!r}')
  return command.run(tokenizer, dialog, argument)


def _help(tokenizer, dialog, argument):
  lines = []
  for word, command in COMMANDS.items():
    lines.append(f'  {word + " " + command.argument:<14} {command.text}')
  return Outcome(dialog, '\n'.join([*lines, *KEYS]))


def _reset(tokenizer, dialog, argument):
  fresh = dataclasses.replace(dialog, messages=())
  return Outcome(fresh, f'new dialog: {_turns(dialog)} forgotten')


def _system(tokenizer, dialog, argument):
  if not argument:
    default = dialogs.default_system(tokenizer)
    shown = dialog.system or (default and f'{default} (of the chat template)')
    return Outcome(dialog, f'system: {shown or "none"}')
  text = '' if argument in ('""', "''") else argument
  changed = dialogs.check(tokenizer, dataclasses.replace(dialog, system=text))
  kept = f'; {_turns(dialog)} kept, /reset forgets' if dialog.messages else ''
  return Outcome(changed, f'system {"set" if text else "removed"}{kept}')


def _setting(name, kind=float):
  """A command that sets one field of the sampling, or shows all."""

  def run(tokenizer, dialog, argument):
    if argument:
      dialog = _set(tokenizer, dialog, name, kind, argument)
    s = dialog.settings
    shown = f'temperature={s.temperature:g} top_p={s.top_p:g} top_k={s.top_k}'
    return Outcome(dialog, f'{shown} max_new={s.max_new}')

  return run


def _set(tokenizer, dialog, name, kind, argument):
  where = f'sample.{name}'
  try:
    value = kind(argument)
  except ValueError:
    due = 'a whole number' if kind is int else 'a number'
    raise UserError(f'{where}={argument}: it must be {due}') from None
  field = fields.find(where)
  if fault := field.fault(value) or ('' if math.isfinite(value) else 'not finite'):
    raise UserError(f'{where}={argument}: {fault} ({field.text})')
  settings = dataclasses.replace(dialog.settings, **{name: value})
  return dialogs.check(tokenizer, dataclasses.replace(dialog, settings=settings))


def _undo(tokenizer, dialog, argument):
  before, question = dialogs.undone(dialog)
  return Outcome(before, f'forgotten: {_short(question)}')


def _retry(tokenizer, dialog, argument):
  before, question = dialogs.undone(dialog)
  greedy = dialog.settings.temperature == 0
  same = '; at temperature 0 the answer is the same' if greedy else ''
  return Outcome(before, f'asked again: {_short(question)}{same}', ask=question)


def _save(tokenizer, dialog, argument):
  path = _path(argument, '/save')
  if not dialog.messages:
    raise UserError(f'/save {argument}: nothing was said yet')
  before = ''
  if path.exists():
    saved(path, '/save')  # only rows of dialogs are added to
    before = path.read_text('utf-8')
    before += '' if before.endswith('\n') else '\n'
  written = before + json.dumps(row(dialog), ensure_ascii=False) + '\n'
  _write(path, written)
  n = written.count('\n')
  return Outcome(dialog, f'{_turns(dialog)} saved: {path}, row {n}')


def _write(path, text):
  try:
    files.write_text(path, text)
  except (OSError, ValueError) as error:  # the latter: a zero byte in a name
    reason = getattr(error, 'strerror', None) or error
    raise UserError(f'/save {path}: {reason}: name another file') from None


def row(dialog: Dialog) -> dict[str, object]:
  """The row of messages of a dialog, as SFT reads it."""
  system = [chat.Message('system', dialog.system)] if dialog.system else []
  return {'messages': [chat.fields(m) for m in (*system, *dialog.messages)]}


def _load(tokenizer, dialog, argument):
  found = re.fullmatch(r'(.*\S)\s+(\d+)', argument, re.S)
  name, number = found.groups() if found else (argument, None)
  path = _path(name, '/load')
  every = saved(path, '/load')
  index = len(every) if number is None else int(number)
  if not 1 <= index <= len(every):
    raise UserError(f'/load {path} {index}: it has rows 1 to {len(every)}')
  messages = every[index - 1]
  system = messages[0].content if messages[0].role == 'system' else ''
  messages = messages[bool(system) :]
  foreign = [
    m.ids is not None and m.vocabulary != tokenizer.fingerprint for m in messages
  ]
  text = lambda m: dataclasses.replace(m, ids=None, vocabulary='')
  messages = tuple(text(m) if f else m for m, f in zip(messages, foreign))
  loaded = dataclasses.replace(dialog, system=system, messages=messages)
  dialogs.ask(tokenizer, dialogs.check(tokenizer, loaded), '?')
  other = '; answers of another vocabulary are read as text' if any(foreign) else ''
  last = _short(messages[-1].content)
  return Outcome(
    loaded, f'{_turns(loaded)} of row {index} of {len(every)}{other}; the last: {last}'
  )


def saved(path: pathlib.Path, field: str) -> list[tuple[chat.Message, ...]]:
  """Messages of every row of a file of dialogs.

  Raises:
    UserError: no such file, or a row that is no dialog; it begins with `field`.
  """
  found = []
  for where, each in rows.read(path, field):
    _, made = formats.of(each, formats.DIALOGS, where)
    messages = sft.parse(made, where).messages
    if not messages:
      raise UserError(f'{where}: a text, not a dialog of messages')
    found.append(messages)
  return found


def _path(argument, word):
  if not argument:
    raise UserError(f'{word}: name a file, as in {word} chats.jsonl')
  path = pathlib.Path(argument).expanduser()
  if word == '/save' and path.suffix != '.jsonl':
    raise UserError(f'/save {argument}: the name of a file of dialogs ends in .jsonl')
  return path


def _tools(tokenizer, dialog, argument):
  """Which tools are on: those that are named, all, or none."""
  if not dialog.offered:
    raise UserError('/tools: there are none: begin with --tools=python,search=FOLDER')
  if argument:
    on = dialog.offered if argument == 'all' else ()
    if argument not in ('all', 'off'):
      names = argument.replace(',', ' ').split()
      found = [registry.find(dialog.offered, name) for name in names]
      if None in found:
        known = ', '.join(tool.name for tool in dialog.offered)
        wrong = names[found.index(None)]
        raise UserError(f'/tools {wrong}: there are {known}, or all, or off')
      on = tuple(found)
    dialog = dialogs.check(tokenizer, dataclasses.replace(dialog, tools=tuple(on)))
  rows = [calling.listed(dialog)[0]]
  rows += [f'  {tool.name}: {tool.description}' for tool in dialog.offered]
  return Outcome(dialog, rows[0] if argument else '\n'.join(rows))


def _exit(tokenizer, dialog, argument):
  return Outcome(dialog, done=True)


def _turns(dialog):
  n = sum(m.role == 'user' for m in dialog.messages)
  return f'{n} question' + ('' if n == 1 else 's')


def _short(text):
  line = ' '.join(text.split())
  return line if len(line) <= 50 else f'{line[:49]}…'


COMMANDS = {
  '/help': Command('', 'this list', _help),
  '/reset': Command('', 'forgets the dialog; system and settings stay', _reset),
  '/system': Command('TEXT', 'sets the system message; "" removes it', _system),
  '/temp': Command('X', 'temperature; 0 is greedy', _setting('temperature')),
  '/top_p': Command('X', 'share of the probability sampled from', _setting('top_p')),
  '/top_k': Command('N', 'tokens sampled from; 0: all', _setting('top_k', int)),
  '/max': Command('N', 'longest answer, tokens', _setting('max_new', int)),
  '/tools': Command('NAMES', 'that the model may call; all, or off', _tools),
  '/undo': Command('', 'forgets the last question and its answer', _undo),
  '/retry': Command('', 'asks the last question again', _retry),
  '/save': Command('FILE', 'adds the dialog to FILE.jsonl, for sft --files', _save),
  '/load': Command('FILE [N]', 'resumes the last dialog of a file, or row N', _load),
  '/exit': Command('', 'ends; so does Ctrl-D', _exit),
}
KEYS = (
  '  //text         sends a text that begins with a slash',
  '  Up, Down       earlier messages; Alt-Enter or Esc Enter: a new line',
  '  Ctrl-C         stops an answer, or clears the line',
)
