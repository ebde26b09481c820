"""A dialog with a model: what fits, what is shown, what is remembered."""

import dataclasses

import post_examples as toy
import pytest
import templates
import toy_chat

from llama3_jax.base.errors import UserError
from llama3_jax.generate.settings import Settings
from llama3_jax.talk import dialog as dialogs
from llama3_jax.talk.dialog import Dialog
from llama3_jax.text import chat
from llama3_jax.text.chat import Message

TEXT = 'naïve 日本 🙂!'


@pytest.fixture(scope='module')
def tokenizer(tmp_path_factory):
  return toy.tokenizer(tmp_path_factory.mktemp('vocabulary'))


@pytest.fixture(params=['own', 'other'])
def either(request, tokenizer):
  """A tokenizer of each kind."""
  return tokenizer if request.param == 'own' else toy_chat.byte_level()


def test_long_dialog_keeps_begin_system_and_the_newest_whole_messages(tokenizer):
  system = Message('system', 'Be short.')
  turns = [Message(r, f'{r} {i} ' * 4) for i in range(5) for r in ('user', 'assistant')]
  asked = [system, *turns, Message('user', 'now?')]
  messages, ids = dialogs.fit(tokenizer, asked, 1, 260)
  assert messages[0] == system and messages[-1] == asked[-1]
  assert 2 < len(messages) < len(asked) and messages[1:] == asked[1 - len(messages) :]
  assert messages[1].role == 'user' and len(ids) <= 260
  assert ids == chat.encode(tokenizer, messages, prompt=True).ids.tolist()
  assert ids[0] == tokenizer.bos
  assert dialogs.fit(tokenizer, [system, Message('user', 'x' * 300)], 1, 260) is None


@pytest.mark.parametrize('cut', [None, 0, 1, 3, 4, 9, 10, 11, 15, 16, 17])
def test_pieces_are_whole_characters_and_together_the_reply(either, cut):
  ids = either.encode(TEXT)
  ids = [*ids, either.stop_ids[-1]] if cut is None else ids[:cut]
  pieces = list(dialogs.pieces(either, ids))
  message = dialogs.reply(either, ids)
  assert ''.join(pieces) == message.content
  assert '\ufffd' not in message.content and TEXT.startswith(message.content)
  assert all(pieces) and (message.end is None) == (cut is not None)
  if cut is None:
    assert pieces == list(TEXT)  # each as soon as it is whole


def test_bytes_that_are_no_text_are_shown_as_they_are_remembered(tokenizer):
  ids = [255, 254, 97, 200, 200, 200, 200, 200]
  shown = ''.join(dialogs.pieces(tokenizer, ids))
  assert shown == dialogs.reply(tokenizer, ids).content and 'a' in shown


def test_pieces_end_at_the_stop_token(either):
  ids = [*either.encode('ab'), either.stop_ids[-1], *either.encode('c')]
  assert ''.join(dialogs.pieces(either, ids)) == 'ab'


def test_answer_that_was_cut_off_is_closed_before_the_next_question(either):
  ids = either.encode('on and')
  dialog = dialogs.ask(either, Dialog(), 'Go').dialog
  message = dialogs.reply(either, ids)
  assert message.end is None and message.ids == tuple(ids)
  dialog = dataclasses.replace(dialog, messages=(*dialog.messages, message))
  question = dialogs.ask(either, dialog, 'More')
  whole = [
    Message('user', 'Go'),
    Message('assistant', 'on and'),
    Message('user', 'More'),
  ]
  expected = chat.encode(either, whole, prompt=True)
  assert list(question.ids) == expected.ids.tolist()


def test_sampled_ids_are_asked_on_unchanged(tokenizer):
  ids = (*tokenizer.encode('Yes'), tokenizer.eot)
  question = dialogs.ask(tokenizer, Dialog(), 'a')
  dialog = dialogs.answered(question, dialogs.reply(tokenizer, ids))
  again = dialogs.ask(tokenizer, dialog, 'b').ids
  assert again[: len(question.ids) + len(ids)] == question.ids + ids
  assert dialog.asked == 1


def test_question_without_room_is_refused_and_older_turns_are_counted(tokenizer):
  dialog = Dialog(settings=Settings(max_new=40), length=100)
  with pytest.raises(UserError, match='more than the 60 tokens of room'):
    dialogs.ask(tokenizer, dialog, 'x' * 60)
  said = (Message('user', 'x' * 20), Message('assistant', 'y' * 20))
  question = dialogs.ask(tokenizer, dataclasses.replace(dialog, messages=said), 'now')
  assert question.forgotten == 2 and question.dialog.messages == (
    Message('user', 'now'),
  )


@pytest.mark.parametrize(
  'changes,reason',
  [
    (dict(system='S' * 900), 'system is longer than'),
    (dict(length=260), 'length=260 leaves no room'),
  ],
)
def test_dialog_in_which_nothing_can_be_asked_is_refused(tokenizer, changes, reason):
  with pytest.raises(UserError, match=reason):
    dialogs.check(tokenizer, Dialog(**changes))


def test_template_that_reads_the_first_message_can_be_asked():
  tokenizer = toy_chat.byte_level(templates.LLAMA2)
  dialog = dialogs.check(tokenizer, Dialog())
  assert dialogs.ask(tokenizer, dialog, 'hi').ids


def test_system_message_of_the_template_is_known(tokenizer):
  system = lambda template: dialogs.default_system(toy_chat.byte_level(template))
  assert system(templates.CHATML_SYSTEM) == 'You are a helpful assistant.'
  assert system(templates.CHATML) == system(None) == system(templates.LLAMA2) == ''
  assert dialogs.default_system(tokenizer) == ''


def test_form_of_dialogs_is_named(tokenizer):
  name = lambda template: dialogs.template_name(toy_chat.byte_level(template))
  named = [name(t) for t in (templates.CHATML, templates.LLAMA2, templates.ZEPHYR)]
  assert named == ['ChatML', 'Llama 2', 'Zephyr'] and name(None) == 'none'
  assert dialogs.template_name(tokenizer) == 'Llama 3'


def test_last_question_is_undone_with_its_answer():
  said = [Message(r, f'{r} {i}') for i in range(2) for r in ('user', 'assistant')]
  before, question = dialogs.undone(Dialog(messages=tuple(said)))
  assert before.messages == tuple(said[:2]) and question == 'user 1'
  with pytest.raises(UserError, match='nothing was asked'):
    dialogs.undone(Dialog())
