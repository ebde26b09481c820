"""De-duplication of documents by MinHash (3.1.1; Broder 1997).

A signature is the least of each of bands x rows hash functions over the word n-grams of
a document. Two documents of Jaccard similarity s share a band with probability
1 - (1 - s^rows)^bands: 0.77 at s = 0.75, 0.92 at 0.8. Clusters are connected components
of shared bands; a member is dropped only if its signature agrees with the survivor's,
so a chain of similar documents does not drop documents that are unlike the survivor. To
verify, 8 bits of every minimum are kept (Li and Koenig 2010).
"""

import dataclasses
from collections.abc import Iterable
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse
import scipy.sparse.csgraph

from llama3_jax.base.errors import UserError
from llama3_jax.curate.machine import compiled
from llama3_jax.curate.machine import documents
from llama3_jax.curate.machine import keys as key_files
from llama3_jax.curate.measures import words as texts
from llama3_jax.curate.measures.words import MULTIPLIER

PREFER = ('date', 'length', 'quality')
KEYS = pa.schema([('key', pa.uint64()), ('id', pa.uint64())])


@dataclasses.dataclass(frozen=True)
class Config:
  """What is a duplicate, and which copy stays.

  Attributes:
    bands, rows: of the signature.
    gram: words of the n-grams.
    scope: where documents are compared, out of documents.SCOPES; nothing = everywhere.
    bucket: documents of a bucket.
    verify: estimated similarity to the survivor from which a member is dropped.
    prefer: properties of which the survivor has the most, the first one first, out of
      PREFER; quality is the column `quality_column`. Of equals, the first stays.
    max_characters: characters of a document that are read: the signature of a huge one
      has so low minima that unrelated documents would be connected.
  """

  bands: int = 14
  rows: int = 8
  gram: int = 5
  scope: tuple[str, ...] = ('language',)
  bucket: int = 30_000_000
  verify: float = 0.65
  prefer: tuple[str, ...] = ('date', 'length')
  quality_column: str = ''
  max_characters: int = 500_000


def emit(batches: Iterable[pa.RecordBatch], config: Config) -> dict[str, pa.Table]:
  """{'keys': (key, id) of every band, 'side': columns that resolve() needs}."""
  keys, sides = [], []
  for batch in batches:
    words = texts.analyse(batch, limit=config.max_characters)
    signature = signatures(words, config)
    scope = documents.scope(batch, config.scope, config.bucket).astype(np.uint64)
    # Documents without a word would all be equal.
    rows = np.flatnonzero(np.diff(words.first))
    bands = band_keys(signature[rows], scope[rows], config)
    ids = np.asarray(batch['id'])[rows]
    ids_of_bands = np.repeat(ids, config.bands)
    keys.append(pa.table([bands.ravel(), ids_of_bands], schema=KEYS))
    positions = pa.array(rows, pa.int64())
    length = pc.binary_length(batch['text'].take(positions)).cast(pa.int64())
    short = (signature[rows] & 0xFF).astype(np.uint8).tobytes()
    width = config.bands * config.rows
    side = {
      'id': ids,
      'date': pc.fill_null(batch['date'].take(positions), ''),
      'length': length,
      'signature': pa.Array.from_buffers(
        pa.binary(width), len(rows), [None, pa.py_buffer(short)]
      ),
    }
    if config.quality_column:
      if config.quality_column not in batch.schema.names:
        raise UserError(
          f'curate.document.quality_column: no column {config.quality_column!r} yet; '
          'there is lang_score'
        )
      quality = batch[config.quality_column].take(positions).cast(pa.float32())
      side['quality'] = pc.fill_null(quality, -np.inf)
    sides.append(pa.table(side))
  if not keys:
    return {'keys': KEYS.empty_table()}
  return {
    'keys': pa.concat_tables(keys).combine_chunks(),
    'side': pa.concat_tables(sides).combine_chunks(),
  }


def signatures(words: texts.Words, config: Config) -> np.ndarray:
  """uint32 [documents, bands * rows]: least hashes of each document's n-grams."""
  numbers = np.arange(config.bands * config.rows, dtype=np.uint64)
  xor = (texts.mixed(numbers * 2 + 1) >> np.uint64(32)).astype(np.uint32)
  times = (texts.mixed(numbers * 2 + 2) >> np.uint64(32)).astype(np.uint32) | 1
  result = np.full((len(words.first) - 1, len(numbers)), 0xFFFFFFFF, np.uint32)
  times = times.astype(np.uint32)
  _minima(words.hashes, words.first, words.scale, config.gram, xor, times, result)
  return result


def band_keys(signature: np.ndarray, scope: np.ndarray, config: Config) -> np.ndarray:
  """uint64 [documents, bands]: equal where documents of a scope share a band."""
  parts = signature.reshape(-1, config.bands, config.rows).astype(np.uint64)
  band = np.arange(config.bands, dtype=np.uint64)[None]
  key = texts.mixed(scope[:, None] ^ (band + np.uint64(1)))
  for row in range(config.rows):
    key = texts.mixed(key ^ (parts[:, :, row] * MULTIPLIER))
  return key


def reduce(rows: pa.Table, config: Config) -> pa.Table:
  """Table (a, b) of ids: documents b share a band with a, the first one of the band."""
  _, order, first = key_files.ordered(rows)
  ids = rows['id'].to_numpy()[order]
  count = np.diff(np.append(first, len(ids)))
  first, count = first[count > 1], count[count > 1]
  members = np.repeat(first - np.cumsum(count) + count, count) + np.arange(count.sum())
  members = ids[members]
  starts = np.cumsum(count) - count
  least = np.minimum.reduceat(members, starts) if len(starts) else members
  a = np.repeat(least, count)
  return pa.table({'a': a[a != members], 'b': members[a != members]})


def resolve(
  reduced: Iterable[pa.Table], sides: Iterable[pa.Table], config: Config
) -> dict[str, np.ndarray]:
  """State: ids (sorted) of the documents to drop, and the sizes of their clusters.

  Memory grows with the documents that share a band with another, not with all.
  """
  nodes, label = _components(reduced)
  order, signature = _ranked(nodes, label, sides, config)
  starts = np.flatnonzero(np.append(True, np.diff(label[order]) != 0)[: len(order)])
  width = config.bands * config.rows
  # 8 bits agree by chance once in 256.
  need = np.ceil(width * (config.verify + (1 - config.verify) / 256) - 1e-9)
  sizes = np.zeros(len(nodes), np.int64)
  _verify(order, np.append(starts, len(order)), signature, int(need), sizes)
  gone = np.flatnonzero(sizes)
  return {'ids': nodes[gone], 'values': sizes[gone].astype(np.float32)}


def step(
  batch: pa.RecordBatch, config: Config, state: Mapping[str, np.ndarray]
) -> pa.RecordBatch:
  """Drops all but one document of a cluster, as 'document.duplicate' (its size)."""
  return key_files.drop(batch, state, 'document.duplicate')


def _components(tables):
  """(nodes, label): sorted ids that have an edge, and the component of each.

  Whenever there are many edges, those of a component are replaced by a star.
  """
  edges = np.zeros((2, 0), np.uint64)
  waiting, count, forest = [], 0, 0
  for table in tables:
    waiting.append(np.stack([table['a'].to_numpy(), table['b'].to_numpy()]))
    count += waiting[-1].shape[1]
    if count > max(forest, 1 << 20):
      nodes, label, root = _connect(np.concatenate([edges, *waiting], axis=1))
      edges = np.stack([root[label], nodes])
      waiting, count, forest = [], 0, edges.shape[1]
  nodes, label, _ = _connect(np.concatenate([edges, *waiting], axis=1))
  return nodes, label


def _connect(edges):
  nodes = np.unique(edges)
  a, b = (np.searchsorted(nodes, part).astype(np.int32) for part in edges)
  graph = scipy.sparse.coo_matrix(
    (np.ones(len(a), np.int8), (a, b)), (len(nodes), len(nodes))
  )
  label = scipy.sparse.csgraph.connected_components(graph, directed=False)[1]
  first = np.unique(label, return_index=True)[1]
  return nodes, label, nodes[first]


def _ranked(nodes, label, sides, config):
  """(order, signatures uint8 [n, width]): members by cluster, the survivor first."""
  width = config.bands * config.rows
  signature = np.zeros((len(nodes), width), np.uint8)
  length, quality = np.zeros(len(nodes), np.int64), np.zeros(len(nodes), np.float32)
  dates, indices = [], []
  for side in sides:
    side = side.combine_chunks()
    index, present = key_files.lookup(nodes, side['id'].to_numpy())
    rows, index = np.flatnonzero(present), index[present]
    if len(rows) == 0:
      continue
    part = side.take(pa.array(rows)).combine_chunks()
    raw = part['signature'].chunk(0)
    data = np.frombuffer(raw.buffers()[1], np.uint8)
    data = data[raw.offset * width : (raw.offset + len(raw)) * width]
    signature[index] = data.reshape(-1, width)
    length[index] = part['length'].to_numpy()
    if config.quality_column:
      quality[index] = part['quality'].to_numpy()
    dates.append(part['date'].combine_chunks())
    indices.append(index)
  date = np.zeros(len(nodes), np.int64)
  if dates:
    ranks = pc.rank(pa.chunked_array(dates), tiebreaker='dense').to_numpy()
    date[np.concatenate(indices)] = ranks.astype(np.int64)
  values = {'date': date, 'length': length, 'quality': quality}
  preferred = [-values[name] for name in reversed(config.prefer)]
  return np.lexsort((nodes, *preferred, label)), signature


@compiled.kernel(
  *(compiled.KEYS, compiled.NUMBERS, compiled.NUMBERS, compiled.INT),
  *(compiled.CODES, compiled.CODES, compiled.CODE_ROWS),
)
def _minima(hashes, first, scale, gram, xor, times, result):
  for d in range(len(first) - 1):
    count = first[d + 1] - first[d]
    size = min(gram * scale[d], count)
    row = result[d]
    if count == 0:
      continue
    for i in range(first[d], first[d + 1] - size + 1):
      value = np.uint64(0)
      for k in range(size):
        value = value * MULTIPLIER + hashes[i + k]
      x = np.uint32(texts.mix(value) >> np.uint64(32))
      for p in range(len(row)):
        row[p] = min(row[p], np.uint32(np.uint32(x ^ xor[p]) * times[p]))


@compiled.kernel(
  compiled.NUMBERS, compiled.NUMBERS, compiled.TABLE, compiled.INT, compiled.NUMBERS
)
def _verify(order, starts, signature, need, sizes):
  """Fills sizes [members] for those to drop; 0 = stays.

  The best of a cluster stays and drops those that agree with it; the others are judged
  again among themselves.
  """
  for c in range(len(starts) - 1):
    left = order[starts[c] : starts[c + 1]].copy()
    count = len(left)
    while count > 1:
      best, kept, gone = left[0], 0, 0
      for k in range(1, count):
        agree = 0
        for p in range(signature.shape[1]):
          agree += signature[left[k], p] == signature[best, p]
        if agree >= need:
          gone += 1
          sizes[left[k]] = -1
        else:
          left[kept] = left[k]
          kept += 1
      for k in range(starts[c], starts[c + 1]):
        if sizes[order[k]] < 0:
          sizes[order[k]] = gone + 1
      count = kept
