"""Guesses of the next tokens of answers, which one call of the engine checks (6.1).

A guess takes a row of its own (`Group.seats`), which draws the token after it with the
uniform number of its place. As long as a row draws what was guessed next, the draw of
the row after it is what the plain way would have drawn: an answer is the same with any
guesses, and only comes sooner when they are right.
"""

import collections
import dataclasses
import weakref
from collections.abc import Callable
from collections.abc import Sequence

from llama3_jax.base.errors import UserError
from llama3_jax.generate.group import Answer
from llama3_jax.generate.group import Group
from llama3_jax.generate.group import Sizes

# (answers with the most tokens to guess of each) -> guesses of each, none or some.
Guesser = Callable[[Sequence[tuple[Answer, int]]], Sequence[Sequence[int]]]
GRAMS = (3, 2)  # tokens that must have occurred before, the longest first
START = 0.5  # share of guesses that are right, before any was made
WEIGHT = 0.2  # of the newest guess in that share
LEAST = 0.25  # below this share an answer gets none for PAUSE calls
PAUSE = 16
AGAIN = 0.3  # the share after that: one guess more that is wrong ends it
# Tokens more that each answer must expect of a call that ends after one step instead of
# several: the least that the host takes of a step. On a CPU it takes more.
PAYS = 0.1


class _Asked:
  """Where runs of tokens occurred last in a prompt."""

  def __init__(self, text):
    self.text = text
    # {tokens: index of the token after them}
    self.after = [
      dict(zip(zip(*(text[i:] for i in range(size))), range(size, len(text))))
      for size in GRAMS
    ]


class _Said:
  """Where runs of tokens occurred last in an answer, with its prompt before it."""

  def __init__(self, asked):
    self.asked, self.after = asked, [{} for _ in GRAMS]
    self._next = len(asked.text)  # the first index that no run is followed by yet

  def guesses(self, ids, count):
    """What may follow the answer `ids`, at most `count` tokens."""
    text = self.asked.text
    n, end = len(text), len(text) + len(ids)
    at = lambda i: text[i] if i < n else ids[i - n]
    run = lambda size, end: tuple(at(i) for i in range(end - size, end))
    for size, after in zip(GRAMS, self.after):
      for i in range(max(self._next, size), end):
        after[run(size, i)] = i
    self._next = end
    for size, own, asked in zip(GRAMS, self.after, self.asked.after):
      last = run(size, end) if size <= end else ()
      found = own.get(last, asked.get(last))
      if found is not None:
        guesses = []
        for i in range(found, found + count):
          # Beyond the end it goes on with itself: a line that repeats.
          guesses.append(at(i) if i < end else guesses[i - end])
        return guesses
    return []


class Lookup:
  """Guesses what followed the latest earlier occurrence of the last tokens.

  Tokens of a prompt are looked through once for all its answers, those of an answer as
  they come.
  """

  def __init__(self) -> None:
    self._asked = weakref.WeakValueDictionary()  # {id of a request: _Asked}
    self._said = weakref.WeakKeyDictionary()  # {answer: _Said}, which holds the first

  def __call__(self, wanted: Sequence[tuple[Answer, int]]) -> list[list[int]]:
    """Guesses for each answer, at most so many."""
    return [self._of(answer).guesses(answer.ids, count) for answer, count in wanted]

  def _of(self, answer):
    if answer not in self._said:
      # No other request has this id while the answer holds its own.
      key = id(answer.request)
      asked = self._asked.get(key) or _Asked(list(answer.request.text))
      self._asked[key], self._said[answer] = asked, _Said(asked)
    return self._said[answer]


class Draft:
  """Guesses of another model with the same vocabulary: what it would say itself.

  engine: of that model, used by nothing else. It draws with the settings and the
  uniform numbers of the answer, so that models which agree draw the same tokens.
  """

  def __init__(self, engine) -> None:
    self.engine = engine

  def check(self, vocab_size: int, length: int) -> None:
    """UserError where the model cannot guess for one with answers of `length`."""
    size, most = self.engine.config.vocab_size, self.engine.sizes.length
    if size != vocab_size:
      raise UserError(f'the draft has vocab_size={size}: it must be {vocab_size} too')
    if most < length:
      raise UserError(f'the draft has length={most}: it must be {length} at least')

  def __call__(self, wanted: Sequence[tuple[Answer, int]]) -> list[list[int]]:
    """Guesses for each answer, at most so many."""
    found = [self.engine.submit(_further(*each))[0] for each in wanted]
    while not self.engine.idle:
      self.engine.step()
    return [answer.ids for answer in found]


def _further(answer, count):
  """The request for `count` tokens more of an answer."""
  asked = answer.request
  said = [*asked.said, *answer.ids]
  settings = dataclasses.replace(
    asked.settings, max_new=len(said) + count, alternatives=0
  )
  return dataclasses.replace(
    asked,
    settings=settings,
    said=said,
    samples=1,
    first=asked.first + answer.number,
  )


@dataclasses.dataclass
class _Trust:
  """How well the guesses for an answer do: the share that is right, and for how many
  calls it gets none."""

  share: float = START
  pause: int = 0

  def learn(self, made, right):
    """`right` of `made` guesses were right, and those after a wrong one count not."""
    for outcome in [1] * right + [0] * (right < made):
      self.share += WEIGHT * (outcome - self.share)
    if self.share < LEAST:
      self.share, self.pause = AGAIN, PAUSE


class Guesses:
  """Which rows check guesses, and how well these did: counters `made` and `right`."""

  def __init__(self, guesser: Guesser, sizes: Sizes, vocab_size: int) -> None:
    self.guesser, self.most, self.size = guesser, sizes.guesses, vocab_size
    # Then idle rows and the host's time cost nothing.
    self.free = sizes.steps == 1 and isinstance(guesser, Lookup)
    self.least = PAYS if sizes.steps > 1 else 0
    self.made = self.right = 0
    self._trust = weakref.WeakKeyDictionary()

  def plan(self, groups: Sequence[Group], count: int) -> bool:
    """Gives guesses to rows that would idle in a call with `count` of each group;
    whether there are any."""
    if not self.most:
      return False
    rows = [
      (each, row, room)
      for each in groups
      for row in each.rows
      if (room := self._room(row[0].answers[row[1]], count - len(each.rows))) > 0
    ]
    wanted = [(prompt.answers[number], room) for _, (prompt, number), room in rows]
    found = self.guesser(wanted) if wanted else []
    for (each, row, room), (answer, _), tokens in zip(rows, wanted, found):
      if kept := self._sound(answer, tokens[:room]):
        each.guesses[row] = kept
    gains = [self._share(each, count - len(each.rows)) for each in groups]
    if sum(gains) < self.least * sum(len(each.rows) for each in groups):
      for each in groups:
        each.guesses = {}
    return any(each.guesses for each in groups)

  def _room(self, answer, idle):
    """How many guesses an answer may get, of `idle` rows."""
    trust = self._trust.setdefault(answer, _Trust())
    if answer.bound:
      return 0
    if trust.pause and not self.free:
      trust.pause -= 1
      return 0
    return min(self.most, idle, answer.left - 1)

  def _sound(self, answer, tokens):
    """Tokens up to one that is none, or that would end the answer."""
    kept = []
    for token in tokens:
      if not 0 <= token < self.size or token in answer.request.stop_ids:
        break
      kept.append(int(token))
    return kept

  def _share(self, group, idle):
    """Leaves the guesses of a group that are most likely right, one for each idle row;
    how many of them should be."""
    given = list(group.guesses.items())
    chances = sorted(
      (-(self._trust[prompt.answers[number]].share ** (i + 1)), n, i)
      for n, ((prompt, number), tokens) in enumerate(given)
      for i in range(len(tokens))
    )[:idle]
    # Those that come first are likelier, so that a beginning is left.
    left = collections.Counter(n for _, n, _ in chances)
    group.guesses = {
      row: given[n][1][: left[n]] for n, (row, _) in enumerate(given) if left[n]
    }
    return -sum(chance for chance, _, _ in chances)

  def learn(self, answer: Answer, made: int, right: int) -> None:
    """`right` of `made` guesses for an answer were right."""
    self.made += made
    self.right += right
    self._trust[answer].learn(made, right)
