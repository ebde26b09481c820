"""Ratings of two answers on the paper's seven points (5.3), of people and of judges.

A rater is to a Rating what an annotator (post/annotators.py) is to a Verdict; it may
say that both answers are about the same.
"""

import collections
import dataclasses
import re
from collections.abc import Callable
from collections.abc import Sequence

from llama3_jax.post import annotators
from llama3_jax.post.annotators import Annotator
from llama3_jax.post.annotators import Question
from llama3_jax.post.annotators import Verdict
from llama3_jax.text import chat

# Of the first answer against the second, 1 to 7.
SCALE = (
  *('much better', 'better', 'slightly better', 'about the same'),
  *('slightly worse', 'worse', 'much worse'),
)
SAME = 4
TEMPLATE = f"""{annotators.SHOWN}, and how much better it is, a number from 1 \
(slightly) to 3 (much), such as A2; or 0 where they are about the same. Write nothing \
else."""
REPLY = re.compile(r'\W*(?:([AB])[\s:=-]*([1-3])|[AB]?[\s:=-]*0|(?i:same))\W*')


@dataclasses.dataclass(frozen=True)
class Rating:
  """point: 1 to 7, of SCALE; both: the points of a judge that saw the first answer
  first, and then second, both of the first answer; edited: better than both."""

  point: int
  both: tuple[int, ...] = ()
  edited: chat.Message | None = None


Rater = Callable[[Sequence[Question]], list[Rating | None]]


def turned(point: int) -> int:
  """The point of the second answer against the first."""
  return 2 * SAME - point


def judge(
  ask: Callable[[Sequence[str]], Sequence[str]],
  template: str = TEMPLATE,
  counts: collections.Counter | None = None,
) -> Rater:
  """Of a model that writes its rating: ask(texts) -> replies, of each pair in both
  orders. The rating is the milder of the two; where they prefer different answers, or
  one of them prefers none, it is 'about the same'.

  counts: takes how many were 'asked', 'nonsense' (None) and 'contradicted': the order
  decided which answer is better.
  """
  counts = collections.Counter() if counts is None else counts
  annotators.checked(template)

  def rate(questions):
    points = [_point(text) for text in ask(annotators.both(template, questions))]
    counts['asked'] += len(questions)
    return [
      _milder(first, second, counts)
      for first, second in zip(points[::2], points[1::2], strict=True)
    ]

  return rate


def _milder(first, second, counts):
  """The Rating of the points that a judge gave to what it was shown first."""
  if first is None or second is None:
    counts['nonsense'] += 1
    return None
  both = first, turned(second)
  sides = [point - SAME for point in both]
  counts['contradicted'] += sides[0] * sides[1] < 0
  agree = sides[0] * sides[1] > 0
  return Rating(SAME + (min(sides, key=abs) if agree else 0), both)


def _point(text):
  """The point of a reply, of the answer that was shown first; None: it is no rating."""
  found = REPLY.fullmatch(text.strip())
  if found is None:
    return None
  much = int(found[2] or 0)
  return SAME + (much if found[1] == 'B' else -much)


def of(annotate: Annotator) -> Rater:
  """A rater of an annotator. Marginally better is about the same: so four strengths of
  either side are seven points."""

  def one(verdict):
    if verdict is None:
      return None
    away = verdict.strength - 1
    point = SAME + (away if verdict.best else -away)
    return Rating(point, edited=verdict.edited)

  return lambda questions: [one(verdict) for verdict in annotate(questions)]


def verdict(rating: Rating | None) -> Verdict | None:
  """Which answer is better by a rating; None where they are about the same."""
  if rating is None or rating.point == SAME:
    return None
  away = rating.point - SAME
  return Verdict(int(away > 0), 1 + abs(away), rating.edited)


def row(
  question: Question, rating: Rating, rater: str, swapped: bool | None = None
) -> dict:
  """The row of a rating, as the recipe `pairwise` reads it.

  swapped: whether the second answer was shown first; None: both were, or nobody knows.
  """
  made = {
    'id': question.id,
    'prompt': [chat.fields(m) for m in question.prompt],
    'responses': [chat.fields(m) for m in question.answers],
    'models': list(question.models),
    'rating': rating.point,
    'rater': rater,
    'category': question.category,
    'subcategory': question.subcategory,
    'both': list(rating.both),
    'swapped': swapped,
  }
  return {name: value for name, value in made.items() if value not in ('', [], None)}
