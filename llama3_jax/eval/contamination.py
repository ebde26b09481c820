"""Contamination: questions that lie in the training data, and what they give (5.1.4).

A question is contaminated above a threshold T of its words that lie in an 8-gram of
the training data (Singh et al. 2024). The estimated gain of a model is its score on all
questions less that on clean ones; of all thresholds, that with the largest significant
gain over several models is taken.
"""

import itertools
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

from llama3_jax.curate.measures import words
from llama3_jax.curate.rules import exclude
from llama3_jax.curate.rules import normal

GRAM = 8  # words
BATCH = 2000  # documents that are read at a time
THRESHOLDS = tuple(round(0.05 * i, 2) for i in range(20))  # 0: a single 8-gram is one
Z = 1.96  # of a gain that is significant
LEAST = 10  # clean questions, of a gain that is estimated


def shares(
  questions: Sequence[str],
  documents: Iterable[str],
  gram: int = GRAM,
  language: str = '',
) -> np.ndarray:
  """Share of each question's words that lie in an n-gram of a document, float64 [n].

  The documents are read once, in any number; the memory is that of the questions.
  Questions of fewer than `gram` words have no n-gram: 0. language: of words.UNSPACED,
  in which both are split; '': by spaces.
  """
  asked = words.of([normal.nfc(q) for q in questions], language)
  parts = [asked.hashes[a:b] for a, b in itertools.pairwise(asked.first)]
  size = gram * int(asked.scale[0]) if len(questions) else gram
  grams = [exclude.ngrams(part, size) for part in parts]
  known = np.unique(np.concatenate([np.zeros(0, np.uint64), *grams]))
  mask = np.zeros(max(exclude.FILTER, 1 << (16 * len(known)).bit_length()), bool)
  mask[known & np.uint64(len(mask) - 1)] = True
  found = np.zeros(len(known), bool)
  stream = iter(documents)
  while batch := list(itertools.islice(stream, BATCH)):
    read = words.of([normal.nfc(text) for text in batch], language)
    seen, _ = exclude.matches(read.hashes, read.first, read.scale, gram, mask)
    at = np.minimum(np.searchsorted(known, seen), max(len(known) - 1, 0))
    if len(known) and len(seen):
      found[at[known[at] == seen]] = True
  return np.array([_covered(g, p, known, found, size) for g, p in zip(grams, parts)])


def _covered(grams, part, known, found, size):
  """Share of words that lie in a run of `size` words that was found."""
  if not len(grams):
    return 0.0
  present = found[np.searchsorted(known, grams)]
  ends = np.zeros(len(part) + 1, int)
  starts = np.flatnonzero(present)
  np.add.at(ends, starts, 1)
  np.add.at(ends, starts + size, -1)
  return float((np.cumsum(ends)[:-1] > 0).mean())


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
) -> dict:
  """Gains of all models at each threshold, and the threshold that is taken.

  shared: of `shares`; scores: {model: score of each question}. Returns {'thresholds':
  [{'threshold', 'contaminated' (share), 'gains': {model: gain}}], 'chosen': the one
  with the largest gain of any model among those whose gains are significant, or None}.
  """
  rows = []
  for threshold in thresholds:
    clean = shared <= threshold
    gains = {model: gain(values, clean) for model, values in scores.items()}
    share = float(1 - clean.mean()) if len(clean) else 0.0
    rows.append({'threshold': threshold, 'contaminated': share, 'gains': gains})
  known = [row for row in rows if row['contaminated'] and all(row['gains'].values())]
  real = [row for row in known if _significant(row['gains'])]
  most = lambda row: max(g['gain'] for g in row['gains'].values())
  return {'thresholds': rows, 'chosen': max(real, key=most, default=None)}


def _significant(gains):
  """Whether the mean z of the models is that of a gain. Their questions are the same,
  so several models are no more evidence than one."""
  return np.mean([g['z'] for g in gains.values()]) > Z
