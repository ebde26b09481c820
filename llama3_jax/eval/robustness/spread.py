"""How much the way of asking moves answers and scores, and how much chance does (5.1).

The same questions are asked in each variant, so variants are compared question by
question. The best and the worst of several variants differ even where nothing does but
chance: how far, is told by mixing the variants of each question.
"""

from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

from llama3_jax.base import confidence
from llama3_jax.eval import paired

DRAWS = 2000
LEVEL = 0.05


def kind(
  names: Sequence[str], picked: np.ndarray, places: np.ndarray, right: np.ndarray
) -> dict:
  """What the variants of a kind say.

  picked: number of the choice that was chosen, int [variants, questions]; places: its
  place in the list; right: number of the right choice, [questions].

  Returns {'variants': {name: {'score', 'n', 'interval', 'same' (share of questions with
  the choice of the first variant), 'paired' (score above the first variant's, of
  paired.difference)}}, 'mean', 'spread' (best less worst), 'deviation' (standard, of
  the scores), 'by_chance', 'p' (of `by_chance`), 'told' (whether variants are told
  apart), 'consistency' (share of questions with one choice in all variants),
  'same_place' (with one place in all), 'guessing' (consistency of independent
  guesses)}.
  """
  scores = (picked == right).astype(float)
  found = {}
  for name, own, chosen in zip(names, scores, picked, strict=True):
    same = float((chosen == picked[0]).mean())
    above = paired.difference({'': scores[0]}, {'': own})
    found[name] = scored(own) | {'same': same, 'paired': above}
  means = scores.mean(1)
  chance, p = by_chance(scores)
  return {
    'variants': found,
    'mean': float(means.mean()),
    'spread': float(np.ptp(means)),
    'deviation': float(means.std()),
    'by_chance': chance,
    'p': p,
    'told': p < LEVEL,
    'consistency': _alike(picked),
    'same_place': _alike(places),
    'guessing': 4.0 ** (1 - len(picked)),
  }


def scored(right: np.ndarray) -> dict:
  """{'score', 'n', 'interval'} of answers that are right (1) or wrong (0)."""
  interval = confidence.of_scores(np.asarray(right, float).tolist())
  return {'score': float(right.mean()), 'n': len(right), 'interval': interval}


def _alike(values):
  """Share of the questions with one value in all variants."""
  return float((values == values[0]).all(0).mean())


def by_chance(
  scores: np.ndarray, seed: int = 0, draws: int = DRAWS
) -> tuple[float, float]:
  """(spread that 95% of draws stay below, p: share with at least the spread that is).

  scores: [variants, questions]. In a draw the scores of each question are dealt to the
  variants anew, which changes nothing where variants are alike.
  """
  rng, spread = np.random.default_rng(seed), lambda rows: np.ptp(rows.sum(1))
  moved = scores[:, scores.min(0) != scores.max(0)]  # the others cannot differ
  drawn = np.array([spread(rng.permuted(moved, axis=0)) for _ in range(draws)])
  p = (1 + (drawn >= spread(moved) - 1e-9).sum()) / (1 + draws)
  return float(np.quantile(drawn, 0.95)) / scores.shape[1], float(p)


def flips(picked: Mapping[str, Mapping[str, int]]) -> int:
  """In how many variants a question has another choice than in most.

  picked: {kind: {name: number of the choice}}.
  """
  every = [number for own in picked.values() for number in own.values()]
  return len(every) - max(map(every.count, every))
