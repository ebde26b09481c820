"""Multi-needle: two of four facts that are hidden in a long text (5.2).

--config.tasks="('multi_needle=DOCUMENTS.jsonl,8000,32000',)": rows with a `text` to
hide them in, and the lengths, in characters, so that every model gets the same texts (a
token of English has about four); a folder may hold them as
long_context/documents.jsonl. As many questions are of each length. The score is the
share of the two that is found; the summary has it for each length.
"""

import functools
import random
import re
from collections.abc import Sequence

from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError
from llama3_jax.tasks import needle
from llama3_jax.tasks import reading
from llama3_jax.tasks import task

NAMES = ('long_context/documents.jsonl', 'long_context/pg_essays.jsonl')
HIDDEN, ASKED = 4, 2
SHORTEST = 500  # characters, with room for the facts and the question


def create(source: str = '') -> task.Task:
  """The Task of 'DOCUMENTS,LENGTH,...'; without lengths, of 8,000 characters."""
  path, lengths = parse(source, 'multi_needle')

  def examples(split, n, seed):
    text, made = sentences(path), []
    for i in range(n):
      length = lengths[i % len(lengths)]
      rng = random.Random(f'{seed}/{split}/multi_needle/{length}/{i}')
      made.append(make(rng, text, length))
    return made

  return task.Task(
    *(examples, score),
    prompt=lambda e: '{}\n\n{}'.format(*e.checks[0]),
    page=lambda e: needle.prompt(*e.checks[0]),
    max_new=256,
    summary=summary,
    shots=0,
  )


def parse(source: str, name: str) -> tuple[str, list[int]]:
  """(file of documents, lengths) of a source; a UserError names the task."""
  path, *given = source.split(',')
  if not path:
    raise UserError(f'tasks: write {name}=DOCUMENTS.jsonl,LENGTH,...')
  if not all(g.isdecimal() and int(g) >= SHORTEST for g in given):
    raise UserError(
      f'tasks: {name}={source}: lengths are numbers of characters, at least {SHORTEST}'
    )
  return path, [int(g) for g in given] or [8000]


def make(rng: random.Random, text: Sequence[str], length: int) -> task.Example:
  """An Example of `length` characters, the question included."""
  words = task.words(rng, 2 * HIDDEN)
  pairs = list(zip(words[:HIDDEN], words[HIDDEN:]))
  wanted = rng.sample(pairs, ASKED)
  asked = ' '.join(needle.question(key) for key, _ in wanted)
  answer = ', '.join(needle.answer(*pair) for pair in wanted)
  places = [rng.random() for _ in pairs]
  facts = [needle.fact(*pair) for pair in pairs]
  room = length - len(needle.prompt('', asked))
  context = needle.hide(rng, facts, text, room, places)
  values = tuple(value for _, value in wanted)
  checks = ((context, asked), values, length)
  return task.Example(f'{context}\n{asked}', answer, checks=checks)


def score(e: task.Example, response: str) -> float:
  """Share of the values that were asked for which the response has."""
  said = set(re.findall(r'\w+', response.lower()))
  return sum(value in said for value in e.checks[1]) / len(e.checks[1])


summary = task.by_kind(score, kind=lambda e: e.checks[2], name=lambda n: f'at {n:,}')


@functools.lru_cache(2)
def sentences(path: str) -> list[str]:
  """The sentences of a file of documents, in which facts are hidden."""
  file = reading.place(path, NAMES)
  return needle.sentences(row['text'] for row in jsonl.documents(file, 'tasks'))
