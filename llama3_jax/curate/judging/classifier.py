"""Classifiers of documents: their features, and scoring of the linear one (3.1.1).

Both read the hashes of a document's first words. `linear` is fastText's model: the mean
of the vectors of words and pairs of words, then a matrix. It is linear, so scoring
looks up one number a class for every word. `encoder` is a bidirectional Transformer of
the size of a small DistilRoBERTa, for machines with an accelerator. Both are trained in
train_classifier.py.
"""

import dataclasses
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

from llama3_jax.curate.measures.words import MULTIPLIER
from llama3_jax.curate.measures.words import Words

KINDS = ('linear', 'encoder')


@dataclasses.dataclass(frozen=True)
class Config:
  kind: str = 'linear'
  buckets: int = 1 << 18  # of word hashes
  words: int = 512  # of a document that are read
  dim: int = 16  # of a word's vector; the encoder needs 128
  layers: int = 2  # of the encoder, and its heads
  heads: int = 4
  steps: int = 400
  batch: int = 128
  lr: float = 0.02  # the encoder needs 1e-3
  seed: int = 0


def features(
  words: Words, rows: Sequence[int] | np.ndarray, config: Config
) -> tuple[np.ndarray, np.ndarray]:
  """Hashed words, and pairs of words for the linear model, of some documents.

  Args:
    words: words.Words of a batch.
    rows: int [n], documents of it.

  Returns:
    (ids int32 [total], offsets int64 [n + 1]).
  """
  mask = np.uint64(config.buckets - 1)
  parts = []
  for row in rows:
    first = words.first[row]
    hashes = words.hashes[first : min(words.first[row + 1], first + config.words)]
    if config.kind == 'linear' and len(hashes) > 1:
      pairs = hashes[:-1] * MULTIPLIER + hashes[1:]
      hashes = np.concatenate([hashes, pairs])
    parts.append(((hashes >> np.uint64(20)) & mask).astype(np.int32))
  offsets = np.concatenate([[0], np.cumsum([len(p) for p in parts])]).astype(np.int64)
  return np.concatenate([np.zeros(0, np.int32), *parts]), offsets


def padded(ids: np.ndarray, offsets: np.ndarray, config: Config) -> np.ndarray:
  """int32 [n, width] of ragged features, -1 where a document ends."""
  width = 2 * config.words if config.kind == 'linear' else config.words
  result = np.full((len(offsets) - 1, width), -1, np.int32)
  for i, row in enumerate(result):
    part = ids[offsets[i] : offsets[i + 1]][:width]
    row[: len(part)] = part
  return result


def score(
  params: Mapping[str, np.ndarray], ids: np.ndarray, offsets: np.ndarray
) -> np.ndarray:
  """np.float32 [n, classes]: probabilities of the linear model; ragged features."""
  # Sums between offsets as differences of a running sum: empty documents get the bias.
  table = params['table']
  running = np.zeros((len(ids) + 1, table.shape[1]))
  np.cumsum(table[ids], axis=0, dtype=np.float64, out=running[1:])
  count = np.maximum(np.diff(offsets), 1)[:, None]
  scores = (running[offsets[1:]] - running[offsets[:-1]]) / count + params['bias']
  scores = np.exp(scores - scores.max(1, keepdims=True))
  return (scores / scores.sum(1, keepdims=True)).astype(np.float32)


def auc(
  scores: Sequence[float] | np.ndarray, positive: Sequence[bool] | np.ndarray
) -> float:
  """Probability that a positive scores above a negative; nan with one class only."""
  positive = np.asarray(positive, bool)
  n, m = positive.sum(), (~positive).sum()
  if not n or not m:
    return float('nan')
  # Equal scores share their mean rank. (scipy.stats takes a second to import.)
  _, inverse, count = np.unique(scores, return_inverse=True, return_counts=True)
  ranks = (np.cumsum(count) - (count - 1) / 2)[inverse]
  return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * m))
