"""Ratings of two models' answers on seven points, as rows of files (5.3).

A row is {"id" or "prompt", "models": [A, B], "rating": 1 to 7 or its words, "rater",
"category", "subcategory", "responses": [of A, of B]}: what `annotate` writes with
scale=7. Tables of texts have model_a and model_b in the place of models.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from collections.abc import Sequence

from llama3_jax.base import jsonl
from llama3_jax.base import rows
from llama3_jax.base.errors import UserError
from llama3_jax.post import formats
from llama3_jax.post import ratings
from llama3_jax.post import selection

BAD = 'not readable as a rating'
NONE = 'without a rating'
OTHER = 'of a model that is not in models'
SELF = 'of one model against itself'
TWICE = 'rated again by the same rater'
REASONS = (BAD, NONE, OTHER, SELF, TWICE)
FIELDS = ('id', 'prompt', 'models', 'model_a', 'model_b', 'rating', 'rater', 'category')
FIELDS += ('subcategory', 'responses', 'swapped', 'both', 'source', 'metadata')
WORDS = {text: point for point, text in enumerate(ratings.SCALE, 1)}


@dataclasses.dataclass(frozen=True)
class Rated:
  """A rating of two models, in the order of their names.

  prompt: what intervals are drawn over; item: what raters agree or disagree on.
  point: 1 to 7, of the first model; seen: points of the answer that was shown first,
  one of each showing; () where nobody wrote it down.
  """

  prompt: str
  item: str
  models: tuple[str, str]
  point: int
  rater: str
  category: str = ''
  subcategory: str = ''
  seen: tuple[int, ...] = ()
  row: Mapping = dataclasses.field(default_factory=dict, compare=False, repr=False)


def read(
  paths: Sequence[str | os.PathLike], models: Sequence[str] = (), field: str = 'files'
) -> tuple[list[Rated], selection.Left]:
  """The ratings of files, and the rows that were left out, by REASONS.

  models: whose ratings are taken, () all. Of several ratings of an item by one rater
  the first counts. Raises UserError for a file that cannot be read, where no row of all
  is a rating, and for a name of models that no row has.
  """
  left, found, places = selection.Left(), [], {}
  for path in paths:
    given = rows.read(path, field, lambda error: left.add(BAD, str(error)))
    for where, row in given:
      try:
        one = parse(row, where, pathlib.Path(path).stem)
      except UserError as error:
        left.add(BAD, str(error))
        continue
      if (reason := _reason(one, row, models)) is not None:
        left.add(reason[0], f'{where}: {reason[1]}')
        continue
      key = one.rater, one.item, one.models
      if key in places:
        left.add(TWICE, f'{where}: {one.rater!r} rated it in {places[key]}')
        continue
      places[key] = where
      found.append(one)
  if not found:
    first = next((place for r in REASONS for place in left.named(r)), 'no rows')
    raise UserError(f'{field}: no row is a rating of two models ({first})')
  names = sorted({name for one in found for name in one.models})
  if absent := [name for name in models if name not in names]:
    raise UserError(f'models: {absent[0]!r} is in no row: there are {", ".join(names)}')
  return found, left


def _reason(one, row, models):
  """(reason, words) why a row is not taken; None where it is."""
  if one is None:
    return NONE, f'rating is {json.dumps(row.get("rating"))}'
  if one.models[0] == one.models[1]:
    return SELF, f'{one.models[0]!r}'
  other = [name for name in one.models if models and name not in models]
  return (OTHER, ', '.join(map(repr, other))) if other else None


def parse(row: Mapping, where: str, rater: str = 'person') -> Rated | None:
  """The Rated of a row; None where it has no rating. rater: of a row that names none.

  Raises UserError, which begins with `where`, for a row that is none.
  """
  jsonl.known(row, FIELDS, where)
  names = _models(row, where)
  text = _text(row, where)
  if row.get('rating') in (None, ''):
    return None
  point = _point(row['rating'], 'rating', where)
  answers = row.get('responses')
  if answers is not None and (not isinstance(answers, list) or len(answers) != 2):
    raise UserError(f'{where}: responses must be the answers of the two models')
  seen = _seen(row, point, where)
  if names[0] > names[1]:
    names, point = names[::-1], ratings.turned(point)
  name = '' if row.get('id') is None else str(row['id'])
  who, *kinds = (
    _name(row, field, where) for field in ('rater', 'category', 'subcategory')
  )
  prompt = text or name
  return Rated(prompt, name or prompt, names, point, who or rater, *kinds, seen, row)


def _name(row, field, where):
  """A text or a whole number as a text; '' where there is none."""
  value = row.get(field)
  if isinstance(value, int) and not isinstance(value, bool):
    return str(value)
  return '' if value is None else jsonl.text(row, field, where)


def _models(row, where):
  names = row.get('models')
  if names is None and ('model_a' in row or 'model_b' in row):
    names = [row.get('model_a'), row.get('model_b')]
  if (
    not isinstance(names, list | tuple)
    or len(names) != 2
    or not all(isinstance(n, str) and n.strip() for n in names)
  ):
    raise UserError(f'{where}: models must name the two models that are compared')
  return tuple(names)


def _text(row, where):
  """The prompt as a text; '' of a row with an id alone."""
  if row.get('prompt') is None:
    if row.get('id') is None:
      raise UserError(f'{where}: neither id nor prompt: which answers are rated?')
    return ''
  turns = formats.prompt(row['prompt'], where)
  if len(turns) == 1 and turns[0].get('role') == 'user':
    return str(turns[0].get('content', ''))
  return '\n'.join(f'{t.get("role")}: {t.get("content", "")}' for t in turns)


def _point(value, name, where):
  """A point of a number or of the words of the scale."""
  text = str(value).strip()
  if isinstance(value, str) and (found := WORDS.get(' '.join(text.lower().split()))):
    return found
  if not isinstance(value, bool) and text in {str(i) for i in WORDS.values()}:
    return int(text)
  known = ', '.join(WORDS)
  raise UserError(
    f'{where}: {name} is {value!r}: write 1 to {len(WORDS)} of the first of models, or '
    f'one of {known}'
  )


def _seen(row, point, where):
  """Points of the answer that was shown first, one of each showing."""
  if both := row.get('both'):
    if not isinstance(both, list | tuple) or len(both) != 2:
      raise UserError(f'{where}: both must be the two points, of either order')
    first, second = (_point(value, 'both', where) for value in both)
    return first, ratings.turned(second)
  swapped = row.get('swapped')
  swapped = {'true': True, 'false': False}.get(str(swapped).lower(), swapped)
  if swapped in (None, ''):
    return ()
  if not isinstance(swapped, bool):
    raise UserError(f'{where}: swapped is {swapped!r}: write true or false')
  return (ratings.turned(point) if swapped else point,)
