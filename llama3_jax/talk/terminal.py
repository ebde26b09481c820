"""A dialog in a terminal, in a dumb one, or through a pipe."""

import contextlib
import dataclasses
import itertools
import os
import sys
import termios
import time
from collections.abc import Callable

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import FileHistory
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings

from llama3_jax.base import files
from llama3_jax.base.errors import UserError
from llama3_jax.config import ModelConfig
from llama3_jax.model import llama
from llama3_jax.talk import calling
from llama3_jax.talk import commands
from llama3_jax.talk import dialog as dialogs
from llama3_jax.talk.dialog import Dialog
from llama3_jax.talk.dialog import Talker
from llama3_jax.text.chat import Message
from llama3_jax.text.library import Library
from llama3_jax.text.tokenizer import Tokenizer
from llama3_jax.tools import agent

PROMPT = '> '
DIM, PLAIN, ERASE = '\x1b[2m', '\x1b[0m', '\r\x1b[K'
# What a terminal obeys becomes a picture: an answer does not move the cursor.
PICTURES = {i: 0x2400 + i for i in range(32) if chr(i) not in '\n\t'} | {127: 0x2421}
PICTURES |= dict.fromkeys(range(128, 160), 0xFFFD)


@dataclasses.dataclass(frozen=True)
class Screen:
  """Where messages come from and answers go.

  Attributes:
    read: the next message; None at the end of the input.
    write: shows a piece of an answer, on stdout.
    note: shows lines beside the answers, on stderr.
    busy: shows what is being waited for until the next call; '': nothing.
    silent: a context in which keys are not shown: they wait for the next message.
    live: whether a person types, who may correct what is refused.
  """

  read: Callable[[], str | None]
  write: Callable[[str], None]
  note: Callable[[str], None]
  busy: Callable[[str], None]
  silent: Callable[[], contextlib.AbstractContextManager]
  live: bool


def screen() -> Screen:
  """The Screen of this process: an editor of lines with a history in a terminal, plain
  input where TERM is dumb, and a message a line from a pipe or file."""
  typed, shown = sys.stdin.isatty(), sys.stdout.isatty()
  dumb = os.environ.get('TERM', '') in ('', 'dumb')
  colour = sys.stderr.isatty() and not dumb and not os.environ.get('NO_COLOR')
  for stream in (sys.stdout, sys.stderr):
    if hasattr(stream, 'reconfigure'):
      stream.reconfigure(errors='replace')
  note = _noter(colour)
  if typed and shown and not dumb:
    read = editor(note)
  else:
    read = _asker(note) if typed else _lines()
  wait = _waiter(colour) if typed else lambda text: text and note(text)
  silent = _silent if typed else contextlib.nullcontext
  return Screen(read, _writer(shown), note, wait, silent, typed)


def _noter(colour):
  def note(text):
    sys.stdout.flush()  # an answer before it
    lines = text.split('\n')
    sys.stderr.write(
      ''.join(f'{DIM}{x}{PLAIN}\n' if colour else f'{x}\n' for x in lines)
    )
    sys.stderr.flush()

  return note


def _writer(shown):
  def write(text):
    sys.stdout.write(text.translate(PICTURES) if shown else text)
    sys.stdout.flush()

  return write


def _waiter(colour):
  """A line that the next call wipes; a terminal that cannot wipe shows none."""
  waiting = []

  def busy(text):
    if waiting:
      sys.stderr.write(ERASE)
      waiting.clear()
    if text and colour:
      sys.stderr.write(f'{DIM}{text}{PLAIN}')
      waiting.append(text)
    sys.stderr.flush()

  return busy


@contextlib.contextmanager
def _silent():
  keyboard = sys.stdin.fileno()
  before = termios.tcgetattr(keyboard)
  changed = list(before)
  changed[3] &= ~termios.ECHO
  termios.tcsetattr(keyboard, termios.TCSANOW, changed)
  try:
    yield
  finally:
    termios.tcsetattr(keyboard, termios.TCSANOW, before)


def editor(note: Callable[[str], None]) -> Callable[[], str | None]:
  """A function that reads the next message with an editor, None at the end; Enter ends
  a message, a pasted one may have many lines. note: as that of a Screen."""
  keys = KeyBindings()
  keys.add('enter')(lambda event: event.current_buffer.validate_and_handle())
  keys.add('escape', 'enter')(lambda event: event.current_buffer.insert_text('\n'))
  session = PromptSession(
    FormattedText([('bold', PROMPT)]),
    history=_history(note),
    completer=WordCompleter(list(commands.COMMANDS), sentence=True),
    complete_while_typing=False,
    key_bindings=keys,
    multiline=True,
    prompt_continuation=' ' * len(PROMPT),
  )
  return lambda: _patient(session.prompt, note)


def _history(note):
  """Earlier messages, in a file that only its owner reads."""
  path = files.cache_folder() / 'chat_history'
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
  except OSError as error:
    note(f'({path}: {error.strerror}: messages are remembered until the end only)')
    return InMemoryHistory()
  return FileHistory(str(path))


def _asker(note):
  """Reads messages, a line each, after a prompt."""

  def line():
    sys.stderr.write(PROMPT)
    sys.stderr.flush()
    try:
      text = sys.stdin.readline()
    except KeyboardInterrupt:
      sys.stderr.write('\n')
      raise
    if not text:
      raise EOFError
    return text

  return lambda: _patient(line, note)


def _patient(line, note):
  """The next message of `line`, None at the end; Ctrl-C clears what was typed."""
  while True:
    try:
      return line().strip()
    except KeyboardInterrupt:
      note('(Ctrl-D ends)')
    except UnicodeDecodeError:
      note('(that was not UTF-8)')
    except EOFError:
      return None


def _lines():
  """Reads messages from a pipe or file, a line each."""
  source = getattr(sys.stdin, 'buffer', sys.stdin)
  numbers = itertools.count(1)

  def read():
    line, number = source.readline(), next(numbers)
    try:
      text = line if isinstance(line, str) else line.decode('utf-8')
    except UnicodeDecodeError:
      raise UserError(f'standard input, line {number}: it is not UTF-8') from None
    return text.strip() if text else None

  return read


def banner(
  name: str, config: ModelConfig, tokenizer: Tokenizer | Library, dialog: Dialog
) -> str:
  """Lines on the model, how it chats, its tools, and how to begin."""
  kind = 'tokenizer.json' if isinstance(tokenizer, Library) else 'Llama 3 codec'
  default = dialogs.default_system(tokenizer)
  system = ' '.join((dialog.system or default or 'none').split())
  system = system if len(system) <= 46 else f'{system[:45]}…'
  return '\n'.join(
    (
      f'{name}: {count(llama.count(config))} parameters, {config.dtype}; '
      f'{tokenizer.vocab_size:,} tokens ({kind})',
      f'chat template {dialogs.template_name(tokenizer)}; system: {system}',
      *calling.listed(dialog),
      f'dialogs of {dialog.length:,} tokens, answers of {dialog.settings.max_new:,}; '
      '/help for commands',
    )
  )


def count(n: int) -> str:
  """A number of parameters in three digits: 8.03B, 135M."""
  for size, unit in ((1e9, 'B'), (1e6, 'M'), (1e3, 'k')):
    if n >= size:
      digits = max(0, 3 - len(str(int(n / size))))
      return f'{n / size:.{digits}f}{unit}'
  return str(n)


def converse(talker: Talker, dialog: Dialog, shown: Screen) -> int:
  """Talks until the input ends; returns how many answers were given.

  Raises:
    UserError: where nobody types, what is refused, with the number of its line.
  """
  line, first = 0, dialog.asked
  while (text := shown.read()) is not None:
    line += 1
    if not text and shown.live:  # a slip
      continue
    try:
      # In a file an empty line is between two dialogs.
      outcome = commands.run(talker.tokenizer, dialog, text or '/reset')
      if outcome.note:
        shown.note(outcome.note if '\n' in outcome.note else f'({outcome.note})')
      dialog = outcome.dialog
      if outcome.ask:
        dialog = answer(talker, dialog, outcome.ask, shown)
    except UserError as error:
      if not shown.live:
        raise UserError(f'standard input, line {line}: {error}') from None
      shown.note(f'({error})')
    except BrokenPipeError:  # nobody reads the answers any more
      os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
      break
    else:
      if outcome.done:
        break
  return dialog.asked - first


def answer(talker: Talker, dialog: Dialog, text: str, shown: Screen) -> Dialog:
  """Asks `text` and shows the answer as it comes, with the calls of tools before it;
  the dialog after it, or as it was where the answer was stopped before its first
  token."""
  first = Message('user', text)
  if not dialog.tools:
    return _said(talker, dialog, first, shown)
  said = dialog

  def ask(messages):
    nonlocal said
    *before, last = messages
    asked = dataclasses.replace(said, messages=tuple(before))
    after = _said(talker, asked, last, shown)
    if after is asked:
      raise KeyboardInterrupt  # stopped before its first token
    said = after
    return said.messages[-1]

  most = calling.most(dialog)
  happened = agent.run(ask, dialog.tools, [*dialog.messages, first], dialog.calls, most)
  with contextlib.suppress(KeyboardInterrupt):
    for event in happened:
      if isinstance(event, agent.Output):
        shown.note(calling.shown(event).translate(PICTURES))
  return said


def _said(talker, dialog, last, shown):
  """One message of the model, shown as it comes; the dialog with it."""
  question = dialogs.ask(talker.tokenizer, dialog, last)
  if n := question.forgotten:
    shown.note(f'(the oldest {n} messages no longer fit into length={dialog.length})')
  ids, times, stopped = [], [], False

  def sampled():
    for token in dialogs.stream(talker, question):
      ids.append(token)
      times.append(time.perf_counter())
      yield token

  if shown.live:
    shown.busy('reads the dialog ...' if dialog.asked else 'compiles the answer ...')
  try:
    with shown.silent():
      for piece in calling.pieces(talker.tokenizer, dialog, sampled(), ids):
        shown.busy('')
        shown.write(piece)
  except KeyboardInterrupt:
    stopped = True
  shown.busy('')
  shown.write('\n')
  shown.note(f'({_ending(talker, dialog, ids, times, stopped)})')
  if not ids:
    return dialog
  return dialogs.answered(question, dialogs.reply(talker.tokenizer, ids))


def _ending(talker, dialog, ids, times, stopped):
  """'37 tokens, 21.3 tokens/s', and why an answer ended before its end; the rate leaves
  out the first token, which waits for the prompt and the compiler."""
  n = len(times)
  words = [f'{n} token' + ('' if n == 1 else 's')]
  if n > 1:
    words.append(f'{(n - 1) / max(times[-1] - times[0], 1e-9):.1f} tokens/s')
  if stopped:
    words.append('stopped' if ids else 'stopped before the first: the question is gone')
  elif ids[-1] not in talker.tokenizer.stop_ids:
    words.append(f'cut off at max_new={dialog.settings.max_new}: /max N allows more')
  return ', '.join(words)
