"""Labels of dialogs by a chat model: quality, difficulty, topic (4.2.3).

The model is asked for one of a few labels, and their likelihoods are compared, so that
every dialog gets one; each is taken against its likelihood for an empty dialog (Zhao et
al. 2021), which says how likely the label is by itself.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from llama3_jax.base.errors import UserError
from llama3_jax.config import ModelConfig
from llama3_jax.generate import likelihood
from llama3_jax.model import llama
from llama3_jax.text import chat
from llama3_jax.text.library import Library
from llama3_jax.text.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Question:
  """What is asked of a dialog, and the labels, worst or easiest first."""

  text: str
  labels: tuple[str, ...]


# The scales of the paper: three points for English, two for code; difficulty in three.
QUESTIONS = {
  'quality': Question(
    'How good is the last answer: is it accurate, does it follow the instructions, is '
    'its tone right? Say 1 (poor), 2 (fair) or 3 (good).',
    ('1', '2', '3'),
  ),
  'code': Question(
    'Is the code of the last answer free of bugs, and does it do what was asked for? '
    'Say 1 (no) or 2 (yes).',
    ('1', '2'),
  ),
  'difficulty': Question(
    'How difficult is what the user asks? Say 1 (easy), 2 (medium) or 3 (hard).',
    ('1', '2', '3'),
  ),
}
TOPICS = ('mathematics', 'code', 'language', 'science', 'advice', 'other')


def topic(names: Sequence[str] = TOPICS) -> Question:
  """The question which of `names` a dialog is about. UserError for none or one."""
  if len(set(names)) < 2:
    raise UserError(f'topics={tuple(names)}: name two or more')
  return Question(f'What is this about? Say one of: {", ".join(names)}.', tuple(names))


@dataclasses.dataclass(frozen=True)
class Labels:
  """numbers int [N] of labels; scores float [N], the mean of the numbers by the share
  of each, which tells those with one label apart."""

  numbers: np.ndarray
  scores: np.ndarray


def answer(tokenizer: Tokenizer | Library, text: str) -> list[int]:
  """Ids of a whole answer, with what ends it in the chat template of the tokenizer."""
  asked = chat.Message('user', '?')
  opened = chat.encode(tokenizer, [asked], prompt=True).ids.tolist()
  whole = chat.encode(tokenizer, [asked, chat.Message('assistant', text)]).ids.tolist()
  if whole[: len(opened)] != opened:
    raise UserError('the chat template writes a question otherwise once it is answered')
  return whole[len(opened) :]


def ask(
  params: llama.Params,
  config: ModelConfig,
  tokenizer: Tokenizer | Library,
  dialogs: Sequence[Sequence[chat.Message]],
  question: Question,
  longest: int = 2000,
) -> Labels:
  """Labels of dialogs; of each message `longest` characters are shown."""

  def prompt(dialog):
    said = '\n\n'.join(f'{m.role}: {m.content[:longest]}' for m in dialog)
    text = f'{said}\n\n{question.text}'
    message = chat.Message('user', text)
    return chat.encode(tokenizer, [message], prompt=True).ids.tolist()

  answers = [answer(tokenizer, label) for label in question.labels]
  prompts = [prompt(dialog) for dialog in (*dialogs, [chat.Message('user', '')])]
  found = likelihood.of_each(params, prompts, answers, config)
  found = (found[:-1] - found[-1]).astype(np.float64)
  shares = np.exp(found - found.max(1, keepdims=True))
  shares /= shares.sum(1, keepdims=True)
  return Labels(found.argmax(1), shares @ np.arange(len(question.labels)))
