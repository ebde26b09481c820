"""Which preference rows are trained on, and how many are left out for what (4.2.1)."""

import collections
import dataclasses
import json
from collections.abc import Sequence
from typing import TypeVar

from absl import logging
from ml_collections import ConfigDict

from llama3_jax.text.chat import Message

T = TypeVar('T')
BAD = 'not readable as a preference'
WEAK = 'weaker than data.min_strength'
SIMILAR = 'responses alike (data.similar)'
OLD = 'of an earlier round (data.newest)'
LONG = 'longer than train.length'
NAMED = 5  # rows that a page names


class Left:
  """Rows that were left out: their places by reason, each counted once however often
  its file is read."""

  def __init__(self) -> None:
    self._found = collections.defaultdict(dict)

  def add(self, reason: str, place: str) -> None:
    """Counts a row; place: its file and line, with what is wrong where it is bad."""
    self._found[reason].setdefault(place)

  def counts(self) -> dict[str, int]:
    """{reason: rows}."""
    return {reason: len(places) for reason, places in self._found.items()}

  def named(self, reason: str = BAD) -> list[str]:
    """The first places of a reason."""
    return list(self._found[reason])[:NAMED] if reason in self._found else []

  def results(self) -> dict:
    """`counts` and `named`, for results.json."""
    return {**self.counts(), 'named': self.named()}

  def tell(self) -> None:
    """Says in the log what was left out, and names the first bad rows."""
    for line in self.named():
      logging.warning('left out: %s', line)
    if counts := self.counts():
      said = ', '.join(f'{n:,} {reason}' for reason, n in counts.items())
      logging.info('rows left out: %s', said)


def chosen(examples: Sequence[T], data: ConfigDict, left: Left) -> list[T]:
  """The Preferences that a config's `data` trains on.

  min_strength: 1 to 4, rows of a smaller one are left out; rows without one stay.
  similar: of responses at least so alike the lower one is removed; an example with one
  left is left out. newest: of so many rounds, by the rows' `round` (0: of all).
  """
  least, alike = data.get('min_strength', 0), data.get('similar', 0.0)
  rounds = sorted({example.round for example in examples})
  newest = set(rounds[-data.newest :] if data.get('newest') else rounds)
  kept = []
  for example in examples:
    if example.round not in newest:
      left.add(OLD, example.where)
    elif 0 < example.strength < least:
      left.add(WEAK, example.where)
    elif (one := _unlike(example, alike) if alike else example) is None:
      left.add(SIMILAR, example.where)
    else:
      kept.append(one)
  return kept


def _unlike(example, limit):
  """The example without responses that are too alike a better one; None if one is left.

  The strength says how much chosen is better than rejected: it stays with the latter.
  """
  texts = [words(message) for message in example.responses]
  stay = []
  for i, text in enumerate(texts):
    if all(similarity(texts[j], text) < limit for j in stay):
      stay.append(i)
  if len(stay) == len(texts):
    return example
  if len(stay) < 2:
    return None
  pick = lambda values: tuple(values[i] for i in stay) if values else values
  strength = example.strength if stay[-1] == len(texts) - 1 else 0
  return dataclasses.replace(
    example,
    responses=pick(example.responses),
    models=pick(example.models),
    strength=strength,
  )


def words(message: Message) -> list[str]:
  """The words of a response, with its calls of tools."""
  calls = [json.dumps([c.name, c.arguments]) for c in message.calls or ()]
  return message.content.casefold().split() + calls


def similarity(a: Sequence[str], b: Sequence[str]) -> float:
  """Share of pairs of neighbouring words that two texts have in common, 0 to 1."""
  pairs = lambda t: collections.Counter(zip(('', *t), (*t, '')))
  one, other = pairs(a), pairs(b)
  return 2 * sum((one & other).values()) / (sum(one.values()) + sum(other.values()))
