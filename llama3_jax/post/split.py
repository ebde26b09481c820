"""A share of somebody's rows is held out, so that training can be measured (4.1)."""

import hashlib
import math
from collections.abc import Callable
from collections.abc import Sequence
from typing import TypeVar

from absl import logging
from ml_collections import ConfigDict

from llama3_jax.text.chat import Message

T = TypeVar('T')


def train(data: ConfigDict, read: Callable, prompt: Callable[[T], str]) -> list[T]:
  """The examples of data.files that are trained on.

  read: (path, field, quiet) -> examples of a file; prompt: text that is equal for
  examples which must be on the same side.
  """
  every, held = _divided(data, read, prompt, False)
  if held:
    logging.info('%d of %d rows are held out (data.heldout)', len(held), len(every))
  return [example for i, example in enumerate(every) if i not in held]


def heldout(data: ConfigDict, read: Callable, prompt: Callable[[T], str]) -> list[T]:
  """The share data.heldout of data.files; none where data.heldout_files are given."""
  if not data.get('heldout') or data.heldout_files:
    return []
  every, held = _divided(data, read, prompt, True)
  return [every[i] for i in sorted(held)]


def question(messages: Sequence[Message]) -> str:
  """What a dialog asks: the first message of the user, under whichever system message;
  where there is none, all messages."""
  said = (m.content for m in messages if m.role == 'user')
  return next(said, '\n'.join(m.content for m in messages))


def _divided(data, read, prompt, quiet):
  """(all examples of data.files, the numbers of those that are held out)."""
  every = [e for path in data.files for e in read(path, 'data.files', quiet)]
  if not data.get('heldout') or data.heldout_files:
    return every, set()
  return every, choose([prompt(example) for example in every], data.heldout)


def choose(prompts: Sequence[str], share: float) -> set[int]:
  """Numbers of the rows to hold out: those of whole prompts, in the order of their
  hashes, until they are the share; at least one prompt is left.

  Prompts that differ in white space or case alone are one. One with more rows than are
  still due is left to training; where all have, the smallest is held out.
  """
  groups: dict[bytes, list[int]] = {}
  for i, text in enumerate(prompts):
    plain = ' '.join(text.casefold().split())
    mark = hashlib.blake2b(plain.encode('utf-8', 'replace'), digest_size=16).digest()
    groups.setdefault(mark, []).append(i)
  held, due = set(), math.ceil(share * len(prompts))
  marks = sorted(groups)
  for mark in marks[:-1]:
    if len(held) + len(groups[mark]) <= due:
      held.update(groups[mark])
  if not held and due and len(marks) > 1:
    smallest = min(marks, key=lambda mark: len(groups[mark]))
    held.update(groups[smallest])
  return held
