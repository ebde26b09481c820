"""Contamination: questions that lie in the training data, and what they give (5.1.4).

A question is contaminated above a threshold T of its words that lie in an 8-gram of
the training data (Singh et al. 2024). The estimated gain of a model is its score on all
questions less that on clean ones; of all thresholds, that with the largest significant
gain over several models is taken. Significance is that of the best of all thresholds.
"""

import itertools
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

from llama3_jax.curate.measures import folded
from llama3_jax.curate.rules import exclude

GRAM = 8  # words
BATCH = 2000  # documents that are read at a time
THRESHOLDS = tuple(round(0.05 * i, 2) for i in range(20))  # 0: a single 8-gram is one
LEVEL = 0.05  # of chance, below which a gain is significant
PERMUTATIONS = 2000
LEAST = 10  # clean questions, of a gain that is estimated


def shares(
  questions: Sequence[str], documents: Iterable[str], gram: int = GRAM
) -> np.ndarray:
  """Share of each question's words that lie in an n-gram of a document, float64 [n].

  The documents are read once, in any number and language; the memory is that of the
  questions. Questions of fewer than `gram` words have no n-gram: 0. What a word is, and
  what makes no difference, follows measures/folded.py.
  """
  asked = folded.of(questions)
  parts = [slice(a, b) for a, b in itertools.pairwise(asked.first)]
  weights = [asked.weights[part] for part in parts]
  grams = [folded.grams(asked.hashes[p], w, gram) for p, w in zip(parts, weights)]
  known = np.unique(np.concatenate([np.zeros(0, np.uint64), *(g for g, _ in grams)]))
  sieve = exclude.sieve(known)
  found = np.zeros(len(known), bool)
  stream = iter(documents)
  while batch := list(itertools.islice(stream, BATCH)):
    seen, _ = exclude.matches(folded.of(batch), gram, sieve)
    at = np.minimum(np.searchsorted(known, seen), max(len(known) - 1, 0))
    if len(known) and len(seen):
      found[at[known[at] == seen]] = True
  return np.array([_covered(*g, w, known, found) for g, w in zip(grams, weights)])


def _covered(grams, end, weights, known, found):
  """Share of words that lie in an n-gram that was found; `end` is that of each."""
  if not len(grams):
    return 0.0
  end = np.append(end[:-1], len(weights))  # less than a word may be left over
  starts = np.flatnonzero(found[np.searchsorted(known, grams)])
  edges = np.zeros(len(weights) + 1, int)
  np.add.at(edges, starts, 1)
  np.add.at(edges, end[starts], -1)
  return float(weights[np.cumsum(edges)[:-1] > 0].sum() / weights.sum())


def gain(scores: Sequence[float], clean: np.ndarray) -> dict | None:
  """{'gain', 'z', 'clean' (score)} of a model; None with too few clean questions.

  gain: mean score of all less that of the clean. z: in standard errors of the mean of
  so many questions drawn from all without replacement, whatever they are.
  """
  scores = np.asarray(scores, float)
  n, kept = len(scores), int(clean.sum())
  if kept < LEAST:
    return None
  difference = scores.mean() - scores[clean].mean()
  spread = scores.std(ddof=1) * np.sqrt((1 - kept / n) / kept)
  z = float(difference / spread) if spread > 0 else 0.0
  return {'gain': float(difference), 'z': z, 'clean': float(scores[clean].mean())}


def sweep(
  shared: np.ndarray,
  scores: Mapping[str, Sequence[float]],
  thresholds: Sequence[float] = THRESHOLDS,
  seed: int = 0,
) -> dict:
  """Gains of all models at each threshold, and the threshold that is taken.

  shared: of `shares`; scores: {model: score of each question}. Returns {'thresholds':
  [{'threshold', 'contaminated' (share), 'gains': {model: gain}, 'p'}], 'chosen': the
  one with the largest gain of any model among those whose gains are significant, or
  None}. p: how often the best threshold of shares that belong to other questions has
  so high a mean z of the models; None where no gain can be estimated.
  """
  shared, values = np.asarray(shared), np.array([*scores.values()], float)
  best = _permuted(shared, values, thresholds, np.random.default_rng(seed))
  rows = []
  for threshold in thresholds:
    clean = shared <= threshold
    gains = {model: gain(row, clean) for model, row in scores.items()}
    share = float(1 - clean.mean()) if len(clean) else 0.0
    p = None
    if share and all(gains.values()):
      z = np.mean([g['z'] for g in gains.values()])
      p = float((1 + (best >= z - 1e-9).sum()) / (1 + len(best)))
    row = {'threshold': threshold, 'contaminated': share, 'gains': gains, 'p': p}
    rows.append(row)
  real = [row for row in rows if row['p'] is not None and row['p'] < LEVEL]
  most = lambda row: max(g['gain'] for g in row['gains'].values())
  return {'thresholds': rows, 'chosen': max(real, key=most, default=None)}


def _permuted(shared, values, thresholds, rng):
  """float64 [PERMUTATIONS]: highest mean z of all thresholds, shares dealt out anew.

  The questions of all models are dealt alike, so models that answer alike are no more
  evidence than one; and since the highest counts, 20 thresholds are no more chances.
  """
  kept = np.unique([(shared <= t).sum() for t in thresholds])
  n = values.shape[-1]
  kept = kept[(kept >= LEAST) & (kept < n)]
  if not len(values) or not len(kept):
    return np.zeros(PERMUTATIONS)
  spread = values.std(1, ddof=1)[:, None] * np.sqrt((1 - kept / n) / kept)
  mean, best = values.mean(1, keepdims=True), []
  for _ in range(PERMUTATIONS):
    clean = np.cumsum(values[:, rng.permutation(n)], 1)[:, kept - 1] / kept
    z = np.divide(mean - clean, spread, out=np.zeros_like(clean), where=spread > 0)
    best.append(z.mean(0).max())
  return np.array(best)
