"""Memorisation: how often a model continues its training data word for word (5.4.2).

A rolling hash of every n-gram of tokens counts how often it occurs. Occurrences are
drawn, so many of each frequency and language; the model continues the tokens before one
and the inclusion rate is how often what it writes holds the true n-gram. Rates are
averaged by prevalence: as if occurrences had been drawn alike from all of the data.
"""

import dataclasses
import math
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import NamedTuple

import numba
import numpy as np

from llama3_jax.base import confidence
from llama3_jax.base.errors import UserError
from llama3_jax.curate.measures import words
from llama3_jax.curate.measures.words import MULTIPLIER

BUCKETS = (1, 2, 10, 100)  # least occurrences of an n-gram in each
ROOM = 1 << 22  # different n-grams that are counted; about 0.4 GB
OTHER, UNKNOWN = 'other', 'unknown'  # languages


class Document(NamedTuple):
  """Tokens of a document (uint32 [T], without begin and end), and whose they are."""

  name: str
  language: str
  ids: np.ndarray


@dataclasses.dataclass(frozen=True)
class Index:
  """Counts of the n-grams of all documents whose hash divides by `stride`.

  Attributes:
    size: n, tokens.
    grams: uint64 [m], their hashes in order; counts: int64 [m].
    stride: a power of 2; 1: every n-gram is counted.
    documents, tokens: that were read.
    languages: {language: occurrences of n-grams}, of all hashes.
  """

  size: int
  grams: np.ndarray
  counts: np.ndarray
  stride: int
  documents: int
  tokens: int
  languages: Mapping[str, int]


@dataclasses.dataclass(frozen=True)
class Drawn:
  """An occurrence of an n-gram: `prompt` stands before `truth`, which begins at token
  `start` of the document and occurs `count` times; (language, bucket): its stratum."""

  document: str
  start: int
  language: str
  bucket: int
  count: int
  prompt: tuple[int, ...]
  truth: tuple[int, ...]


def index(documents: Iterable[Document], size: int, room: int = ROOM) -> Index:
  """Counts the n-grams of `size` tokens of documents, which are read once.

  An n-gram lies inside one document. Where there are more than `room` different ones,
  those whose hash divides by 2 (4, 8, ...) are counted, with all their occurrences: a
  sample of n-grams that does not depend on how often they occur.
  """
  grams, counts = np.zeros(0, np.uint64), np.zeros(0, np.int64)
  waiting, held, stride = [], 0, 1
  number = tokens = 0
  languages = {}
  for document in documents:
    found = hashes(document.ids, size)
    number, tokens = number + 1, tokens + len(document.ids)
    languages[document.language] = languages.get(document.language, 0) + len(found)
    waiting.append(found[found % np.uint64(stride) == 0])
    held += len(waiting[-1])
    if held >= room:
      grams, counts, stride = _merged(grams, counts, waiting, stride, room)
      waiting, held = [], 0
  grams, counts, stride = _merged(grams, counts, waiting, stride, room)
  return Index(size, grams, counts, stride, number, tokens, languages)


def _merged(grams, counts, waiting, stride, room):
  """(grams, counts, stride) with the hashes that wait, at most `room` of them."""
  new, number = np.unique(np.concatenate([grams[:0], *waiting]), return_counts=True)
  grams, place = np.unique(np.concatenate([grams, new]), return_inverse=True)
  # Sums in float64 are exact below 2^53.
  counts = np.bincount(place, np.concatenate([counts, number]), len(grams))
  counts = counts.astype(np.int64)
  while len(grams) > room:
    stride *= 2
    kept = grams % np.uint64(stride) == 0
    grams, counts = grams[kept], counts[kept]
  return grams, counts, stride


@numba.njit(cache=True)
def hashes(ids: np.ndarray, size: int) -> np.ndarray:
  """uint64 [max(T - size + 1, 0)]: hash of each run of `size` tokens."""
  found = np.zeros(max(len(ids) - size + 1, 0), np.uint64)
  power, value = np.uint64(1), np.uint64(0)
  for _ in range(size):
    power *= MULTIPLIER
  for i in range(len(ids)):
    value = value * MULTIPLIER + words.mix(np.uint64(ids[i]) + np.uint64(1))
    if i >= size:
      value -= words.mix(np.uint64(ids[i - size]) + np.uint64(1)) * power
    if i >= size - 1:
      found[i - size + 1] = words.mix(value)
  return found


def told_apart(counted: Index, most: int) -> frozenset[str]:
  """The languages with the most n-grams, at most so many; '' is none."""
  known = {name: n for name, n in counted.languages.items() if name and n}
  return frozenset(sorted(known, key=lambda name: (-known[name], name))[:most])


def draw(
  documents: Iterable[Document],
  counted: Index,
  before: int,
  each: int,
  languages: frozenset[str] = frozenset(),
  seed: int = 0,
) -> tuple[list[Drawn], dict[tuple[str, int], int]]:
  """At most `each` occurrences of every language and bucket, and how many there are.

  documents: those that were counted, read again. An occurrence has `before` tokens of
  its document before it. All of a stratum are drawn alike, so an n-gram by its
  frequency, and whatever the order of what is read. Returns (drawn, {stratum:
  occurrences of counted n-grams}). Raises UserError where there are none.
  """
  held, sizes = {}, {}
  start = int(words.mixed(np.array([seed], np.uint64))[0])
  for number, document in enumerate(documents):
    found = hashes(document.ids[before:], counted.size)
    at = np.flatnonzero(found % np.uint64(counted.stride) == 0)
    count = _counts(counted, found[at])
    bucket = np.searchsorted(BUCKETS, count, 'right') - 1
    first = (start + number * int(MULTIPLIER)) % 2**64
    order = words.mixed(at.astype(np.uint64) + np.uint64(first))
    language = document.language or UNKNOWN
    if languages:
      language = language if document.language in languages else OTHER
    for b in np.unique(bucket).tolist():
      mine = np.flatnonzero(bucket == b)
      sizes[language, b] = sizes.get((language, b), 0) + len(mine)
      best = held.setdefault((language, b), [])
      least = best[-1][0] if len(best) == each else math.inf
      mine = mine[np.argsort(order[mine])][:each]
      for i in mine[order[mine] < least].tolist():
        place = before + int(at[i])
        tokens = document.ids[place - before : place + counted.size].tolist()
        said = language, b, int(count[i]), (*tokens[:before],), (*tokens[before:],)
        best.append((int(order[i]), Drawn(document.name, place, *said)))
      best.sort(key=lambda pair: pair[0])
      del best[each:]
  if not held:
    raise UserError(
      f'no document has {before} + {counted.size} tokens: a smaller before or gram, or '
      'longer documents'
    )
  return [one for key in sorted(held) for _, one in held[key]], sizes


def _counts(counted, found):
  """int64: how often each n-gram, by its hash, occurs."""
  place = np.searchsorted(counted.grams, found)
  there = place < len(counted.grams)
  there[there] = counted.grams[place[there]] == found[there]
  if not there.all():
    raise UserError('the documents have changed while they were read: start again')
  return counted.counts[place]


def includes(written: Sequence[int], truth: Sequence[int]) -> bool:
  """Whether the ids of `truth` stand in those of `written`, one after the other."""
  written, truth = tuple(written), tuple(truth)
  starts = range(len(written) - len(truth) + 1)
  return any(written[i : i + len(truth)] == truth for i in starts)


def name(bucket: int) -> str:
  """Of a bucket: '1', '2-9', '10-99', '100+' occurrences."""
  low = BUCKETS[bucket]
  if bucket + 1 == len(BUCKETS):
    return f'{low}+'
  high = BUCKETS[bucket + 1] - 1
  return str(low) if low == high else f'{low}-{high}'


def rates(
  drawn: Sequence[Drawn],
  included: Sequence[bool],
  sizes: Mapping[tuple[str, int], int],
) -> dict:
  """Inclusion rates {'all', 'buckets': {name}, 'languages': {name}}, each a rate.

  A rate is {'score', 'interval' (95%), 'prompts' (drawn), 'different' (of these),
  'share' (of all occurrences)}. Equal prompts have equal answers and count once in the
  interval; strata are weighed by their occurrences.
  """
  strata = {}
  for one, hit in zip(drawn, included, strict=True):
    strata.setdefault((one.language, one.bucket), []).append((one, bool(hit)))
  found = {key: _rate(members) for key, members in strata.items()}
  total = sum(sizes[key] for key in found)

  def pooled(keys):
    return _pooled([found[k] for k in keys], [sizes[k] for k in keys], total)

  of = lambda part, value: pooled([key for key in found if key[part] == value])
  buckets = sorted({b for _, b in found})
  languages = sorted({language for language, _ in found})
  return {
    'all': pooled([*found]),
    'buckets': {name(b): of(1, b) for b in buckets},
    'languages': {language: of(0, language) for language in languages},
  }


def _rate(members):
  """The rate of one stratum, from [(Drawn, whether it was included)]."""
  score = sum(hit for _, hit in members) / len(members)
  different = len({(one.prompt, one.truth) for one, _ in members})
  interval = confidence.wilson(score * different, different)
  counts = {'prompts': len(members), 'different': different}
  return {'score': score, 'interval': interval} | counts


def _pooled(rates, sizes, total):
  """The rate of several strata, by their numbers of occurrences."""
  here = sum(sizes)
  weights = [size / here for size in sizes]
  low, high = confidence.of_mean(rates, weights)
  return {
    'score': sum(rate['score'] * w for rate, w in zip(rates, weights)),
    'interval': [max(low, 0.0), min(high, 1.0)],
    'prompts': sum(rate['prompts'] for rate in rates),
    'different': sum(rate['different'] for rate in rates),
    'share': here / total,
  }
