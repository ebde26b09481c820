"""Lines that most pages of a host begin or end with: menus, slogans (3.1.1).

De-duplication of lines leaves code alone, since a repeated `else:` is no boilerplate.
What is one shows within its host: the same line among the first or the last of most of
its crawled pages. Counted over the corpus, each line once a page.
"""

import dataclasses
from collections.abc import Iterable
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import xxhash

from llama3_jax.curate.machine import documents
from llama3_jax.curate.machine import keys as key_files
from llama3_jax.curate.measures import repetition
from llama3_jax.curate.measures import words as texts


@dataclasses.dataclass(frozen=True)
class Config:
  """Which lines are a site's own.

  Attributes:
    host_share: of a host's pages, from which on a line is boilerplate.
    host_documents: pages of a host, below which nothing is known.
    lines: at the beginning and at the end of a page that are looked at.
    words: a line of fewer is left alone where it is the same in every code.
    categories: documents that are looked at; `line` sees to the others.
  """

  host_share: float = 0.5
  host_documents: int = 10
  lines: int = 4
  words: int = 2
  categories: tuple[str, ...] = ('code',)


def emit(batches: Iterable[pa.RecordBatch], config: Config) -> dict[str, pa.Table]:
  """{'keys': (key, host, count) of a shard's lines, 'side': documents of each host}."""
  rows, hosts = [], []
  for batch in batches:
    _, keys, host, page, pages = _keys(batch, config)
    chosen = np.flatnonzero(keys)
    _, first = np.unique(np.stack([keys, page])[:, chosen], axis=1, return_index=True)
    once = chosen[first]
    rows.append((keys[once], host[once], np.ones(len(once), np.int64)))
    hosts.append(pages)
  keys, host, count = (
    np.concatenate([part[k] for part in rows] or [np.zeros(0, np.uint64)])
    for k in range(3)
  )
  found = pa.table({'key': keys.astype(np.uint64), 'host': host.astype(np.uint64)})
  found = found.append_column('count', pa.array(count.astype(np.int64)))
  number = np.concatenate(hosts or [np.zeros(0, np.uint64)])
  names, total = np.unique(number.astype(np.uint64), return_counts=True)
  side = pa.table({'host': names, 'documents': total.astype(np.int64)})
  return {'keys': reduce(found, config), 'side': side}


def reduce(rows: pa.Table, config: Config) -> pa.Table:
  """(key, host, count) of each line of a host, by key."""
  sums = rows.group_by(['key', 'host']).aggregate([('count', 'sum')])
  sums = sums.select(['key', 'host', 'count_sum']).rename_columns(
    ['key', 'host', 'count']
  )
  return sums.sort_by('key')


def resolve(
  reduced: Iterable[pa.Table], sides: Iterable[pa.Table], config: Config
) -> dict[str, np.ndarray]:
  """State: keys, sorted uint64 [n], of the lines to remove."""
  empty = np.zeros(0, np.uint64)
  sides = [(np.asarray(side['host']), np.asarray(side['documents'])) for side in sides]
  hosts, index = np.unique(
    np.concatenate([empty, *(side[0] for side in sides)]), return_inverse=True
  )
  total = np.zeros(len(hosts), np.int64)
  np.add.at(total, index, np.concatenate([empty, *(s[1] for s in sides)]).astype(int))
  keys = [empty]
  for table in reduced:
    count = np.asarray(table['count'])
    pages = total[np.searchsorted(hosts, np.asarray(table['host']))]
    bad = (pages >= config.host_documents) & (count >= config.host_share * pages)
    keys.append(np.asarray(table['key'])[bad & (count > 1)])
  return {'keys': np.sort(np.concatenate(keys))}


def step(
  batch: pa.RecordBatch, config: Config, state: Mapping[str, np.ndarray]
) -> pa.RecordBatch:
  """Removes the lines of hosts.

  A document without any other line is dropped as 'boilerplate.nothing_left'.
  """
  words, keys, *_ = _keys(batch, config)
  remove = key_files.lookup(state['keys'], keys)[1] & (keys != 0)
  return repetition.cut(batch, words, remove, 'boilerplate.nothing_left')


def _keys(batch, config):
  """(Words, key of each line or 0, its host, its page, hosts of the pages)."""
  category = np.isin(np.array(batch['category'].to_pylist(), object), config.categories)
  kind = 'extract.kind' in batch.schema.names and batch['extract.kind'].to_pylist()
  crawled = np.array([bool(k) for k in kind or [None] * len(batch)], bool)
  names = batch['host'].to_pylist()
  looked = category & crawled & np.array([bool(name) for name in names], bool)
  words = texts.analyse(batch, ~looked)
  hosts = [xxhash.xxh3_64_intdigest((name or '').encode()) for name in names]
  hosts = np.array(hosts, np.uint64)
  size = np.diff(words.line_first)
  page = np.repeat(np.arange(len(size)), size)
  full = words.lines['key'] != 0
  order = np.cumsum(full) - full
  first = np.append(order, full.sum())[words.line_first]
  at, left = order - first[page], first[page + 1] - order - 1
  edge = (at < config.lines) | (left < config.lines)
  enough = np.diff(words.line_words()) >= config.words
  host = hosts[page]
  keys = np.maximum(texts.mixed(words.lines['key'] ^ host), 1)
  keys = np.where(full & edge & enough, keys, 0).astype(np.uint64)
  alive = np.zeros(len(size), bool)
  alive[documents.alive(batch)] = True
  return words, keys, host, page.astype(np.uint64), hosts[looked & alive]
