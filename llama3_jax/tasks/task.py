"""The task: questions with checkable answers, to train on, reward and evaluate (5.1).

A task is a module with `create(source='') -> Task`: one of this folder by its name, or
one of yours by its dotted name; the text after `=` is its source, such as a file.
"""

import dataclasses
import functools
import hashlib
import importlib
import pathlib
import random
import statistics
from collections.abc import Callable
from collections.abc import Sequence

from llama3_jax.base.errors import UserError


@dataclasses.dataclass(frozen=True)
class Example:
  """A question and its right answer.

  task: its name, as in the config; `load` sets it.
  worked: the answer with its steps, for a solved example; '': the answer alone.
  choices: answers to choose from, which the model does by likelihood; of one, it is
    measured whether greedy decoding writes it.
  media: files of images or sound that belong to the prompt.
  checks: what the score needs beside the answer: assertions, instructions.
  """

  prompt: str
  answer: str
  task: str = ''
  worked: str = ''
  choices: tuple[str, ...] = ()
  media: tuple[str, ...] = ()
  checks: tuple = ()


def exact(example: Example, response: str) -> float:
  """1.0 when the response is the answer, 0.0 otherwise."""
  return float(response.strip() == example.answer)


def plain(example: Example) -> str:
  """The question, unchanged."""
  return example.prompt


def page(example: Example) -> str:
  """The question in the form of the pages of exercises, up to its answer."""
  return f'Q: {example.prompt}\nA:'


@dataclasses.dataclass(frozen=True)
class Task:
  """Questions of one kind, their prompts, and the score of a response.

  examples: (split, n, seed) -> up to n Examples of 'train' or 'heldout'; no prompt is
    in both, and held-out prompts are all different.
  score: (example, response) -> 0 to 1; scores: of many such pairs at once.
  prompt: (example) -> the user's message in a chat; page: the text for a base model.
  stop: text at which a base model's answer is cut; '': it is not.
  max_new: tokens that an answer may need; 0: the config's number.
  make: (rng) -> Example, of a task that generates its questions.
  summary: (examples, responses) -> {name: number}, further scores of all responses.
  context: (example, solved examples) -> the whole text for a base model; None: pages,
    each on a line of its own.
  solved: (example, n) -> the solved examples shown before it; None: the same for all.
  normalise: the likelihood of a choice is divided by its number of 'characters' or
    'bytes'; '': it is not.
  cell: (example) -> (length, depth, 0 to 1) of what it asks for, for a heat map.
  shots: solved examples that a base model is shown where the config asks for the
    number of the paper, or of the benchmark's authors.
  suffix: (example) -> text after the choice, whose likelihood for a base model is taken
    in place of the choice's own.
  """

  examples: Callable
  score: Callable = exact
  prompt: Callable = plain
  page: Callable = page
  stop: str = '\n'
  max_new: int = 0
  make: Callable | None = None
  summary: Callable | None = None
  context: Callable | None = None
  solved: Callable | None = None
  normalise: str = ''
  suffix: Callable | None = None
  scores: Callable | None = None
  cell: Callable | None = None
  shots: int = 4


def scored(task: Task, pairs: Sequence[tuple[Example, str]]) -> list[float]:
  """Scores of (example, response) pairs of a task, at once where it can do that."""
  if task.scores is not None:
    return task.scores(pairs)
  return [task.score(e, response) for e, response in pairs]


def by_kind(
  score: Callable[[Example, str], float],
  mean: str = '',
  kind: Callable[[Example], object] = lambda e: e.checks[0],
  name: Callable[[object], str] = str,
  order: Callable[[object], object] | None = None,
) -> Callable[[Sequence[Example], Sequence[str]], dict[str, float]]:
  """A Task's `summary`: {name of a kind: mean score of its questions}, in the order of
  the kinds, and before them under the name `mean` the mean over kinds."""

  def summary(examples, responses):
    found = {}
    for e, response in zip(examples, responses, strict=True):
      found.setdefault(kind(e), []).append(score(e, response))
    means = {name(k): statistics.fmean(found[k]) for k in sorted(found, key=order)}
    whole = {mean: statistics.fmean(means.values() or [0.0])} if mean else {}
    return whole | means

  return summary


# Short everyday words, few enough for a model of a million parameters to know them all.
WORDS = """
apple bag bell bird boat book box bread cake cat chair city cloud cup dog door duck egg
fish flag fox gate goat gold hat house key king lake lamp leaf lion map milk moon nest
oak pen pig plate queen rain ring road rope rose salt sheep ship shoe snow spoon star
stone sun table tent train tree wall wind wolf
""".split()


def words(rng: random.Random, n: int) -> list[str]:
  """`n` different words."""
  return rng.sample(WORDS, n)


def is_heldout(prompt: str) -> bool:
  """Whether a prompt is held out: one in eight, by hash, the same in every process."""
  return hashlib.blake2b(prompt.encode(), digest_size=1).digest()[0] < 32


def generated(
  name: str, make: Callable[[random.Random], Example], **more: object
) -> Task:
  """The Task of make(rng) -> Example; name: seeds its random numbers; more: its fields.

  A task with few prompts returns fewer held-out examples than requested.
  """

  def examples(split, n, seed):
    rng = random.Random(f'{seed}/{split}/llama3_jax.tasks.{name}')
    kept, seen, tries = [], set(), 0
    while len(kept) < n and tries < 100 * n + 1000:
      example, tries = make(rng), tries + 1
      if is_heldout(example.prompt) != (split == 'heldout'):
        continue
      if split == 'train' or example.prompt not in seen:
        kept.append(example)
      seen.add(example.prompt)
    return kept

  return Task(examples, make=make, **more)


@functools.cache
def load(text: str) -> Task:
  """The Task of 'name', 'package.module' or either with '=source'.

  Raises a UserError that lists the known tasks when the name is not one of them.
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
  loaded = module.create(source)

  def named(find):
    return lambda *given, **more: [
      dataclasses.replace(e, task=text) for e in find(*given, **more)
    ]

  made = dataclasses.replace(loaded, examples=named(loaded.examples))
  return dataclasses.replace(made, solved=loaded.solved and named(loaded.solved))


def _names():
  """Names of the tasks in this folder."""
  files = sorted(pathlib.Path(__file__).parent.glob('*.py'))
  return [f.stem for f in files if '\ndef create(source: str =' in f.read_text('utf-8')]
