"""The chat in a terminal, in a dumb one and through a pipe."""

import io
import os
import pathlib
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time

import children
import post_examples as toy
import pytest
import templates
import toy_chat
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from configs import chat as chat_config
from experiments import chat as recipe
from llama3_jax.base.errors import UserError
from llama3_jax.generate.settings import Settings
from llama3_jax.talk import dialog as dialogs
from llama3_jax.talk import terminal
from llama3_jax.talk.dialog import Dialog
from llama3_jax.train import final

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def model(tmp_path_factory):
  """Workdir of a toy model with its vocabulary."""
  folder = tmp_path_factory.mktemp('model')
  final.save(folder / 'final', toy.model(), toy.CONFIG, toy.tokenizer(folder))
  return folder


@pytest.fixture
def cache(tmp_path, monkeypatch):
  monkeypatch.setenv('LLAMA3_CACHE', str(tmp_path))
  return tmp_path


def config_of(model):
  config = chat_config.get_config()
  config.init_from, config.length = str(model), 64
  config.sample.update(dict(max_new=4, temperature=0.0))
  return config


def piped(monkeypatch, data):
  """Puts bytes where standard input is read."""
  monkeypatch.setattr(sys, 'stdin', io.TextIOWrapper(io.BytesIO(data), 'utf-8'))


def test_pipe_gives_answers_alone_and_ends_with_the_input(model, monkeypatch, capsys):
  piped(monkeypatch, b'hi\nmore\n\n/temp 0\nhi\n')
  assert recipe.main(config_of(model)) == {'turns': 3}
  shown, beside = capsys.readouterr()
  talker = toy_chat.own(model)
  first = Dialog(settings=Settings(temperature=0.0, max_new=4), length=64)
  question = dialogs.ask(talker.tokenizer, first, 'hi')
  said = ''.join(dialogs.pieces(talker.tokenizer, dialogs.stream(talker, question)))
  assert shown.startswith(f'{said}\n') and shown.endswith(f'{said}\n')
  assert shown.count(said) >= 2  # an empty line began a new dialog
  assert '\x1b' not in beside and '(4 tokens, ' in beside
  assert 'cut off at max_new=4' in beside and 'temperature=0 ' in beside


@pytest.mark.parametrize(
  'data,reason',
  [
    (b'hi\n/foo\nhi\n', 'standard input, line 2: /foo: no such command'),
    (b'hi\n\xff\n', 'standard input, line 2: it is not UTF-8'),
    (b'x' * 99, 'standard input, line 1: that is more than the 60 tokens'),
  ],
)
def test_line_that_cannot_be_asked_ends_a_pipe(model, monkeypatch, data, reason):
  piped(monkeypatch, data)
  with pytest.raises(UserError, match=reason):
    recipe.main(config_of(model))


def test_workdir_is_claimed_where_one_is_given(model, monkeypatch, tmp_path):
  piped(monkeypatch, b'')
  assert recipe.main(config_of(model), str(tmp_path / 'run')) == {'turns': 0}
  assert (tmp_path / 'run/config.json').exists()


def edited(keys):
  """Messages that an editor reads from keys, until its end."""
  with create_pipe_input() as source:
    source.send_text(keys)
    with create_app_session(input=source, output=DummyOutput()):
      notes = []
      read = terminal.editor(notes.append)
      return list(iter(read, None)), notes


def test_editor_reads_lines_and_pastes_and_keeps_them(cache):
  paste = '\x1b[200~one\rtwo\r\rthree\x1b[201~'
  found, _ = edited(f'first\r{paste}\rab\x1b\rcd\r\x04')
  assert found == ['first', 'one\ntwo\n\nthree', 'ab\ncd']
  kept = (cache / 'chat_history').read_text('utf-8').split('\n')
  assert [x for x in kept if x[:1] == '+'] == [
    f'+{y}' for x in found for y in x.split('\n')
  ]
  assert oct((cache / 'chat_history').stat().st_mode)[-3:] == '600'


def test_ctrl_c_clears_what_was_typed(cache):
  found, notes = edited('wrong\x03right\r\x04')
  assert found == ['right'] and notes == ['(Ctrl-D ends)']


def test_history_that_cannot_be_kept_is_said(monkeypatch, tmp_path):
  (tmp_path / 'file').write_text('')
  monkeypatch.setenv('LLAMA3_CACHE', str(tmp_path / 'file'))
  found, notes = edited('one\r\x04')
  assert found == ['one'] and 'until the end only' in notes[0]


def shown_in(talker, tokens, monkeypatch):
  """(dialog after an answer of `tokens`, what was written, notes)."""
  written, notes = [], []
  monkeypatch.setattr(dialogs, 'stream', lambda talker, question: tokens())
  screen = terminal.Screen(
    None, written.append, notes.append, lambda text: None, io.StringIO, True
  )
  return terminal.answer(talker, Dialog(), 'Go', screen), ''.join(written), notes


def stopped(ids):
  def tokens():
    yield from ids
    raise KeyboardInterrupt

  return tokens


def test_stopped_answer_keeps_what_was_shown(monkeypatch, tmp_path):
  talker = toy_chat.own(tmp_path)
  ids = 'naï'.encode()[:-1]  # inside a character
  dialog, written, notes = shown_in(talker, stopped(ids), monkeypatch)
  assert written == 'na\n' and notes[0].endswith('stopped)')
  assert [m.content for m in dialog.messages] == ['Go', 'na']
  assert dialogs.ask(talker.tokenizer, dialog, 'on').ids


def test_answer_stopped_before_it_begins_leaves_no_question(monkeypatch, tmp_path):
  talker = toy_chat.own(tmp_path)
  dialog, _, notes = shown_in(talker, stopped([]), monkeypatch)
  assert dialog == Dialog() and 'the question is gone' in notes[0]


def test_answer_does_not_steer_the_terminal():
  text = 'a\x1b[2Jb\x07\x9bc\n\td'
  assert text.translate(terminal.PICTURES) == 'a␛[2Jb␇\ufffdc\n\td'


def test_banner_names_model_tokenizer_and_template(tmp_path):
  own, other = toy_chat.own(tmp_path), toy_chat.other(templates.CHATML_SYSTEM)
  talked = Dialog(system='S ' * 99)
  shown = terminal.banner('runs/a', own.engine.config, own.tokenizer, talked)
  assert 'runs/a: 51.4k parameters, float32; 512 tokens (Llama 3 codec)' in shown
  assert 'template Llama 3' in shown and 'system: S S' in shown
  assert max(map(len, shown.split('\n'))) <= 80
  shown = terminal.banner('b', other.engine.config, other.tokenizer, Dialog())
  assert '(tokenizer.json)' in shown and 'You are a helpful assistant.' in shown
  counts = [terminal.count(n) for n in (7, 1_300, 134_515_008, 8_030_261_248, 405e9)]
  assert counts == ['7', '1.30k', '135M', '8.03B', '405B']


class Typist:
  """A chat in a terminal of its own, on which a test types."""

  def __init__(self, model, cache, term):
    self.text = ''
    arguments = [sys.executable, '-m', 'experiment', '--config=chat']
    arguments += [f'--init_from={model}', '--config.sample.max_new=4000']
    arguments += ['--config.length=4100', '--config.sample.temperature=0.0']
    env = os.environ | children.variables(cache)
    env |= {'TERM': term, 'PROMPT_TOOLKIT_NO_CPR': '1'}
    self.terminal, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    every = dict(stdin=theirs, stdout=theirs, stderr=theirs)
    # Where the tests run in the background, children inherit that Ctrl-C is ignored.
    heard = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    self.process = subprocess.Popen(
      arguments, env=env, cwd=ROOT, start_new_session=True, preexec_fn=heard, **every
    )
    os.close(theirs)

  def until(self, pattern, keys='', seconds=120):
    """The text up to a match; `keys` are typed again and again until it comes."""
    end = time.monotonic() + seconds
    while not (found := re.search(pattern, self.text, re.S)):
      assert time.monotonic() < end, f'no {pattern!r} in {self.text!r}'
      self.type(keys)
      if select.select([self.terminal], [], [], 0.3)[0]:
        self.text += os.read(self.terminal, 4096).decode('utf-8', 'replace')
    before, self.text = self.text[: found.end()], self.text[found.end() :]
    return before

  def type(self, text):
    os.write(self.terminal, text.encode())


@pytest.mark.parametrize('term', ['xterm', 'dumb'])
def test_a_person_asks_stops_is_corrected_and_leaves(model, term, tmp_path):
  typist = Typist(model, tmp_path, term)
  assert 'Llama 3 codec' in typist.until('/help for commands')
  typist.until('>')
  typist.type('hello\r')
  typist.until('\n.*\n.*[a-zA-Z]')  # it answers, and would do so for long
  typist.process.send_signal(signal.SIGINT)
  assert ('\x1b[2m(' in typist.until(r'tokens/s, stopped\)')) == (term == 'xterm')
  typist.until('>')
  typist.type('/temp warm\r')
  typist.until('must be a number')
  if term == 'xterm':
    typist.until('>')
    typist.until('hello', keys='\x1b[A')
    typist.type('\x15\x1b[200~one\rtwo\x1b[201~')
    typist.until('one.*two')
    typist.type('\x03')
  typist.type('\x04')
  typist.until('chat: done')
  assert typist.process.wait(60) == 0
