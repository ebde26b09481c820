"""Which dialogs are kept (4.2.3): cleaned, good by one of two signals, not twice."""

import dataclasses
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

from llama3_jax.base.errors import UserError
from llama3_jax.post.quality import cleaning
from llama3_jax.post.quality import semantic


@dataclasses.dataclass(frozen=True)
class Limits:
  """What is kept.

  Attributes:
    apologies: share of the answers that may begin with an apology.
    top: share of the dialogs with the highest rewards, one of the two signals of
      quality; without rewards, with the highest scores of the judge.
    cosine: dialogs at least as near to a better one are dropped; above 1: none.
  """

  apologies: float = 0.02
  top: float = 0.25
  cosine: float = 0.95

  def __post_init__(self) -> None:
    for name in ('apologies', 'top'):
      if not 0 <= getattr(self, name) <= 1:
        raise UserError(f'limits.{name}={getattr(self, name)}: a share from 0 to 1')


@dataclasses.dataclass(frozen=True)
class Signals:
  """What is known of N dialogs, each [N] or None.

  rewards: of the last answers; judged: numbers of labels of quality, of which `best` is
  the highest; difficulty: numbers of labels; scores: of quality by the judge; topics:
  names; vectors [N,D]: what they mean.
  """

  rewards: np.ndarray | None = None
  judged: np.ndarray | None = None
  best: int = 2
  scores: np.ndarray | None = None
  difficulty: np.ndarray | None = None
  topics: Sequence[str] | None = None
  vectors: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Pruned:
  """reasons: of each dialog, '' where it is kept; value: quality x difficulty, by which
  the better of two is told; near, cosine: as semantic.nearest; bar: the reward from
  which on a dialog is in the top share."""

  reasons: list[str]
  value: np.ndarray
  near: np.ndarray
  cosine: np.ndarray
  bar: float


def prune(signals: Signals, limits: Limits, seed: int = 0) -> Pruned:
  """Drops what is good by no signal of quality, then what means the same as a better
  one. Without a signal nothing is dropped for it."""
  count = _count(signals)
  good, bar = _good(signals, limits, count)
  value = _value(signals, count)
  near, cosine = np.full(count, -1), np.full(count, -1.0)
  left = np.flatnonzero(good)
  if signals.vectors is not None and len(left):
    found, cosines = semantic.nearest(
      signals.vectors[left], value[left], limits.cosine, seed
    )
    near[left], cosine[left] = np.where(found < 0, -1, left[found]), cosines
  reasons = [
    'quality' if not good[i] else 'duplicate' if cosine[i] >= limits.cosine else ''
    for i in range(count)
  ]
  return Pruned(reasons, value, near, cosine, bar)


def _count(signals):
  given = [getattr(signals, f.name) for f in dataclasses.fields(signals)]
  return next(len(x) for x in given if x is not None and not isinstance(x, int))


def _good(signals, limits, count):
  """(bool [N], reward of the limit): in the top share by reward, or best by the judge:
  the two disagree often, and together they miss least."""
  signs, bar = [], -np.inf
  if signals.rewards is not None:
    bar = float(np.quantile(signals.rewards, 1 - limits.top)) if count else bar
    signs.append(signals.rewards >= bar)
  if signals.judged is not None:
    signs.append(signals.judged >= signals.best)
  if signals.rewards is None and signals.scores is not None:
    # Alone, a judge that seldom gives the best label would leave too little.
    signs.append(signals.scores >= np.quantile(signals.scores, 1 - limits.top))
  return (np.any(signs, 0) if signs else np.ones(count, bool)), bar


def _value(signals, count):
  """Quality x difficulty, both from above 0: ranks of the rewards, or the judge's."""
  quality = np.ones(count)
  if signals.rewards is not None:
    quality = (1 + np.argsort(np.argsort(signals.rewards))) / count
  elif signals.scores is not None:
    quality = 1 + signals.scores
  hard = 0 if signals.difficulty is None else signals.difficulty
  return quality * (1 + hard)


def cleaned(
  rows: Sequence[Mapping], limits: Limits
) -> tuple[list[dict], dict[str, int]]:
  """SFT rows whose last answers went through the rules, and {rule: how many changed}.

  An answer that was changed loses the ids it was sampled with.
  """
  texts, counts = cleaning.clean(
    [r['messages'][-1]['content'] for r in rows], limits.apologies
  )
  done = []
  for row, text in zip(rows, texts):
    *before, last = row['messages']
    if text != last['content']:
      last = {k: v for k, v in last.items() if k not in ('ids', 'vocabulary')}
      last['content'] = text
    done.append({**row, 'messages': [*before, last]})
  return done, counts
