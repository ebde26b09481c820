"""Batches: a mix of sources, packed, resumable and independent of hosts (3.4.1).

The state is global: every process plans the same global batch from document lengths
alone, then reads only the documents of its own rows. So a run resumes on any number of
hosts, with any batch size and sequence length, and no token is lost or repeated.
"""

import dataclasses
import hashlib
from collections.abc import Mapping
from collections.abc import Sequence

import grain
import numpy as np

from llama3_jax import feed
from llama3_jax.base.errors import UserError
from llama3_jax.data import mix
from llama3_jax.data import pack
from llama3_jax.data import shards


@dataclasses.dataclass(frozen=True)
class Plan:
  """The pieces of documents of a global batch.

  Attributes:
    pieces: (source, record, offset, number of pairs), row after row.
    rows: B.
    length: T.
  """

  pieces: tuple
  rows: int
  length: int


class Rows:
  """An endless stream of packed rows from weighted sources.

  Args:
    sources: dict name -> random-access source of np.uint32 documents with `lengths`
      (np.uint32 [documents]) and `fingerprint`, as shards.open_source gives.
    phases: list of (start_tokens, {name: weight}), see mix.schedule.
    seed: order of the documents; each epoch of each source has its own order.
    positions: 'row' or 'document', see pack.pack.
    lanes: documents that are open at a time, at least the rows of a batch. Row r of the
      stream continues the document of lane r mod `lanes`, so that a long document
      fills rows of many batches, not all rows of one: without lanes a batch, and so
      its gradient, may be of a single document.
  """

  def __init__(
    self,
    sources: Mapping[str, shards.Source],
    phases: Sequence[tuple[int, Mapping[str, float]]],
    seed: int,
    positions: str = 'row',
    lanes: int = 64,
  ) -> None:
    self.phases = mix.schedule(phases, sorted(sources))
    used = sorted({name for phase in self.phases for name in phase.names})
    for name in used:
      if not len(sources[name]):
        first = self.phases[0].names
        field = f'data.mix.{name}' if name in first else 'data.changes'
        way = f'give --config.{field}=0' if name in first else 'leave it out there'
        raise UserError(
          f'{field}: the folder of source {name} holds no document for training; '
          f'{way}, or give documents'
        )
    self.sources = {name: sources[name] for name in used}
    self.seed = seed
    self.positions = positions
    self._order = {
      name: _order(len(source), seed, name) for name, source in self.sources.items()
    }
    self._documents = {name: 0 for name in used}  # of each source, those begun
    self._drawn = {name: 0 for name in used}  # pairs of those documents
    self._open = [None] * lanes  # of each lane [source, record, first pair not given]
    self._rows = 0  # given so far

  @property
  def tokens(self) -> int:
    """Pairs (positions of rows) given so far."""
    return sum(self._drawn.values()) - self._rest()

  @property
  def drawn(self) -> dict[str, int]:
    """{source: pairs drawn so far}; open documents count in full."""
    return dict(self._drawn)

  @property
  def begun(self) -> list[dict]:
    """[{'from': source, 'documents': there are, 'read': begun so far, again in each
    epoch, 'tokens': drawn, 'share': of all tokens}]; open ones count in full."""
    total = max(sum(self._drawn.values()), 1)
    return [
      {
        'from': name,
        'documents': len(source),
        'read': self._documents[name],
        'tokens': self._drawn[name],
        'share': self._drawn[name] / total,
      }
      for name, source in self.sources.items()
    ]

  def batch(
    self, batch_size: int, seq_len: int, shard: tuple[int, int] = (0, 1)
  ) -> feed.Tokens:
    """Plans the next global batch and reads it: feed.Tokens of np arrays [B/n, T]."""
    return self.read(self.plan(batch_size, seq_len), shard)

  def plan(self, batch_size: int, seq_len: int) -> Plan:
    """The Plan of the next global batch; its shape may change from call to call."""
    pieces = self._pieces(batch_size, seq_len)
    return Plan(tuple(pieces), batch_size, seq_len)

  def read(self, plan: Plan, shard: tuple[int, int] = (0, 1)) -> feed.Tokens:
    """The rows [i * B/n, (i + 1) * B/n) of a planned batch, where shard is (i, n).

    Threads may read several plans at a time, in any order.

    Returns:
      feed.Tokens of np arrays [B/n, T].
    """
    i, n = shard
    if plan.rows % n:
      raise UserError(f'batch size {plan.rows} is not a multiple of {n} processes')
    pairs = plan.rows // n * plan.length
    first, last = i * pairs, (i + 1) * pairs
    return _read(self.sources, plan.pieces, first, last, plan.length, self.positions)

  def state(self) -> dict[str, object]:
    """The state of the stream as a small JSON object, the same on every process."""
    return {
      'seed': self.seed,
      'documents': dict(self._documents),
      'drawn': dict(self._drawn),
      'open': [lane and list(lane) for lane in self._open],
      'rows': self._rows,
      'past': self._past(),
    }

  def restore(self, state: Mapping[str, object]) -> None:
    """Continues exactly after the batch at which `state` was taken.

    Raises:
      UserError: seed, or weights or sources of phases that have begun, were changed.
    """
    if state['seed'] != self.seed:
      raise UserError(
        f'seed={self.seed}, the checkpoint was made with {state["seed"]}; put '
        'it back or start a new workdir'
      )
    if len(state['open']) != len(self._open):
      raise UserError(
        f'data.lanes: {len(self._open)}, the checkpoint was made with '
        f'{len(state["open"])}; put it back or start a new workdir'
      )
    saved = dict(self._documents), dict(self._drawn), self._open
    gone = sorted(
      name
      for name, count in state['documents'].items()
      if count and name not in self.sources
    )
    self._documents = {name: state['documents'].get(name, 0) for name in self.sources}
    self._drawn = {name: state['drawn'].get(name, 0) for name in self.sources}
    self._open = [lane and list(lane) for lane in state['open']]
    self._rows = state['rows']
    if gone or self._past() != state['past']:
      self._documents, self._drawn, self._open = saved
      raise UserError(
        f'data.mix, data.changes: the weights or sources of the first '
        f'{sum(state["drawn"].values())} tokens are not those of the checkpoint'
        f'{f" ({gone[0]!r} is gone)" if gone else ""}; only phases that have not '
        'begun may be edited: put the others back or start a new workdir'
      )

  def _past(self):
    identities = {name: s.fingerprint for name, s in self.sources.items()}
    return mix.past(self.phases, sum(self._drawn.values()), identities)

  def _rest(self):
    """Number of pairs of the open documents that were not given yet."""
    return sum(self._left(lane) for lane in self._open if lane)

  def _left(self, lane):
    name, record, offset = lane
    return int(self.sources[name].lengths[record]) - 1 - offset

  def _pieces(self, rows, seq_len):
    """Takes the next rows: list of (source, record, offset, count), row after row."""
    pieces = []
    for _ in range(rows):
      lane = self._rows % len(self._open)
      self._rows += 1
      pairs = seq_len
      while pairs:
        if self._open[lane] is None:
          self._open[lane] = self._draw()
        name, record, offset = self._open[lane]
        rest = self._left(self._open[lane])
        count = min(rest, pairs)
        pieces.append((name, record, offset, count))
        pairs -= count
        self._open[lane] = None if count == rest else [name, record, offset + count]
    return pieces

  def _draw(self):
    """Opens the next document of the mix."""
    name = mix.choose(self.phases, self._drawn)
    record = int(self._order[name][self._documents[name]])
    self._documents[name] += 1
    self._drawn[name] += int(self.sources[name].lengths[record]) - 1
    return [name, record, 0]


def heldout(
  sources: Mapping[str, shards.Source],
  batch_size: int,
  seq_len: int,
  n_batches: int,
  positions: str = 'row',
) -> list[feed.Tokens]:
  """Evaluation batches of held-out documents; no token occurs twice.

  The order is fixed: first the beginnings of all documents, then their second rows, and
  so on, so that a few batches have many documents and not only the first long one.

  Args:
    sources: dict name -> source, see Rows.
    batch_size, seq_len: of each batch.
    n_batches: largest number of batches; the last may end in padding (weight 0).

  Returns:
    list of feed.Tokens of np arrays [batch_size, seq_len].
  """
  pieces = []
  for name, source in sources.items():
    for i in range(len(source)):
      for offset in range(0, int(source.lengths[i]) - 1, seq_len):
        turn = (i + 0.5) / len(source)  # sources alternate in proportion
        pieces.append((offset, turn, name, i))
  batches, plan, pairs, size = [], [], 0, batch_size * seq_len
  for offset, _, name, i in sorted(pieces):
    count = min(int(sources[name].lengths[i]) - 1 - offset, seq_len)
    while count and len(batches) < n_batches:
      take = min(count, size - pairs)
      plan.append((name, i, offset, take))
      offset, count, pairs = offset + take, count - take, pairs + take
      if pairs == size:
        batches.append(_read(sources, plan, 0, size, seq_len, positions))
        plan, pairs = [], 0
  if pairs and len(batches) < n_batches:
    batches.append(_read(sources, plan, 0, size, seq_len, positions))
  return batches


def _order(count, seed, name):
  """grain's shuffled, repeating order of `count` records; epochs differ."""
  digest = hashlib.blake2b(f'{seed}/{name}'.encode(), digest_size=4).digest()
  dataset = grain.MapDataset.range(count).seed(int.from_bytes(digest, 'little'))
  return dataset.shuffle().repeat()


def _read(sources, plan, start, stop, seq_len, positions):
  """Packs pairs [start, stop) of a plan into rows; reads only the documents in it.

  Where the plan ends before `stop`, the rest is padding.
  """
  inputs, targets, documents, at = [], [], [], 0
  for number, (name, record, offset, count) in enumerate(plan):
    first, last = max(start - at, 0), min(stop - at, count)
    at += count
    if first >= last:
      continue
    ids = sources[name][record][offset + first : offset + last + 1]
    inputs.append(ids[:-1])
    targets.append(ids[1:])
    documents.append((number, last - first))
  if missing := max(stop - max(at, start), 0):
    inputs.append(np.zeros(missing, np.uint32))
    targets.append(np.zeros(missing, np.uint32))
    documents.append((-1, missing))
  numbers, counts = zip(*documents)
  return pack.pack(
    np.concatenate(inputs),
    np.concatenate(targets),
    np.repeat(numbers, counts),
    seq_len,
    positions,
  )
