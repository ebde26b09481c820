"""Questions of choices asked in ways that should not matter (5.1.2).

A variant is one way of asking: other labels before the choices, the choices in another
order, solved examples whose right labels follow a pattern, another form of the prompt.
The questions and the solved examples are the same in each.
"""

import dataclasses
import os
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
from absl import logging

from llama3_jax.base.errors import UserError
from llama3_jax.config import ModelConfig
from llama3_jax.eval import answering
from llama3_jax.generate import likelihood
from llama3_jax.model import llama
from llama3_jax.tasks import choice
from llama3_jax.tasks.task import Example
from llama3_jax.tasks.task import Task
from llama3_jax.text.tokenizer import Tokenizer

LETTERS = choice.LETTERS[:4]  # all variants of the paper have four
USUAL = 'A. B. C. D.'
EVERY = 10**9  # examples: as many as there are
OPENING = '([{<'  # a label that begins so is shown whole in a solved example
# Instruction before the solved examples, and the question's place, in five forms that
# say more and more about the task. {about}: ' about SUBJECT' where it is known.
FORMATS: Mapping[str, tuple[str, str]] = {
  'bare': ('', '{}\nAnswer:'),
  'named': ('', 'Question: {}\nRight choice:'),
  'topic': (
    'Multiple-choice questions{about}, each with its answer.\n\n',
    '{}\nAnswer:',
  ),
  'rules': (
    'Four answers stand below each question{about}. One of them is right. Give the '
    'label of that one and nothing else.\n\n',
    'Question: {}\nRight answer:',
  ),
  'examination': (
    'This is an examination{about}. Read the question and all four answers, set aside '
    'those that cannot be true, and decide between the rest. What counts is only the '
    'label before the right answer: no reason is asked for, and no question may be '
    'left out.\n\n',
    'Question of the examination:\n{}\nLabel of the right answer:',
  ),
}


@dataclasses.dataclass(frozen=True)
class Question:
  """A question without labels: its text, four choices, and the number of the right one.

  example: as the task gave it.
  """

  example: Example
  text: str
  choices: tuple[str, ...]
  right: int

  def first(self, number: int) -> int:
    """The first choice with the text of this one: equal texts are one answer."""
    return self.choices.index(self.choices[number])


@dataclasses.dataclass(frozen=True)
class Variant:
  """One way of asking.

  labels: four, as they are listed: 'A. B. C. D.'. order: the choices by their letters,
  in the order in which they are listed. bias: letters of the places of the right
  answers of the solved examples, in turn; '': where they are. form: of FORMATS; '': the
  task's own.
  """

  labels: str = USUAL
  order: str = LETTERS
  bias: str = ''
  form: str = ''

  @property
  def listed(self) -> list[str]:
    """The labels before the choices."""
    return self.labels.split()

  @property
  def said(self) -> list[str]:
    """What of each label is the answer: '(A' of '(A)', whose end says nothing."""
    return [label.rstrip('.:)]}>') for label in self.listed]

  @property
  def shown(self) -> list[str]:
    """Each label as the answer of a solved example."""
    opened = all(label[0] in OPENING for label in self.listed)
    return self.listed if opened else self.said

  @property
  def what(self) -> str:
    """What the labels are, in a chat's request for one."""
    bare = ''.join(self.said).translate({ord(c): '' for c in OPENING})
    letters = bare.isascii() and bare.isalpha()
    return 'letter' if letters else 'number' if bare.isdigit() else 'sign'


def variants(
  biases: Sequence[str],
  labels: Sequence[str],
  orders: Sequence[str],
  formats: Sequence[str],
) -> dict[str, dict[str, Variant]]:
  """{kind: {name: Variant}} of the fields of a config, in their order; kinds without
  variants are left out. Raises UserError for what is no variant."""
  made = {
    'bias': {bias: Variant(bias=bias) for bias in biases},
    'labels': {text: Variant(labels=text) for text in labels},
    'order': {order: Variant(order=order) for order in orders},
    'format': {name: Variant(form=name) for name in formats},
  }
  for bias in biases:
    if not bias or set(bias) - set(LETTERS):
      raise UserError(f'biases: {bias!r} is not made of the letters {LETTERS}')
  for order in orders:
    if sorted(order) != list(LETTERS):
      raise UserError(f'orders: {order!r} does not have each of {LETTERS} once')
  for text, one in made['labels'].items():
    if len(one.listed) != len(LETTERS) or len(set(one.said)) != len(LETTERS):
      raise UserError(f'labels: {text!r} is not four different labels: write {USUAL!r}')
    if not all(one.said):
      raise UserError(f'labels: {text!r}: a label has nothing but its end')
  for name in formats:
    if name not in FORMATS:
      raise UserError(f'formats: {name!r} is none of {", ".join(FORMATS)}')
  return {kind: found for kind, found in made.items() if found}


def questions(task: Task, name: str, n: int, seed: int) -> list[Question]:
  """Up to n held-out questions of a task that is answered by letters; those that do not
  have four choices are left out with a warning."""
  for e in task.examples('heldout', 1, seed):
    _parsed(e, name)
  found = [_parsed(e, name) for e in task.examples('heldout', EVERY, seed)]
  fit = _four(found)
  if not fit:
    raise UserError(f'task={name}: none of its questions has four choices')
  if len(fit) < len(found):
    count = len(found) - len(fit)
    logging.warning('%s: %d questions do not have four choices: left out', name, count)
  return fit[:n]


def solved(
  task: Task, name: str, asked: Sequence[Question], shots: int, seed: int
) -> list[list[Question]]:
  """The solved examples before each question, `shots` of them with four choices."""
  if not shots:
    return [[] for _ in asked]
  if task.solved:
    own = [task.solved(q.example, shots) for q in asked]
    found = [_four([_parsed(e, name) for e in every])[:shots] for every in own]
  else:
    every = [_parsed(e, name) for e in task.examples('train', EVERY, seed)]
    found = [_four(every)[:shots]] * len(asked)
  fewest = min(map(len, found))
  if fewest < shots:
    raise UserError(
      f'task={name}: {fewest} solved examples with four choices for a question: '
      f'--config.shots={fewest}, or a file with more of them'
    )
  return found


def _four(every):
  return [q for q in every if len(q.choices) == len(LETTERS)]


def _parsed(e, name):
  """The Question of an example as choice.lettered makes it."""
  text, found = e.prompt, []
  lettered = e.choices and ''.join(e.choices) == choice.LETTERS[: len(e.choices)]
  for letter in reversed(e.choices if lettered else ()):
    text, mark, after = text.rpartition(f'\n{letter}. ')
    lettered = lettered and mark
    found.insert(0, after)
  if not lettered:
    raise UserError(
      f'task={name}: its questions do not list choices by letters; those of mmlu and '
      'arc_letters do'
    )
  return Question(e, text, tuple(found), e.choices.index(e.answer))


def listed(q: Question, variant: Variant, order: Sequence[int]) -> Example:
  """The Example of a question whose choice order[i] stands at the variant's label i."""
  lines = [f'{a} {q.choices[i]}' for a, i in zip(variant.listed, order, strict=True)]
  place = list(order).index(q.right)
  return dataclasses.replace(
    q.example,
    prompt='\n'.join([q.text, *lines]),
    answer=variant.said[place],
    worked=variant.shown[place],
    choices=tuple(variant.said),
  )


def _order(variant):
  return [LETTERS.index(letter) for letter in variant.order]


def _biased(q, variant, number):
  """Order of the choices of the solved example `number`: the right one changes places
  with that at the letter which the variant's bias has for it."""
  order = list(range(len(LETTERS)))
  if variant.bias:
    place = LETTERS.index(variant.bias[number % len(variant.bias)])
    order[place], order[q.right] = order[q.right], order[place]
  return order


def ask(
  tokenizer: Tokenizer,
  task: Task,
  variant: Variant,
  every: Sequence[Question],
  before: Sequence[Sequence[Question]],
  chat: bool,
) -> answering.Asked:
  """The questions as this variant asks them, each after its solved ones, `before`."""
  made = [listed(q, variant, _order(variant)) for q in every]
  shots = {
    e: [listed(s, variant, _biased(s, variant, i)) for i, s in enumerate(own)]
    for e, own in zip(made, before, strict=True)
  }
  context = _context(task, variant.form)
  said = f'\nAnswer with the {variant.what} alone.'
  prompt = lambda e: context(e, []) if variant.form else e.prompt + said
  task = dataclasses.replace(task, context=context, prompt=prompt)
  return answering.Asked.of(tokenizer, task, made, None if chat else shots.__getitem__)


def _context(task, form) -> Callable:
  """`context` of a Task in one of FORMATS, or its own."""
  if not form:
    return task.context
  intro, question = FORMATS[form]

  def about(e):
    subject = e.checks[0] if e.checks and isinstance(e.checks[0], str) else ''
    return intro.format(about=f' about {subject.replace("_", " ")}' if subject else '')

  return choice.context(lambda e: question.format(e.prompt), about)


def starts(tokenizer: Tokenizer, lead: str, labels: Sequence[str]) -> list[list[int]]:
  """Ids of each label after `lead`, up to the first that is not that of all labels.

  What all begin with (a space, a bracket) is part of every text and tells nothing.
  Raises UserError where two labels go on with the same token.
  """
  ids = [list(tokenizer.encode(f'{lead}{label}')) for label in labels]
  common, seen = len(os.path.commonprefix(ids)), {}
  for label, own in zip(labels, ids):
    first = seen.setdefault(tuple(own[common : common + 1]), label)
    if first != label or len(own) == common:
      other = first if first != label else next(x for x in labels if x != label)
      raise UserError(
        f'labels: {other!r} and {label!r} begin with the same token of this '
        'vocabulary, so that the first one would not tell them apart: give others with '
        '--config.labels'
      )
  return [own[: common + 1] for own in ids]


def chosen(
  params: llama.Params,
  config: ModelConfig,
  tokenizer: Tokenizer,
  every: Sequence[answering.Asked],
) -> np.ndarray:
  """Place of the likeliest label, int [variants, questions]: all texts of all variants
  are read in one run, and each beginning that they share once."""
  prompts, answers = [], []
  for asked in every:
    labels = starts(tokenizer, asked.lead, asked.examples[0].choices)
    prompts += [ids for ids in asked.prompts for _ in labels]
    answers += [ids for _ in asked.prompts for ids in labels]
  logp = likelihood.of_answers(params, prompts, answers, config)
  return logp.reshape(len(every), -1, len(LETTERS)).argmax(-1)


def choices(
  every: Sequence[Question], variants: Sequence[Variant], places: np.ndarray
) -> np.ndarray:
  """Number of the choice that stands at the chosen label, int [variants, questions]."""
  found = np.zeros_like(places)
  for i, variant in enumerate(variants):
    order = _order(variant)
    found[i] = [q.first(order[place]) for q, place in zip(every, places[i])]
  return found
