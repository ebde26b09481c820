"""Thresholds on a classifier's score: absolute, and a rank in the language (3.1.1).

The best `keep_share` of each language stays, so that languages are compared with
themselves: scores of one model do not mean the same in two languages.
"""

import collections
import dataclasses
import math
from collections.abc import Iterable
from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from llama3_jax.curate.machine import documents

BINS = 4000
SPAN = 33.0  # of the log-odds: most scores of a good classifier are near 0 or 1


@dataclasses.dataclass(frozen=True)
class Config:
  column: str = 'quality.keep'
  min_score: float = 0.0
  keep_share: float = 1.0  # of the documents of a language
  shares: tuple[tuple[str, float], ...] = ()  # (language, another share)

  @property
  def rule(self) -> str:
    """Reason of the documents that are dropped."""
    return f'{self.column.split(".")[0]}.score'


def emit(batches: Iterable[pa.RecordBatch], config: Config) -> dict[str, pa.Table]:
  """{'side': (lang, bin, count)}: documents of each language and score bin."""
  counts = collections.Counter()
  for batch in batches:
    for lang, score in _scores(batch, config)[1]:
      counts[lang or '', _bin(score)] += 1
  rows = sorted(counts.items())
  return {
    'side': pa.table(
      {
        'lang': pa.array([lang for (lang, _), _ in rows], pa.string()),
        'bin': pa.array([b for (_, b), _ in rows], pa.int32()),
        'count': pa.array([count for _, count in rows], pa.int64()),
      }
    )
  }


def resolve(
  reduced: Iterable[pa.Table], sides: Iterable[pa.Table], config: Config
) -> dict[str, np.ndarray]:
  """State: langs (text), and limits int64, the lowest bin of each that is kept."""
  del reduced
  counts = collections.defaultdict(lambda: np.zeros(BINS, np.int64))
  for side in sides:
    for row in side.to_pylist():
      counts[row['lang']][row['bin']] += row['count']
  shares = dict(config.shares)
  langs, limits = sorted(counts), []
  for lang in langs:
    below = np.cumsum(counts[lang])
    gone = (1 - shares.get(lang, config.keep_share)) * below[-1]
    # The first bin at which more than `gone` documents are at or below.
    limits.append(int(np.searchsorted(below, gone + 1e-9, side='right')))
  return {'langs': np.array(langs, 'U16'), 'limits': np.array(limits, np.int64)}


def step(
  batch: pa.RecordBatch, config: Config, state: Mapping[str, np.ndarray] | None = None
) -> pa.RecordBatch:
  """Drops documents below the score of their language."""
  known = dict(zip(state['langs'].tolist(), state['limits'].tolist())) if state else {}
  drops = {}
  rows, pairs = _scores(batch, config)
  for row, (lang, score) in zip(rows, pairs):
    if score < config.min_score or _bin(score) < known.get(lang or '', 0):
      drops[row] = (config.rule, float(score))
  return documents.drop(batch, drops)


def _bin(score):
  """Number in [0, BINS) of a probability, by its log-odds."""
  if not 0 < score < 1:
    return (BINS - 1) * (score >= 1)
  position = (math.log(score) - math.log1p(-score)) / SPAN + 0.5
  return min(max(int(position * BINS), 0), BINS - 1)


def _scores(batch, config):
  """(positions, (language, score) pairs) of the documents that have a score."""
  if config.column not in batch.schema.names:
    return [], []
  rows = documents.alive(batch)
  langs = documents.take(batch, 'lang', rows)
  scores = documents.take(batch, config.column, rows)
  scored = [(r, (x, s)) for r, x, s in zip(rows, langs, scores) if s is not None]
  return [row for row, _ in scored], [pair for _, pair in scored]
