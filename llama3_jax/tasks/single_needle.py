"""Needle in a haystack: one fact at each depth of texts of each length (5.2).

--config.tasks="('single_needle=DOCUMENTS.jsonl,8000,32000',)": the file, and lengths in
characters, as of multi_needle. Questions go through all lengths and depths in turn; the
page of an evaluation has a heat map of them. The paper's models find all.
"""

import random
from collections.abc import Sequence

from llama3_jax.tasks import multi_needle
from llama3_jax.tasks import needle
from llama3_jax.tasks import task

DEPTHS = tuple(i / 10 for i in range(11))  # 0: the beginning


def create(source: str = '') -> task.Task:
  """The Task of 'DOCUMENTS,LENGTH,...'; without lengths, of 8,000 characters."""
  path, lengths = multi_needle.parse(source, 'single_needle')
  # Neighbours differ in both, so that few questions also see all of each.
  cells = [(length, depth) for depth in DEPTHS for length in lengths]

  def examples(split, n, seed):
    text, made = multi_needle.sentences(path), []
    for i in range(n):
      length, depth = cells[i % len(cells)]
      rng = random.Random(f'{seed}/{split}/single_needle/{length}/{depth}/{i}')
      made.append(make(rng, text, length, depth))
    return made

  return task.Task(
    *(examples, multi_needle.score),
    prompt=lambda e: '{}\n\n{}'.format(*e.checks[0]),
    page=lambda e: needle.prompt(*e.checks[0]),
    max_new=64,
    summary=task.by_kind(
      multi_needle.score, kind=lambda e: e.checks[2], name=lambda n: f'at {n:,}'
    ),
    cell=lambda e: e.checks[2:],
    shots=0,
  )


def make(
  rng: random.Random, text: Sequence[str], length: int, depth: float
) -> task.Example:
  """An Example of `length` characters, the question included."""
  context, asked, answer = needle.haystack(rng, text, length, depth)
  checks = ((context, asked), (answer.split()[-1],), length, depth)
  return task.Example(f'{context}\n{asked}', answer, checks=checks)
