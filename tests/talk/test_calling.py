"""Tools in a dialog: calls are shown and run, their outputs read; each can be off."""

import contextlib
import dataclasses
import json

import post_examples as toy
import pytest
import toy_chat

from llama3_jax.base.errors import UserError
from llama3_jax.generate.settings import Settings
from llama3_jax.talk import calling
from llama3_jax.talk import commands
from llama3_jax.talk import dialog as dialogs
from llama3_jax.talk import terminal
from llama3_jax.talk.dialog import Dialog
from llama3_jax.talk.dialog import Talker
from llama3_jax.text import chat
from llama3_jax.text.chat import Message
from llama3_jax.tools import registry


def add(a: int, b: int) -> int:
  """Adds two numbers."""
  return a + b


def long(n: int) -> str:
  """Many lines."""
  return '\n'.join(f'line {i} \x1b[2J' for i in range(n))


TOOLS = tuple(map(registry.of, (add, long)))
CALL = json.dumps({'name': 'add', 'parameters': {'a': 1, 'b': 2}})
OPEN = Dialog(
  settings=Settings(max_new=200), length=4000, offered=TOOLS, tools=TOOLS, calls=3
)


@pytest.fixture(scope='module')
def own(tmp_path_factory):
  return toy.tokenizer(tmp_path_factory.mktemp('vocabulary'))


@pytest.fixture(params=['own', 'other'])
def tokenizer(request, own):
  return own if request.param == 'own' else toy_chat.byte_level()


class Shown:
  """A screen that keeps what it shows."""

  def __init__(self):
    self.texts, self.notes = [], []
    self.screen = terminal.Screen(
      lambda: None,
      self.texts.append,
      self.notes.append,
      lambda text: None,
      contextlib.nullcontext,
      False,
    )

  @property
  def text(self):
    return ''.join(self.texts)


@pytest.fixture
def says(monkeypatch):
  """says(tokenizer, text, ...): answers with these texts; gives what was asked."""

  def script(tokenizer, *texts, end=None):
    left, asked = list(texts), []

    def stream(talker, question):
      asked.append(question)
      yield from (*tokenizer.encode(left.pop(0)), end or tokenizer.stop_ids[-1])

    monkeypatch.setattr(dialogs, 'stream', stream)
    return asked

  return script


def test_call_is_run_and_shown_and_its_output_is_read(tokenizer, says):
  asked, shown = says(tokenizer, CALL, 'It is 3.'), Shown()
  talker = Talker(None, tokenizer)
  dialog = terminal.answer(talker, OPEN, '1 + 2?', shown.screen)
  assert [m.role for m in dialog.messages] == [
    *('user', 'assistant', 'ipython', 'assistant')
  ]
  assert dialog.messages[2].content == '3' and dialog.asked == 2
  assert dialog.messages[1].ids and dialog.messages[-1].content == 'It is 3.'
  assert shown.text.split() == ['It', 'is', '3.']  # the call is no answer
  assert '[add(a=1, b=2)]\n  3' in shown.notes
  assert '"add"' in tokenizer.decode(list(asked[0].ids))
  assert 'It is 3.' not in tokenizer.decode(list(asked[1].ids))
  assert asked[1].dialog.messages[-1] == Message('ipython', '3')


def test_answer_is_shown_as_it_comes(tokenizer, says):
  says(tokenizer, 'Hello there')
  shown = Shown()
  terminal.answer(Talker(None, tokenizer), OPEN, 'Hi', shown.screen)
  assert shown.texts[:3] == ['H', 'e', 'l']


def test_answer_that_begins_as_a_call_and_is_none_is_shown_whole(tokenizer, says):
  text = '{"name": "Ann"}'
  says(tokenizer, text)
  shown = Shown()
  terminal.answer(Talker(None, tokenizer), OPEN, 'Hi', shown.screen)
  assert shown.texts[0] == text


def test_program_after_the_tag_is_not_shown_as_an_answer(own, says):
  tag = own.python_tag
  ids = [tag, *own.encode('print(1)'), own.eom]
  assert list(calling.pieces(own, OPEN, iter(ids), ids)) == []


def test_slip_is_told_to_the_model(tokenizer, says):
  says(tokenizer, CALL[:-2], 'Sorry.')
  dialog = terminal.answer(Talker(None, tokenizer), OPEN, 'Hi', Shown().screen)
  assert 'cannot be read' in dialog.messages[2].content


def test_calls_of_one_answer_are_limited(tokenizer, says):
  asked = says(tokenizer, CALL, CALL, CALL, CALL, 'Stop.')
  dialog = terminal.answer(Talker(None, tokenizer), OPEN, 'Hi', Shown().screen)
  assert len(asked) == 5 and dialog.messages[-1].content == 'Stop.'
  assert 'no more calls' in dialog.messages[-2].content


def test_long_output_is_cut_on_the_screen_and_moves_no_cursor(own, says):
  call = json.dumps({'name': 'long', 'parameters': {'n': 40}})
  says(own, call, 'Done.')
  shown = Shown()
  terminal.answer(Talker(None, own), OPEN, 'Hi', shown.screen)
  [note] = [n for n in shown.notes if n.startswith('[long')]
  assert note.count('\n') == calling.LINES + 1 and '28 lines more' in note
  assert '\x1b' not in note


def test_stopped_call_keeps_the_dialog(own, says, monkeypatch):
  def stop() -> str:
    """Stops."""
    raise KeyboardInterrupt

  dialog = dataclasses.replace(OPEN, tools=(registry.of(stop),))
  says(own, json.dumps({'name': 'stop', 'parameters': {}}))
  after = terminal.answer(Talker(None, own), dialog, 'Hi', Shown().screen)
  assert [m.role for m in after.messages] == ['user', 'assistant']


def test_without_tools_nothing_is_told_or_held_back(own, says):
  asked, shown = says(own, CALL), Shown()
  dialog = dataclasses.replace(OPEN, tools=())
  after = terminal.answer(Talker(None, own), dialog, 'Hi', shown.screen)
  assert len(after.messages) == 2 and shown.text.startswith(CALL)
  assert b'functions' not in own.decode_bytes(list(asked[0].ids))


def test_tools_are_switched_by_name(own):
  run = lambda dialog, line: commands.run(own, dialog, line)
  one = run(OPEN, '/tools long').dialog
  assert [t.name for t in one.tools] == ['long'] and one.offered == TOOLS
  assert run(one, '/tools').note.startswith('tools: (add), long\n')
  assert run(one, '/tools off').dialog.tools == ()
  assert run(one, '/tools all').dialog.tools == TOOLS
  with pytest.raises(UserError, match='/tools no: there are add, long, or all'):
    run(one, '/tools no')
  with pytest.raises(UserError, match='there are none'):
    run(Dialog(), '/tools')


def test_a_turn_is_forgotten_with_its_calls(own):
  turn = [
    Message('user', 'x' * 40),
    Message('assistant', CALL),
    Message('ipython', '3'),
    Message('assistant', 'It is 3.'),
  ]
  asked = [*turn, *turn, Message('user', 'now?')]
  size = lambda messages: len(chat.encode(own, messages, prompt=True).ids)
  shorter = [*turn, asked[-1]]
  messages, _ = dialogs.fit(own, asked, 0, size(asked) - 1)
  assert messages == shorter
  assert dialogs.fit(own, asked, 0, size(shorter) - 1)[0] == asked[-1:]
  # The question of an output stays.
  read = [*turn, *turn[:3]]
  assert dialogs.fit(own, read, 0, size(read) - 1)[0] == turn[:3]
  assert dialogs.fit(own, read, 0, size(turn[:3]) - 1) is None


def test_system_message_with_tools_needs_room(own):
  small = dataclasses.replace(OPEN, length=400)
  with pytest.raises(UserError, match='system with what it says of tools is longer'):
    dialogs.check(own, small)
