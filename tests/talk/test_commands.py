"""Slash commands: each gives the next dialog, and what is wrong changes nothing."""

import dataclasses
import json

import post_examples as toy
import pytest
import templates
import toy_chat

from llama3_jax.base.errors import UserError
from llama3_jax.post import sft
from llama3_jax.talk import commands
from llama3_jax.talk import dialog as dialogs
from llama3_jax.talk.dialog import Dialog
from llama3_jax.text.chat import Message


@pytest.fixture(scope='module')
def tokenizer(tmp_path_factory):
  return toy.tokenizer(tmp_path_factory.mktemp('vocabulary'))


@pytest.fixture
def dialog(tokenizer):
  """Two questions, the second answer cut off."""
  made = Dialog(system='Be short.')
  for text, end in (('Yes', [tokenizer.eot]), ('No and', [])):
    question = dialogs.ask(tokenizer, made, f'{text}?')
    message = dialogs.reply(tokenizer, [*tokenizer.encode(text), *end])
    made = dialogs.answered(question, message)
  return made


def test_line_is_a_command_or_a_message(tokenizer):
  ask = lambda line: commands.run(tokenizer, Dialog(), line).ask
  assert ask('a /temp 1') == 'a /temp 1' and ask('//temp 1') == '/temp 1'
  assert ask('/help') == '' and ask('one\n/two') == 'one\n/two'


@pytest.mark.parametrize(
  'line,field,value',
  [
    ('/temp 0', 'temperature', 0),
    ('/temp 1.5', 'temperature', 1.5),
    ('/top_p 0.5', 'top_p', 0.5),
    ('/top_k 7', 'top_k', 7),
    ('/max 12', 'max_new', 12),
  ],
)
def test_settings_are_set(tokenizer, dialog, line, field, value):
  outcome = commands.run(tokenizer, dialog, line)
  assert getattr(outcome.dialog.settings, field) == value
  assert outcome.dialog.messages == dialog.messages
  assert f'{field}={value}' in outcome.note
  word = line.split()[0]
  assert f'{field}={value}' in commands.run(tokenizer, outcome.dialog, word).note


@pytest.mark.parametrize(
  'line,reason',
  [
    ('/temp -1', r'sample.temperature=-1: it must be in \[0, 100\]'),
    ('/temp 0.0001', 'sample.temperature=0.0001: it must be 0 or at least'),
    ('/temp nan', 'sample.temperature=nan'),
    ('/temp inf', 'sample.temperature=inf'),
    ('/temp warm', 'it must be a number'),
    ('/top_p 0', 'sample.top_p=0'),
    ('/top_k 1.5', 'it must be a whole number'),
    ('/max 0', 'sample.max_new=0'),
    ('/max 1020', 'leaves no room'),
    ('/system ' + 'x' * 2000, 'system is longer'),
    ('/tmp 1', r'/tmp: no such command; did you mean /temp\? \(//tmp'),
    ('/xyzzy', '/help has all commands'),
    ('/reset now', 'takes nothing after it'),
    ('/save', 'name a file'),
    ('/save chats.txt', 'ends in .jsonl'),
    ('/save /dev/null/x.jsonl', 'File exists: name another file'),
    ('/load', 'name a file'),
    ('/load nowhere.jsonl', 'nowhere.jsonl does not exist'),
  ],
)
def test_what_cannot_be_is_one_line(tokenizer, dialog, line, reason):
  with pytest.raises(UserError, match=reason) as error:
    commands.run(tokenizer, dialog, line)
  assert '\n' not in str(error.value)


def test_help_names_every_command_in_80_columns(tokenizer):
  lines = commands.run(tokenizer, Dialog(), '/help').note.split('\n')
  assert [x.split()[0] for x in lines[: len(commands.COMMANDS)]] == [*commands.COMMANDS]
  assert max(map(len, lines)) <= 80


def test_system_message_is_set_shown_and_removed(tokenizer, dialog):
  other = toy_chat.byte_level(templates.CHATML_SYSTEM)
  changed = commands.run(tokenizer, dialog, '/system Be long.').dialog
  assert changed.system == 'Be long.' and changed.messages == dialog.messages
  assert 'Be long.' in commands.run(tokenizer, changed, '/system').note
  removed = commands.run(tokenizer, changed, '/system ""').dialog
  assert removed.system == ''
  note = commands.run(other, removed, '/system').note
  assert 'You are a helpful assistant.' in note and 'template' in note


def test_reset_keeps_system_and_settings(tokenizer, dialog):
  warm = commands.run(tokenizer, dialog, '/temp 2').dialog
  fresh = commands.run(tokenizer, warm, '/reset').dialog
  assert fresh == dataclasses.replace(warm, messages=())


def test_retry_asks_the_last_question_again_with_another_seed(tokenizer, dialog):
  outcome = commands.run(tokenizer, dialog, '/retry')
  assert outcome.ask == 'No and?' and outcome.dialog.messages == dialog.messages[:2]
  assert outcome.dialog.asked == dialog.asked == 2
  undone = commands.run(tokenizer, dialog, '/undo')
  assert undone.dialog == outcome.dialog and not undone.ask


def test_saved_dialog_is_a_row_of_sft_and_resumes(tokenizer, dialog, tmp_path):
  path = tmp_path / 'a b.jsonl'
  commands.run(tokenizer, dialog, f'/save {path}')
  rows = sft.read(path)
  expected = (Message('system', 'Be short.'), *dialog.messages)
  assert [row.messages for row in rows] == [expected]
  assert rows[0].messages[-1].end is None  # what was cut off is not trained to stop
  assert not sft.rows(rows, tokenizer, 400)[1]
  loaded = commands.run(tokenizer, Dialog(asked=2), f'/load {path}').dialog
  assert loaded == dialog


def test_dialogs_are_added_to_a_file_and_loaded_by_number(tokenizer, dialog, tmp_path):
  path = tmp_path / 'chats.jsonl'
  commands.run(tokenizer, dialog, f'/save {path}')
  second = commands.run(tokenizer, dialog, '/undo').dialog
  assert 'row 2' in commands.run(tokenizer, second, f'/save {path}').note
  load = lambda n: commands.run(tokenizer, Dialog(asked=2), f'/load {path}{n}').dialog
  assert load(' 1') == dialog and load('') == load(' 2') == second
  with pytest.raises(UserError, match='rows 1 to 2'):
    load(' 3')


@pytest.mark.parametrize('text', ['no json\n', '{"a": 1}\n', '{"text": "x"}\n'])
def test_file_of_something_else_is_left_alone(tokenizer, dialog, tmp_path, text):
  path = tmp_path / 'notes.jsonl'
  path.write_text(text)
  for word in ('/save', '/load'):
    with pytest.raises(UserError, match='notes.jsonl'):
      commands.run(tokenizer, dialog, f'{word} {path}')
  assert path.read_text() == text


def test_dialog_of_another_model_is_read_as_text(tokenizer, dialog, tmp_path):
  path = tmp_path / 'chats.jsonl'
  commands.run(tokenizer, dialog, f'/save {path}')
  other = toy_chat.byte_level()
  outcome = commands.run(other, Dialog(), f'/load {path}')
  assert 'another vocabulary' in outcome.note
  texts = lambda d: [(m.role, m.content) for m in d.messages]
  assert texts(outcome.dialog) == texts(dialog)
  assert dialogs.ask(other, outcome.dialog, 'on').ids


def test_nothing_said_is_not_saved(tokenizer, tmp_path):
  with pytest.raises(UserError, match='nothing was said'):
    commands.run(tokenizer, Dialog(), f'/save {tmp_path / "x.jsonl"}')
  assert json.dumps(commands.row(Dialog())) == '{"messages": []}'
