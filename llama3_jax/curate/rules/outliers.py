"""Documents with too many outlier tokens (3.1.1), corrected for their length.

The divergence of `unigram` falls with the length of a document. So it is compared with
the center and spread of the documents of its language and length: a z-score, by which
the highest percent of a language is dropped. A chapter of mathematics has words of its
own as well, but in sentences of the language's frequent words: such a text stays. The
data are kept in histograms, whose size does not depend on the number of documents.
"""

import dataclasses
from collections.abc import Iterable
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from llama3_jax.curate.machine import documents
from llama3_jax.curate.measures import unigram
from llama3_jax.curate.measures import words as texts
from llama3_jax.curate.rules import allowance

COLUMN = 'outlier.kl'
MEASURED = ('c4.sentences', 'gopher.words', unigram.FREQUENT)
SENTENCE_WORDS = 60
OCTAVE = 16  # bins of length in a doubling
BINS = 28 * OCTAVE
CELLS = 256  # of the histogram in a nat
MOST = 40 * CELLS
SCHEMA = pa.schema(
  [
    ('key', pa.uint64()),
    ('lang', pa.string()),
    ('bin', pa.int32()),
    ('cell', pa.int32()),
    ('count', pa.int64()),
  ]
)


@dataclasses.dataclass(frozen=True)
class Config:
  """Which documents are outliers.

  Attributes:
    percentile: of a language's z-scores; documents above it are dropped.
    frequent_share: a text of sentences stays when so much of it is frequent words of
      its language; 1: it is judged as others are.
    min_documents: of a language; of fewer, which give no distribution, none is dropped.
    pool: documents that a center and a spread are taken from at least; sparse lengths
      borrow from their neighbours.
  """

  percentile: float = 99.0
  frequent_share: float = 0.2
  min_documents: int = 100
  pool: int = 50


def emit(batches: Iterable[pa.RecordBatch], config: Config) -> dict[str, pa.Table]:
  """{'keys': (key, lang, bin, cell, count)}: histograms of a shard."""
  counts = {}
  for batch in batches:
    rows = documents.alive(batch)
    bins, cells, known = _cells(batch, rows)
    languages = documents.take(batch, 'lang', rows)
    for i in np.flatnonzero(known).tolist():
      entry = (languages[i] or '', int(bins[i]), int(cells[i]))
      counts[entry] = counts.get(entry, 0) + 1
  if not counts:
    return {'keys': SCHEMA.empty_table()}
  entries = sorted(counts)
  langs, bins, cells = zip(*entries)
  hashes = {lang: xxhash.xxh3_64_intdigest(lang.encode()) for lang in set(langs)}
  cell_index = np.array(bins, np.uint64) * np.uint64(MOST) + np.array(cells, np.uint64)
  key = texts.mixed(np.array([hashes[lang] for lang in langs], np.uint64) ^ cell_index)
  count = [counts[entry] for entry in entries]
  return {'keys': pa.table([key, langs, bins, cells, count], schema=SCHEMA)}


def reduce(rows: pa.Table, config: Config) -> pa.Table:
  """Table (lang, bin, cell, count) of the whole corpus."""
  return unigram.totals(rows)


def resolve(
  reduced: Iterable[pa.Table], sides: Iterable[pa.Table], config: Config
) -> dict[str, np.ndarray]:
  """State: langs, sorted [n]; center and spread [n, BINS]; limit [n], a z-score."""
  rows = [t for t in reduced if len(t)]
  langs = sorted({lang for t in rows for lang in t['lang'].unique().to_pylist()})
  center = np.zeros((len(langs), BINS))
  spread, limit = np.ones((len(langs), BINS)), np.full(len(langs), np.inf)
  for i, lang in enumerate(langs):
    parts = [t.filter(pc.equal(t['lang'], lang)) for t in rows]
    bins, cells, count = (
      np.concatenate([t[name].to_numpy() for t in parts])
      for name in ('bin', 'cell', 'count')
    )
    center[i], spread[i] = _moments(bins, (cells + 0.5) / CELLS, count, config.pool)
    if count.sum() >= config.min_documents:
      # The upper edge, so that a document at the limit stays.
      z = ((cells + 1) / CELLS - center[i, bins]) / spread[i, bins]
      limit[i] = _percentile(z, count, config.percentile)
  names = np.array(langs, np.str_)
  return {'langs': names, 'center': center, 'spread': spread, 'limit': limit}


def step(
  batch: pa.RecordBatch, config: Config, state: Mapping[str, np.ndarray]
) -> pa.RecordBatch:
  """Adds COLUMN (float32, the z-score) and drops by it, as 'outlier.kl'."""
  rows = documents.alive(batch)
  bins, _, known = _cells(batch, rows)
  index = {lang: i for i, lang in enumerate(state['langs'].tolist())}
  names = documents.take(batch, 'lang', rows)
  lang = np.array([index.get(name or '', -1) for name in names], np.int64)
  known &= lang >= 0
  rows, bins, lang = rows[known], bins[known], lang[known]
  value = documents.floats(batch, unigram.DIVERGENCE)[rows].astype(np.float64)
  z = (value - state['center'][lang, bins]) / state['spread'][lang, bins]
  column = np.zeros(batch.num_rows, np.float32)
  column[rows] = z
  missing = np.ones(batch.num_rows, bool)
  missing[rows] = False
  batch = documents.put_floats(batch, COLUMN, column, missing)
  gone = z > state['limit'][lang]
  gone &= ~_sentences(batch, config.frequent_share)[rows]
  pairs = zip(rows[gone].tolist(), z[gone].tolist())
  return documents.drop(batch, {row: ('outlier.kl', value) for row, value in pairs})


def _sentences(batch, share):
  """bool [documents]: whether it is a text of the language; False if not measured."""
  if not {*MEASURED} <= {*batch.schema.names}:
    return np.zeros(batch.num_rows, bool)
  count, size, frequent = (documents.floats(batch, name) for name in MEASURED)
  return allowance.of_sentences(count, size, SENTENCE_WORDS) & (frequent >= share)


def _cells(batch, rows):
  """(bin of length, cell of divergence, whether measured) of the documents `rows`."""
  value = documents.floats(batch, unigram.DIVERGENCE)[rows]
  tokens = documents.floats(batch, unigram.TOKENS)[rows]
  known = np.isfinite(value) & (tokens > 0)
  value, tokens = np.where(known, value, 0), np.where(known, tokens, 1)
  bins = np.minimum(np.floor(OCTAVE * np.log2(tokens)), BINS - 1).astype(np.int64)
  cells = np.clip(np.floor(value * CELLS), 0, MOST - 1).astype(np.int64)
  return bins, cells, known


def _moments(bins, value, count, pool):
  """(center, spread) float64 [BINS], of each bin and the neighbours that it needs.

  The median and 1.4826 times the median distance from it, which are the mean and the
  standard deviation of a normal distribution: outliers of one length do not hide each
  other. Distances are from the center of a document's own bin, so that the fall from
  bin to bin is not part of the spread.
  """
  center = _pooled(bins, value, count, pool)
  spread = 1.4826 * _pooled(bins, np.abs(value - center[bins]), count, pool)
  return center, np.maximum(spread, 1 / CELLS)


def _pooled(bins, value, count, pool):
  """float64 [BINS]: medians over a bin and as many on both sides as hold `pool`."""
  order = np.argsort(bins, kind='stable')
  value, count = value[order], count[order]
  first = np.searchsorted(bins[order], np.arange(BINS + 1))
  edges = np.append(0, np.cumsum(count))[first]
  result = np.zeros(BINS)
  for i in np.unique(bins).tolist():  # the lengths that occur
    reach = 0
    while True:
      low, high = max(i - reach, 0), min(i + reach + 1, BINS)
      if edges[high] - edges[low] >= min(pool, edges[-1]):
        break
      reach += 1
    part = slice(first[low], first[high])
    result[i] = _percentile(value[part], count[part], 50)
  return result


def _percentile(values, count, percentile):
  """The least value that is not below so many percent of the counted values."""
  order = np.argsort(values, kind='stable')
  below = np.cumsum(count[order])
  i = np.searchsorted(below, below[-1] * percentile / 100 * (1 - 1e-12))
  return values[order[min(i, len(order) - 1)]]
