"""Token distributions of each language, and the divergence of a document (3.1.1).

The corpus unigram q of a language is counted first; then every document gets
KL(p || q) = sum p log(p / q) in nats, with p its own shares and q smoothed by `alpha`
counts a token. Tokens are words hashed into buckets, or the ids of a tokenizer. Short
documents have a high divergence for being short: `outliers` corrects for that.
"""

import dataclasses
import functools
import math
from collections.abc import Iterable
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import xxhash

from llama3_jax.curate.machine import compiled
from llama3_jax.curate.machine import documents
from llama3_jax.curate.machine import keys as key_files
from llama3_jax.curate.measures import words as texts
from llama3_jax.text import tokenizer as tokenizers

DIVERGENCE, TOKENS = 'outlier.divergence', 'outlier.tokens'
FREQUENT = 'outlier.frequent'
MOST = 100  # frequent tokens of a language
SCHEMA = pa.schema(
  [
    ('key', pa.uint64()),
    ('lang', pa.string()),
    ('bucket', pa.uint32()),
    ('count', pa.int64()),
  ]
)


@dataclasses.dataclass(frozen=True)
class Config:
  """What is counted.

  Attributes:
    buckets: of hashed words, without a tokenizer.
    tokenizer: path of a vocabulary in Llama 3's format; '' = hashed words.
    alpha: counts that are added to each token of the corpus.
    categories: of documents that are left alone.
    max_characters: of a document that are read.
  """

  buckets: int = 1 << 17
  tokenizer: str = ''
  alpha: float = 1.0
  categories: tuple[str, ...] = ('code',)
  max_characters: int = 1_000_000


def emit(batches: Iterable[pa.RecordBatch], config: Config) -> dict[str, pa.Table]:
  """{'keys': (key, lang, bucket, count)}: tokens of a shard by language."""
  totals = {}
  for batch in batches:
    first, ids = _tokens(batch, config)
    languages = batch['lang'].to_pylist()
    size = vocabulary(config)
    for row in np.flatnonzero(np.diff(first)):
      lang = languages[row] or ''
      if lang not in totals:
        totals[lang] = np.zeros(size, np.int64)
      _add(ids[first[row] : first[row + 1]], totals[lang])
  parts = []
  for lang in sorted(totals):
    buckets = np.flatnonzero(totals[lang])
    key = texts.mixed(_hash(lang) ^ buckets.astype(np.uint64))
    count = totals[lang][buckets]
    names = pa.array([lang] * len(buckets))
    parts.append(pa.table([key, names, buckets.astype(np.uint32), count], SCHEMA))
  return {'keys': pa.concat_tables(parts) if parts else SCHEMA.empty_table()}


def reduce(rows: pa.Table, config: Config) -> pa.Table:
  """Table (lang, bucket, count) of the whole corpus."""
  return totals(rows)


def resolve(
  reduced: Iterable[pa.Table], sides: Iterable[pa.Table], config: Config
) -> dict[str, np.ndarray]:
  """State: langs, sorted [n]; counts, int64, and most (is MOST), bool [n, buckets]."""
  tables = list(reduced)
  langs = sorted({lang for t in tables for lang in t['lang'].unique().to_pylist()})
  counts = np.zeros((len(langs), vocabulary(config)), np.int64)
  for table in tables:
    row = np.searchsorted(langs, table['lang'].to_pylist()) if len(table) else []
    counts[row, table['bucket'].to_numpy()] = table['count'].to_numpy()
  return {'langs': np.array(langs, np.str_), 'counts': counts, 'most': _most(counts)}


def step(
  batch: pa.RecordBatch, config: Config, state: Mapping[str, np.ndarray]
) -> pa.RecordBatch:
  """Adds DIVERGENCE (float32, nats), TOKENS and FREQUENT (float32); drops nothing.

  FREQUENT is the share of the tokens that are among the MOST frequent of the language.
  """
  first, ids = _tokens(batch, config)
  index = {lang: i for i, lang in enumerate(state['langs'].tolist())}
  names = batch['lang'].to_pylist()
  rows = np.array([index.get(lang or '', -1) for lang in names], np.int64)
  result, frequent = np.zeros(batch.num_rows), np.zeros(batch.num_rows)
  counts = state['counts']
  if len(counts):
    sums = counts.sum(1) + config.alpha * counts.shape[1]
    _divergence(ids, first, rows, counts, config.alpha, sums, result)
    _frequent(ids, first, rows, state['most'], frequent)
  missing = (np.diff(first) == 0) | (rows < 0)
  batch = documents.put_floats(batch, DIVERGENCE, result.astype(np.float32), missing)
  batch = documents.put_floats(batch, FREQUENT, frequent.astype(np.float32), missing)
  return documents.put_floats(batch, TOKENS, np.diff(first).astype(np.float32), missing)


def totals(rows: pa.Table) -> pa.Table:
  """Rows of equal keys as one row with the sum of `count`.

  The other columns are those of the first row of a key.
  """
  _, order, first = key_files.ordered(rows)
  count = rows['count'].to_numpy()[order]
  count = np.add.reduceat(count, first) if len(first) else count
  table = rows.drop_columns(['key', 'count']).take(pa.array(order[first]))
  return table.append_column('count', pa.array(count))


def _tokens(batch, config):
  """(first int64 [documents + 1], bucket of every token)."""
  skip = np.isin(np.array(batch['category'].to_pylist(), object), config.categories)
  if not config.tokenizer:
    words = texts.analyse(batch, skip, config.max_characters)
    return words.first, (words.hashes % np.uint64(config.buckets)).astype(np.int64)
  alive = np.zeros(batch.num_rows, bool)
  alive[documents.alive(batch)] = True
  alive &= ~skip & np.asarray(batch['text'].is_valid())
  contents = documents.take(batch, 'text', np.flatnonzero(alive))
  contents = [text[: config.max_characters] for text in contents]
  ids = _tokenizer(config.tokenizer).encode_batch(contents)
  count = np.zeros(batch.num_rows, np.int64)
  count[alive] = [len(part) for part in ids]
  joined = np.concatenate([np.zeros(0, np.int64), *ids]).astype(np.int64)
  return np.append(0, np.cumsum(count)), joined


def vocabulary(config: Config) -> int:
  """Number of different tokens; UserError for a tokenizer that cannot be read."""
  if config.tokenizer:
    return _tokenizer(config.tokenizer).vocab_size
  return config.buckets


@functools.lru_cache(maxsize=1)
def _tokenizer(path):
  return tokenizers.Tokenizer.load(path)


def _hash(lang):
  return np.uint64(xxhash.xxh3_64_intdigest(lang.encode()))


@compiled.kernel(compiled.NUMBERS, compiled.NUMBERS)
def _add(ids, total):
  for i in ids:
    total[i] += 1


@compiled.kernel(
  *(compiled.NUMBERS, compiled.NUMBERS, compiled.NUMBERS, compiled.FIXED_ROWS),
  *(compiled.FLOAT, compiled.FLOATS, compiled.FLOATS),
)
def _divergence(ids, first, rows, counts, alpha, sums, result):
  seen = np.zeros(counts.shape[1], np.int64)
  for d in range(len(first) - 1):
    n = first[d + 1] - first[d]
    if n == 0 or rows[d] < 0:
      continue
    for i in range(first[d], first[d + 1]):
      seen[ids[i]] += 1
    total = sums[rows[d]]
    for i in range(first[d], first[d + 1]):
      if seen[ids[i]]:
        p = seen[ids[i]] / n
        result[d] += p * math.log(p * total / (counts[rows[d], ids[i]] + alpha))
        seen[ids[i]] = 0


def _most(counts):
  """bool [langs, buckets]: the MOST frequent buckets of each language."""
  if not len(counts):
    return np.zeros(counts.shape, bool)
  most = min(MOST, counts.shape[1])
  limit = np.partition(counts, -most, axis=1)[:, -most]
  return (counts >= limit[:, None]) & (counts > 0)


@compiled.kernel(
  *(compiled.NUMBERS, compiled.NUMBERS, compiled.NUMBERS, compiled.FIXED_FLAGS),
  compiled.FLOATS,
)
def _frequent(ids, first, rows, most, result):
  for d in range(len(first) - 1):
    if rows[d] >= 0:
      for i in range(first[d], first[d + 1]):
        result[d] += most[rows[d], ids[i]]
      result[d] /= max(first[d + 1] - first[d], 1)
