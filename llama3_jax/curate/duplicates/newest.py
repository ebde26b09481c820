"""De-duplication by URL: the newest copy of a page stays (3.1.1)."""

import dataclasses

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


def emit(batches, config):
  """{'keys': (key, id, date)} of the documents with a URL."""
  parts = []
  for batch in batches:
    rows = documents.alive(batch)
    found = documents.take(batch, 'url', rows)
    rows = rows[[bool(url) for url in found]]
    hashes = [
      xxhash.xxh3_64_intdigest(urls.normalise(url).encode('utf-8', 'replace'))
      for url in found
      if url
    ]
    key = np.array(hashes, np.uint64) ^ documents.scope(
      batch, config.scope, config.bucket
    )[rows].astype(np.uint64)
    places = pa.array(rows, pa.int64())
    columns = [texts.mixed(key), batch['id'].take(places), batch['date'].take(places)]
    parts.append(pa.table(columns, schema=SCHEMA))
  return {'keys': pa.concat_tables(parts) if parts else SCHEMA.empty_table()}


def reduce(rows, config):
  """(id, copies) of the documents that have a newer copy; of equal dates the first."""
  date = pc.rank(pc.fill_null(rows['date'], ''), tiebreaker='dense').to_numpy()
  ids, key = rows['id'].to_numpy(), rows['key'].to_numpy()
  order = np.lexsort((ids, -date.astype(np.int64), key))
  best = np.append(True, key[order][1:] != key[order][:-1])[: len(key)]
  copies = np.diff(np.append(np.flatnonzero(best), len(key)))
  copies = np.repeat(copies, copies)
  return pa.table({'id': ids[order][~best], 'copies': copies[~best].astype(np.int32)})


def resolve(reduced, sides, config):
  """State: ids (sorted) of the documents to drop, and how many copies there are."""
  return key_files.drops(reduced, 'copies')


def step(batch, config, state):
  """Drops every document of which a newer copy exists, as 'url.older'."""
  return key_files.drop(batch, state, 'url.older')
