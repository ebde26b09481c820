"""The task: questions with checkable answers, to train on, reward and evaluate (5.1).

A task is a module with `create(source='') -> Task`: one of this folder by its name, or
one of yours by its dotted name; what follows `=` is its source, such as a file.
"""

import dataclasses
import functools
import hashlib
import importlib
import pathlib
import random
from collections.abc import Callable

from llama3_jax.base.errors import UserError


@dataclasses.dataclass(frozen=True)
class Example:
  """A question and its right answer.

  task: its name, as in the config; `load` sets it.
  worked: the answer with its steps, as a solved example shows it; '': the answer alone.
  choices: answers to choose from, of which a base model's likelihood picks one.
  media: files of images or sound that belong to the prompt.
  """

  prompt: str
  answer: str
  task: str = ''
  worked: str = ''
  choices: tuple[str, ...] = ()
  media: tuple[str, ...] = ()


def exact(example, response):
  """1.0 when the response is the answer, 0.0 otherwise."""
  return float(response.strip() == example.answer)


def plain(example):
  """The question as it stands."""
  return example.prompt


def page(example):
  """The question in the form of the pages of exercises, up to its answer."""
  return f'Q: {example.prompt}\nA:'


@dataclasses.dataclass(frozen=True)
class Task:
  """Questions of one kind, how they are asked, and what a response is worth.

  examples: (split, n, seed) -> up to n Examples of 'train' or 'heldout'; no prompt is
    in both, and held-out prompts are all different.
  score: (example, response) -> 0 to 1.
  prompt: (example) -> what a user says in a chat; page: what a base model continues.
  stop: text that ends a base model's answer, which is cut there.
  max_new: tokens that an answer may need; 0: as the config says.
  make: (rng) -> Example, of a task that generates its questions.
  """

  examples: Callable
  score: Callable = exact
  prompt: Callable = plain
  page: Callable = page
  stop: str = '\n'
  max_new: int = 0
  make: Callable | None = None


# Short everyday words, few enough for a model of a million parameters to know them all.
WORDS = """
apple bag bell bird boat book box bread cake cat chair city cloud cup dog door duck egg
fish flag fox gate goat gold hat house key king lake lamp leaf lion map milk moon nest
oak pen pig plate queen rain ring road rope rose salt sheep ship shoe snow spoon star
stone sun table tent train tree wall wind wolf
""".split()


def words(rng, n):
  """`n` different words."""
  return rng.sample(WORDS, n)


def is_heldout(prompt):
  """One prompt in eight is kept for evaluation, by hash: the same in every process."""
  return hashlib.blake2b(prompt.encode(), digest_size=1).digest()[0] < 32


def generated(name, make, **more):
  """The Task of make(rng) -> Example; name: of its random numbers; more: other fields.

  A task with few prompts gives fewer held-out examples than it is asked for.
  """

  def examples(split, n, seed):
    rng = random.Random(f'{seed}/{split}/llama3_jax.tasks.{name}')
    drawn, seen, tries = [], set(), 0
    while len(drawn) < n and tries < 100 * n + 1000:
      example, tries = make(rng), tries + 1
      if is_heldout(example.prompt) != (split == 'heldout'):
        continue
      if split == 'train' or example.prompt not in seen:
        drawn.append(example)
      seen.add(example.prompt)
    return drawn

  return Task(examples, make=make, **more)


@functools.cache
def load(text):
  """The Task of 'name', 'package.module' or either with '=source'.

  Raises UserError that lists the tasks there are for a name that must be one of them.
  """
  name, _, source = text.partition('=')
  path = name if '.' in name else f'llama3_jax.tasks.{name}'
  try:
    module = importlib.import_module(path)
  except ModuleNotFoundError as error:
    if not error.name or not f'{path}.'.startswith(f'{error.name}.'):
      raise
    module = None
  if not hasattr(module, 'create'):
    own = ', or no module of yours with create(source)' if '.' in name else ''
    known = ', '.join(_names())
    raise UserError(f'task {name!r} is unknown{own}: there are {known}')
  made = module.create(source)

  def examples(split, n, seed):
    return [dataclasses.replace(e, task=text) for e in made.examples(split, n, seed)]

  return dataclasses.replace(made, examples=examples)


def _names():
  """Of the tasks in this folder."""
  files = sorted(pathlib.Path(__file__).parent.glob('*.py'))
  return [f.stem for f in files if '\ndef create(' in f.read_text(encoding='utf-8')]
