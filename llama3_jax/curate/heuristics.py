"""Heuristic filters: repetition, dirty words, outlier tokens, length (3.1.1).

Prose rules do not judge code. Every rule measures first and compares after, so a value
at the threshold stays and one above it goes.
"""

import collections
import dataclasses

import numpy as np
import regex
import xxhash

from llama3_jax.curate import documents

# Marks belong to words: a Hindi or Thai vowel sign is one.
WORD = regex.compile(r'[\w\p{M}]+')
PARAGRAPH = regex.compile(r'\n\s*\n')
# Scripts without spaces between words: a character counts as a word, and an n-gram of
# words is one of n times so many characters (rough lengths of a word).
UNSPACED = {
  'zh': 2,
  'wuu': 2,
  'yue': 2,
  'ja': 2,
  'th': 4,
  'lo': 4,
  'km': 4,
  'my': 4,
  'bo': 4,
}
# A stand-in for the user's list (config.dirty_words): plain, unambiguous English.
DIRTY_WORDS = (
  'porn',
  'porno',
  'xxx',
  'milf',
  'blowjob',
  'camgirl',
  'camgirls',
  'hentai',
  'handjob',
  'gangbang',
  'cumshot',
  'upskirt',
)
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


@dataclasses.dataclass(frozen=True)
class Limits:
  """Thresholds: Rae et al. 2021 table A1 for repetition, our defaults for the rest."""

  min_words: int = 50
  min_code_characters: int = 100
  duplicate_lines: float = 0.30
  duplicate_paragraphs: float = 0.30
  top_grams: tuple[float, ...] = (0.20, 0.18, 0.16)  # n = 2, 3, 4
  duplicate_grams: tuple[float, ...] = (0.15, 0.14, 0.13, 0.12, 0.11, 0.10)  # 5 .. 10
  dirty_per_1000_words: float = 5.0
  kl_percentile: float = 99.0
  kl_min_documents: int = 100  # of a language; fewer give no distribution
  kl_prior_words: float = 200.0  # weight of the corpus in a document's distribution


def words(text, lang=''):
  """Lower-cased words; characters in scripts without spaces."""
  found = WORD.findall(text.lower())
  return [c for word in found for c in word] if lang in UNSPACED else found


def repetition(text, tokens, scale=1):
  """Shares of the document that repeat (Rae et al. 2021).

  Args:
    text: the document.
    tokens: words(text).
    scale: tokens a word; above 1 where tokens are characters.

  Returns:
    dict rule -> value: duplicate_lines, duplicate_paragraphs (shares of their number);
    top_2gram.. top_4gram: share of word characters inside the most frequent n-gram;
    duplicate_5gram.. duplicate_10gram: share inside n-grams that were there before
    (second and later copies, as open pipelines count, whose thresholds these are).
    A character counts once, however many n-grams cover it.
  """
  result = {
    'duplicate_lines': _duplicates(text.split('\n')),
    'duplicate_paragraphs': _duplicates(PARAGRAPH.split(text)),
  }
  lengths = np.array([len(token) for token in tokens], np.int64)
  ids = np.array(
    [xxhash.xxh64_intdigest(token.encode()) for token in tokens], np.uint64
  )
  for n in range(2, 11):
    name = f'top_{n}gram' if n <= 4 else f'duplicate_{n}gram'
    result[name] = _coverage(ids, lengths, n * scale, top=n <= 4)
  return result


def dirty(tokens, vocabulary):
  """Words of `vocabulary` (a set) in 1,000 words."""
  return 1000 * sum(token in vocabulary for token in tokens) / max(len(tokens), 1)


def divergences(token_lists, prior_words):
  """KL(document || corpus) in nats of each document's word distribution.

  The document's distribution is smoothed towards the corpus with `prior_words`
  pseudo-words, so that a short document is not an outlier for being short.

  Args:
    token_lists: list of lists of words: together they are the corpus.

  Returns:
    np.float64 [documents].
  """
  corpus = collections.Counter(token for tokens in token_lists for token in tokens)
  total = max(sum(corpus.values()), 1)
  result = []
  for tokens in token_lists:
    n = len(tokens)
    counts = collections.Counter(tokens)
    q = np.array([corpus[token] for token in counts], np.float64) / total
    p = (np.array(list(counts.values())) + prior_words * q) / (n + prior_words)
    unseen = 1 - q.sum()  # corpus mass of words that the document lacks
    ratio = prior_words / (n + prior_words)
    rest = unseen * ratio * np.log(ratio) if unseen > 0 else 0.0
    result.append(float(np.sum(p * np.log(p / q)) + rest) if n else 0.0)
  return np.array(result)


def step_length(table, limits):
  """Drops documents that are too short to teach anything."""
  drops = {}
  for row, text, lang, category in _alive(table):
    if category == 'code':
      if len(text) < limits.min_code_characters:
        drops[row] = ('length.code', float(len(text)))
    elif (count := len(words(text, lang))) < limits.min_words:
      drops[row] = ('length.words', float(count))
  return documents.drop(table, drops)


def step_repetition(table, limits):
  """Drops prose that repeats itself: logs, error messages, spam."""
  highest = {
    'duplicate_lines': limits.duplicate_lines,
    'duplicate_paragraphs': limits.duplicate_paragraphs,
    **{f'top_{n}gram': limits.top_grams[n - 2] for n in range(2, 5)},
    **{f'duplicate_{n}gram': limits.duplicate_grams[n - 5] for n in range(5, 11)},
  }
  drops = {}
  for row, text, lang, category in _alive(table):
    if category == 'code':
      continue
    values = repetition(text, words(text, lang), UNSPACED.get(lang, 1))
    for rule, value in values.items():
      if value > highest[rule]:
        drops[row] = (f'repetition.{rule}', value)
        break
  return documents.drop(table, drops)


def step_dirty(table, limits, vocabulary=DIRTY_WORDS):
  """Drops adult pages that no block list knows (Raffel et al. 2020)."""
  vocabulary = frozenset(word.lower() for word in vocabulary)
  drops = {}
  for row, text, lang, category in _alive(table):
    if category != 'code':
      value = dirty(words(text, lang), vocabulary)
      if value > limits.dirty_per_1000_words:
        drops[row] = ('dirty.words', value)
  return documents.drop(table, drops)


def step_outliers(table, limits):
  """Drops prose whose words are far from its language's distribution (KL)."""
  groups = collections.defaultdict(list)
  for row, text, lang, category in _alive(table):
    if category != 'code':
      groups[lang].append((row, words(text, lang)))
  drops = {}
  for lang in sorted(groups):
    rows, tokens = zip(*groups[lang])
    if len(rows) < limits.kl_min_documents:
      continue
    values = divergences(tokens, limits.kl_prior_words)
    limit = np.percentile(values, limits.kl_percentile)
    for row, value in zip(rows, values):
      if value > limit:
        drops[row] = ('outlier.kl', float(value))
  return documents.drop(table, drops)


def _alive(table):
  """(position, text, lang, category) of the documents still in."""
  rows = documents.alive(table)
  return zip(
    rows.tolist(),
    *(documents.take(table, name, rows) for name in ('text', 'lang', 'category')),
  )


def _duplicates(parts):
  """Share of the non-empty parts that are not the first of their kind."""
  parts = [part.strip() for part in parts if part.strip()]
  return (len(parts) - len(set(parts))) / max(len(parts), 1)


def _coverage(ids, lengths, n, top):
  """Share of characters inside the top n-gram, or inside later copies of any."""
  count = len(ids) - n + 1
  if count < 2:
    return 0.0
  grams = np.zeros(count, np.uint64)
  for i in range(n):
    grams = grams * MULTIPLIER + ids[i : i + count]
  _, first, inverse, times = np.unique(
    grams, return_index=True, return_inverse=True, return_counts=True
  )
  if top:
    ends = np.concatenate([[0], np.cumsum(lengths)])
    weight = np.where(times > 1, times * (ends[first + n] - ends[first]), 0)
    best = int(np.argmax(weight))
    starts = np.flatnonzero(inverse == best) if times[best] > 1 else first[:0]
  else:
    starts = np.setdiff1d(np.arange(count), first)
  covered = np.zeros(len(ids) + 1, np.int64)
  np.add.at(covered, starts, 1)
  np.add.at(covered, starts + n, -1)
  return float(lengths[np.cumsum(covered)[:-1] > 0].sum() / max(lengths.sum(), 1))
