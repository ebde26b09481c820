"""De-duplication by URL: the newest copy of a page stays (3.1.1)."""

import dataclasses
from collections.abc import Iterable
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from llama3_jax.curate.machine import documents
from llama3_jax.curate.machine import keys as key_files
from llama3_jax.curate.measures import words as texts
from llama3_jax.curate.rules import urls

SCHEMA = pa.schema([('key', pa.uint64()), ('id', pa.uint64()), ('date', pa.string())])


@dataclasses.dataclass(frozen=True)
class Config:
  """Where URLs are compared: scope out of documents.SCOPES; nothing = everywhere."""

  scope: tuple[str, ...] = ()
  bucket: int = 30_000_000  # documents


def emit(batches: Iterable[pa.RecordBatch], config: Config) -> dict[str, pa.Table]:
  """{'keys': (key, id, date)} of the documents with a URL."""
  parts = []
  for batch in batches:
    rows = documents.alive(batch)
    addresses = documents.take(batch, 'url', rows)
    rows = rows[[bool(url) for url in addresses]]
    hashes = [
      xxhash.xxh3_64_intdigest(urls.normalise(url).encode('utf-8', 'replace'))
      for url in addresses
      if url
    ]
    key = np.array(hashes, np.uint64) ^ documents.scope(
      batch, config.scope, config.bucket
    )[rows].astype(np.uint64)
    positions = pa.array(rows, pa.int64())
    columns = [
      texts.mixed(key),
      batch['id'].take(positions),
      batch['date'].take(positions),
    ]
    parts.append(pa.table(columns, schema=SCHEMA))
  return {'keys': pa.concat_tables(parts) if parts else SCHEMA.empty_table()}


def reduce(rows: pa.Table, config: Config) -> pa.Table:
  """Table (id, copies) of the documents that have a newer copy.

  Of copies of the same date, the first stays.
  """
  date = pc.rank(pc.fill_null(rows['date'], ''), tiebreaker='dense').to_numpy()
  ids, key = rows['id'].to_numpy(), rows['key'].to_numpy()
  order = np.lexsort((ids, -date.astype(np.int64), key))
  best = np.append(True, key[order][1:] != key[order][:-1])[: len(key)]
  copies = np.diff(np.append(np.flatnonzero(best), len(key)))
  copies = np.repeat(copies, copies)
  return pa.table({'id': ids[order][~best], 'copies': copies[~best].astype(np.int32)})


def resolve(
  reduced: Iterable[pa.Table], sides: Iterable[pa.Table], config: Config
) -> dict[str, np.ndarray]:
  """State: ids (sorted) of the documents to drop, and how many copies there are."""
  return key_files.drops(reduced, 'copies')


def step(
  batch: pa.RecordBatch, config: Config, state: Mapping[str, np.ndarray]
) -> pa.RecordBatch:
  """Drops every document of which a newer copy exists, as 'url.older'."""
  return key_files.drop(batch, state, 'url.older')
