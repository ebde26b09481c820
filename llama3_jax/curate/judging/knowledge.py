"""Down-sampling of over-represented kinds of knowledge (3.1.2).

A classifier (classify.py, name `knowledge`) labels the topic of a web document; a kind
that has more than its share of the bytes is sampled at random, with the same documents
every time.
"""

import collections
import dataclasses
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from llama3_jax.base.errors import UserError
from llama3_jax.curate.judging import classify
from llama3_jax.curate.judging import judge
from llama3_jax.curate.machine import documents


@dataclasses.dataclass(frozen=True)
class Config:
  # (kind, its largest share of the bytes of classified documents)
  max_shares: tuple[tuple[str, float], ...] = (('arts_entertainment', 0.15),)
  seed: int = 0


def emit(batches: Iterable[pa.RecordBatch], config: Config) -> dict[str, pa.Table]:
  """{'side': (kind, bytes)} of a shard."""
  counts = collections.Counter()
  for batch in batches:
    rows, kinds = _kinds(batch)
    for size, kind in zip(documents.take(batch, 'bytes', rows), kinds):
      counts[kind] += size
  rows = sorted(counts.items())
  return {
    'side': pa.table(
      {
        'kind': pa.array([kind for kind, _ in rows], pa.string()),
        'bytes': pa.array([size for _, size in rows], pa.int64()),
      }
    )
  }


def resolve(
  reduced: Iterable[pa.Table], sides: Iterable[pa.Table], config: Config
) -> dict[str, np.ndarray]:
  """State: kinds (text) and rates, the share of each kind's documents that is kept."""
  del reduced
  sizes = collections.Counter()
  for side in sides:
    for row in side.to_pylist():
      sizes[row['kind']] += row['bytes']
  kinds = sorted(sizes)
  kept = rates([sizes[kind] for kind in kinds], caps(kinds, config))
  return {'kinds': np.array(kinds, 'U32'), 'rates': np.array(kept, np.float64)}


def rates(sizes: Sequence[int], caps: Sequence[float]) -> list[float]:
  """Share of each kind to keep, so that none exceeds its cap of what is left.

  Args:
    sizes: bytes of each kind.
    caps: largest share of each, 1 for none.

  Returns:
    list of floats in [0, 1].
  """
  capped = set()
  while True:
    free = sum(s for i, s in enumerate(sizes) if i not in capped)
    taken = sum(caps[i] for i in capped)
    if capped and (taken >= 1 or not free):
      return [1.0] * len(sizes)  # only capped kinds: their shares cannot all hold
    total = free / (1 - taken) if capped else sum(sizes)
    over = {i for i, s in enumerate(sizes) if i not in capped and s > caps[i] * total}
    if not over:
      return [caps[i] * total / s if i in capped else 1.0 for i, s in enumerate(sizes)]
    capped |= over


def step(
  batch: pa.RecordBatch, config: Config, state: Mapping[str, np.ndarray] | None = None
) -> pa.RecordBatch:
  """Drops documents of over-represented kinds, by a hash of their text."""
  if not state:
    return batch
  keep = dict(zip(state['kinds'].tolist(), state['rates'].tolist()))
  drops = {}
  rows, kinds = _kinds(batch)
  texts = documents.take(batch, 'text', rows)
  for row, kind, text in zip(rows, kinds, texts):
    rate = keep.get(kind, 1.0)
    if rate < 1:
      uniform = classify.text_hash(f'{config.seed} {text}') / 2**64
      if uniform >= rate:
        drops[row] = ('knowledge.downsampled', rate)
  return documents.drop(batch, drops)


def caps(kinds: Sequence[str], config: Config) -> list[float]:
  """Largest share of each kind, 1 for none; UserError for a bad kind or share."""
  known = {*judge.CLASSES['knowledge'], *kinds}
  for kind, share in config.max_shares:
    if kind not in known:
      raise UserError(
        f'curate.knowledge.max_shares: no kind {kind!r}; there are '
        f'{", ".join(sorted(known))}'
      )
    if not 0 < share < 1:
      raise UserError(
        f'curate.knowledge.max_shares: {kind}={share}; give a share in (0, 1)'
      )
  largest = dict(config.max_shares)
  return [largest.get(kind, 1.0) for kind in kinds]


def _kinds(batch):
  """(positions, most probable kind) of the documents that were classified."""
  names = [n for n in batch.schema.names if n.startswith('knowledge.')]
  rows = documents.alive(batch)
  if not names or not len(rows):
    return rows[:0], []
  columns = [documents.take(batch, name, rows) for name in names]
  judged = [i for i, value in enumerate(columns[0]) if value is not None]
  kinds = []
  for i in judged:
    scores = [column[i] for column in columns]
    rest = 1 - sum(scores)
    best = int(np.argmax(scores))
    kinds.append(names[best].split('.')[1] if scores[best] > rest else 'other')
  return rows[judged], kinds
