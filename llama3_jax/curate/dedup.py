"""De-duplication of documents (MinHash) and of lines (ccNet) (3.1.1)."""

import collections
import unicodedata

import numpy as np
import regex
import scipy.sparse
import scipy.sparse.csgraph
import xxhash
from rensa import RMinHash

from llama3_jax.curate import documents

# Huge documents fill their signature and glue unrelated ones together.
MAX_CHARACTERS = 500_000
WORD = regex.compile(r'[\w\p{M}]+')
DIGIT = regex.compile(r'\d')


def shingles(text, n=5):
  """Word n-grams of normalised text; a shorter text is one shingle."""
  words = WORD.findall(text[:MAX_CHARACTERS].lower())
  if len(words) < n:
    return [' '.join(words)]
  return [' '.join(words[i : i + n]) for i in range(len(words) - n + 1)]


def signature(text, bands=14, rows=8, seed=1):
  """np.uint32 [bands, rows]: MinHash of the text's shingles."""
  minhash = RMinHash(num_perm=bands * rows, seed=seed)
  minhash.update(shingles(text))
  return np.array(minhash.digest(), np.uint32).reshape(bands, rows)


def step_documents(table, bands=14, rows=8):
  """Keeps one document of each cluster of near duplicates, within a language.

  Two documents of Jaccard similarity s share a band with probability
  1 - (1 - s^rows)^bands: 0.77 at s = 0.75, 0.92 at 0.8. Clusters are connected
  components; the newest, then longest, then first document survives.
  """
  alive = documents.alive(table)
  texts = documents.take(table, 'text', alive)
  languages = documents.take(table, 'lang', alive)
  buckets = collections.defaultdict(list)
  for i, (text, language) in enumerate(zip(texts, languages)):
    for band, values in enumerate(signature(text, bands, rows)):
      buckets[language, band, values.tobytes()].append(i)
  edges = [(members[0], other) for members in buckets.values() for other in members[1:]]
  labels = _components(edges, len(alive))
  dates = documents.take(table, 'date', alive)
  order = sorted(
    range(len(alive)), key=lambda i: (dates[i] or '', len(texts[i]), -i), reverse=True
  )
  sizes, kept, drops = np.bincount(labels, minlength=1), set(), {}
  for i in order:
    if labels[i] in kept:
      drops[alive[i]] = ('document.duplicate', float(sizes[labels[i]]))
    kept.add(labels[i])
  return documents.drop(table, drops)


def line_key(line):
  """ccNet's key: lower case, digits to 0, punctuation and control characters off.

  Returns:
    64-bit int, or None for a line without letters and digits.
  """
  line = DIGIT.sub('0', line.strip().lower())
  line = ''.join(c for c in line if unicodedata.category(c)[0] not in 'PC').strip()
  return xxhash.xxh64_intdigest(line.encode()) if line else None


def step_lines(table, limit=6, bucket=30_000_000):
  """Removes lines seen more than `limit` times in a bucket of documents of a language.

  All copies go, the first too (ccNet keeps the first; the paper removes the lines).
  Code is left alone: `else:` is no boilerplate. A document without lines is dropped.
  """
  alive = documents.alive(table)
  categories = documents.take(table, 'category', alive)
  rows = [row for row, category in zip(alive, categories) if category != 'code']
  texts = [text.split('\n') for text in documents.take(table, 'text', rows)]
  keys = [[line_key(line) for line in lines] for lines in texts]
  scopes = [
    (row // bucket, language)
    for row, language in zip(rows, documents.take(table, 'lang', rows))
  ]
  counts = collections.Counter(
    (scope, key)
    for scope, document in zip(scopes, keys)
    for key in document
    if key is not None
  )
  kept, drops = [], {}
  for row, scope, lines, document in zip(rows, scopes, texts, keys):
    good = [
      line
      for line, key in zip(lines, document)
      if key is None or counts[scope, key] <= limit
    ]
    text = '\n'.join(good).strip('\n')
    kept.append(text)
    if not text.strip():
      drops[row] = ('line.nothing_left', float(len(lines)))
  return documents.drop(documents.put(table, 'text', rows, kept), drops)


def _components(edges, count):
  """np.int32 [count]: number of each node's connected component."""
  a, b = np.array(edges, np.int64).reshape(-1, 2).T
  graph = scipy.sparse.coo_matrix((np.ones(len(a), np.int8), (a, b)), (count, count))
  return scipy.sparse.csgraph.connected_components(graph, directed=False)[1]
