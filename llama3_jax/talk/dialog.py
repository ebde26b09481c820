"""A dialog with a model as a value: what was said, the settings, the next prompt."""

import dataclasses
from collections.abc import Iterator
from collections.abc import Sequence

from llama3_jax.base.errors import UserError
from llama3_jax.generate import engine
from llama3_jax.generate import text as texts
from llama3_jax.generate.engine import Engine
from llama3_jax.generate.settings import Settings
from llama3_jax.text import chat
from llama3_jax.text import template
from llama3_jax.text.chat import Message
from llama3_jax.text.library import Library
from llama3_jax.text.tokenizer import Tokenizer
from llama3_jax.tools import agent
from llama3_jax.tools import prompt
from llama3_jax.tools.registry import Tool

SHORTEST = 16  # tokens of a question: with less room nothing can be asked
pieces = texts.pieces
# Names of chat templates, by what only they write.
KINDS = {
  '<|im_start|>': 'ChatML',
  '<|start_header_id|>': 'Llama 3',
  '<<SYS>>': 'Llama 2',
  '[INST]': 'Mistral',
  '<start_of_turn>': 'Gemma',
  '<|user|>': 'Zephyr',
}


@dataclasses.dataclass(frozen=True)
class Talker:
  """A model that talks: the engine that it runs in, and the tokenizer it reads. What
  the engine has read of a dialog it does not read again."""

  engine: Engine
  tokenizer: Tokenizer | Library


@dataclasses.dataclass(frozen=True)
class Dialog:
  """What was said so far, and how the next answer is sampled.

  Attributes:
    system: the system message; '': none, or the one that the chat template writes.
    messages: the turns after it, a question and its answer in turn.
    settings: of sampling.
    length: longest dialog with its answer, tokens; older turns are forgotten.
    seed: of the first answer; each further one has the next.
    asked: answers that were sampled, forgotten ones too.
    offered: tools that there are; tools: those of them that the model may call.
    calls: messages with calls, of one answer at most.
  """

  system: str = ''
  messages: tuple[Message, ...] = ()
  settings: Settings = Settings()
  length: int = 1024
  seed: int = 0
  asked: int = 0
  offered: tuple[Tool, ...] = ()
  tools: tuple[Tool, ...] = ()
  calls: int = agent.STEPS


@dataclasses.dataclass(frozen=True)
class Question:
  """A dialog whose last message waits for an answer.

  Attributes:
    dialog: with the question, without the turns that no longer fit.
    ids: the prompt, which ends with an open answer.
    forgotten: messages that no longer fit.
  """

  dialog: Dialog
  ids: tuple[int, ...]
  forgotten: int = 0


def room(length: int, max_new: int) -> int:
  """Tokens of `length` that are left for the dialog before an answer of `max_new`.

  Raises:
    UserError: too few to ask anything.
  """
  left = length - max_new
  if left < SHORTEST:
    raise UserError(
      f'length={length} leaves no room for a question beside '
      f'sample.max_new={max_new}: raise length'
    )
  return left


def check(tokenizer: Tokenizer | Library, dialog: Dialog) -> Dialog:
  """The dialog, where its system message leaves room to ask and the model can chat.

  Raises:
    UserError: one of them is not so.
  """
  left = room(dialog.length, dialog.settings.max_new)
  opened = _opening(dialog)
  # Many templates read the first message: they refuse a dialog that has none.
  asked = [*opened, Message('user', '?')]
  if fit(tokenizer, asked, len(opened), left, dialog.tools) is None:
    what = 'system with what it says of tools' if dialog.tools else 'system'
    raise UserError(
      f'{what} is longer than the {left} tokens that length={dialog.length} leaves for '
      'the dialog: shorten it or raise length'
    )
  return dialog


def ask(
  tokenizer: Tokenizer | Library, dialog: Dialog, text: str | Message
) -> Question:
  """The question `text` (a user's, or any message) in a dialog, as a model's prompt.

  Raises:
    UserError: the question is longer than the room; the template refuses the dialog.
  """
  opened, left = _opening(dialog), room(dialog.length, dialog.settings.max_new)
  last = text if isinstance(text, Message) else Message('user', text)
  messages = [*opened, *dialog.messages, last]
  fitted = fit(tokenizer, messages, len(opened), left, dialog.tools)
  if fitted is None:
    raise UserError(
      f'that is more than the {left} tokens of room: shorten it, raise length or lower '
      'sample.max_new'
    )
  kept, ids = fitted
  asked = dataclasses.replace(dialog, messages=tuple(kept[len(opened) :]))
  return Question(asked, tuple(ids), len(messages) - len(kept))


def _opening(dialog):
  return [Message('system', dialog.system)] if dialog.system else []


def fit(
  tokenizer: Tokenizer | Library,
  messages: Sequence[Message],
  kept: int,
  room: int,
  tools: Sequence[Tool] = (),
) -> tuple[list[Message], list[int]] | None:
  """(messages, prompt ids): begin_of_text, the first `kept` messages and the newest
  whole turns that have at most `room` tokens together, with what is said of tools; None
  when the newest has not."""
  messages = [*(_closed(tokenizer, m) for m in messages[:-1]), *messages[-1:]]
  while True:
    ids = prompt.encode(tokenizer, messages, tools).ids.tolist()
    if len(ids) <= room:
      return messages, ids
    turns = [i for i, m in enumerate(messages) if m.role == 'user' and i > kept]
    if not turns:
      return None
    # A question leaves together with its answer, and the calls before it.
    del messages[kept : turns[0]]


def _closed(tokenizer, m):
  """An answer that was cut off with an end, so that the next header stands where a
  header may."""
  if m.end is not None or (m.ids and m.ids[-1] in tokenizer.stop_ids):
    return m
  if m.ids is None or isinstance(tokenizer, Library):  # a template writes the text
    return dataclasses.replace(m, end='eot', ids=None, vocabulary='')
  return chat.sampled(tokenizer, [*m.ids, tokenizer.eot])


def stream(talker: Talker, question: Question) -> Iterator[int]:
  """Yields the tokens of the answer as they are sampled, the stop token last."""
  d = question.dialog
  settings = dataclasses.replace(d.settings, vocab_size=talker.tokenizer.vocab_size)
  seed = (d.seed + d.asked) % 2**32
  stops = talker.tokenizer.stop_ids
  return engine.stream(talker.engine, question.ids, stops, settings, seed)


def reply(tokenizer: Tokenizer | Library, ids: Sequence[int]) -> Message:
  """The message of sampled ids; its end is None where it was cut off."""
  return chat.sampled(tokenizer, texts.whole(tokenizer, ids))


def answered(question: Question, message: Message) -> Dialog:
  """The dialog after an answer."""
  d = question.dialog
  return dataclasses.replace(d, messages=(*d.messages, message), asked=d.asked + 1)


def undone(dialog: Dialog) -> tuple[Dialog, str]:
  """(the dialog without its last question and what came after, that question).

  Raises:
    UserError: nothing was asked.
  """
  asked = [i for i, m in enumerate(dialog.messages) if m.role == 'user']
  if not asked:
    raise UserError('nothing was asked yet')
  before = dialog.messages[: asked[-1]]
  question = dialog.messages[asked[-1]].content
  return dataclasses.replace(dialog, messages=before), question


def template_name(tokenizer: Tokenizer | Library) -> str:
  """Name of the form in which a model writes a dialog."""
  if not isinstance(tokenizer, Library):
    return 'Llama 3'
  if tokenizer.template is None:
    return 'none'
  text = tokenizer.template.text
  return next((name for mark, name in KINDS.items() if mark in text), 'its own')


def default_system(tokenizer: Tokenizer | Library) -> str:
  """The system message that a chat template writes where a dialog has none; ''."""
  if not isinstance(tokenizer, Library) or tokenizer.template is None:
    return ''
  marker = 'marks the system message'
  user = {'role': 'user', 'content': 'question'}
  try:
    alone = template.render(tokenizer.template, [user])
    given = {'role': 'system', 'content': marker}
    both = template.render(tokenizer.template, [given, user])
  except UserError:  # many templates refuse a system message
    return ''
  before, _, after = both.partition(marker)
  around = alone.startswith(before) and alone.endswith(after) and before and after
  return alone[len(before) : len(alone) - len(after)].strip() if around else ''
