"""Rows of post-training held in memory, served in a seeded order that can resume."""

import hashlib
from collections.abc import Mapping

import numpy as np

from llama3_jax.base.errors import UserError

# Computed by a model: other digits on another machine, from the same examples.
COMPUTED = ('ref_logp',)


class Rows:
  """Serves `arrays` (name -> [rows, ...]) in batches, epoch after epoch.

  Each epoch is a fresh permutation drawn from (seed, epoch), so the order depends on
  neither the number of hosts nor the batch size. `length` is the rows' T; `tokens`
  counts what was served, padding not counted.
  """

  def __init__(self, arrays: Mapping[str, np.ndarray], length: int, seed: int = 0):
    self.arrays = dict(arrays)
    self.length = length
    self.seed = seed
    self.size = len(next(iter(self.arrays.values())))
    self.served, self.tokens = 0, 0
    self._epoch, self._order = -1, None
    if self.size == 0:
      raise UserError(
        f'no example fits into train.length={length} tokens: raise it or give examples'
      )
    group = tuple(range(1, self.arrays['segment'].ndim))
    self.counts = np.sum(self.arrays['segment'] > 0, axis=group)
    self.fingerprint = digest(self.arrays)

  def batch(self, size: int, length: int, shard: tuple[int, int] = (0, 1)) -> dict:
    """This host's part of the next `size` rows; shard: (host, number of hosts)."""
    if length != self.length:
      raise UserError(
        f'these rows hold {self.length} tokens, not train.length={length}: this stage '
        'takes one length, without a ramp of it'
      )
    host, hosts = shard
    if size % hosts:
      raise UserError(f'train.batch={size} does not divide over {hosts} hosts')
    picked = [self._row(self.served + i) for i in range(size)]
    self.served += size
    self.tokens += int(np.sum(self.counts[picked]))
    part = size // hosts
    mine = picked[host * part : (host + 1) * part]
    return {name: array[mine] for name, array in self.arrays.items()}

  def _row(self, index: int) -> int:
    epoch, place = divmod(index, self.size)
    if epoch != self._epoch:
      rng = np.random.default_rng((self.seed, epoch))
      self._epoch, self._order = epoch, rng.permutation(self.size)
    return int(self._order[place])

  def state(self) -> dict:
    """What `restore` needs, as JSON-ready values."""
    return {'served': self.served, 'tokens': self.tokens, 'rows': self.fingerprint}

  def restore(self, state: Mapping) -> None:
    """Goes on after `state`; UserError when that was taken from other rows."""
    if state.get('rows', self.fingerprint) != self.fingerprint:
      raise UserError(
        'the training rows are not those this run began with: data.files, data.tasks '
        'or the vocabulary changed; put the files back or start a new workdir'
      )
    self.served, self.tokens = int(state['served']), int(state['tokens'])


def digest(arrays: Mapping[str, np.ndarray]) -> str:
  """Fingerprint of what rows hold and of their order; what a model computed for them
  is left out."""
  found = hashlib.blake2b(digest_size=16)
  for name in sorted(set(arrays) - set(COMPUTED)):
    array = np.ascontiguousarray(arrays[name])
    found.update(f'{name} {array.dtype} {array.shape};'.encode())
    found.update(array)
  return found.hexdigest()


def place(ids: list[int], length: int) -> dict[str, np.ndarray]:
  """One padded row of one document: tokens, targets, segment, position, int32 [T].

  targets[t] is the token after tokens[t]; the last one has none (0, never weighted).
  """
  n = len(ids)
  row = {
    name: np.zeros(length, np.int32)
    for name in ('tokens', 'targets', 'segment', 'position')
  }
  row['tokens'][:n] = ids
  row['targets'][: max(n - 1, 0)] = ids[1:]
  row['segment'][:n] = 1
  row['position'][:n] = np.arange(n)
  return row


def shift(mask, length: int) -> np.ndarray:
  """Weight f32 [T] of targets from a mask of tokens: place t speaks of token t + 1."""
  weight = np.zeros(length, np.float32)
  weight[: len(mask) - 1] = np.asarray(mask, np.float32)[1:]
  return weight


def stack(rows: list[dict[str, np.ndarray]], empty: dict) -> dict[str, np.ndarray]:
  """Stacks rows name by name; `empty` (one row) gives the names when there is none."""
  if not rows:
    return {name: np.zeros((0, *np.shape(value))) for name, value in empty.items()}
  return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def batches(arrays: Mapping[str, np.ndarray], size: int) -> list[dict[str, np.ndarray]]:
  """All rows in order, `size` a batch; the last is filled up with rows that count
  nothing in any loss (segment and weight 0, `ends` -1)."""
  count = len(arrays['segment'])
  found = []
  for start in range(0, count, size):
    batch = {}
    for name, array in arrays.items():
      part = array[start : start + size]
      fill = np.zeros((size - len(part), *part.shape[1:]), part.dtype)
      batch[name] = np.concatenate([part, fill - (name == 'ends')])
    found.append(batch)
  return found
