"""Rows of post-training held in memory, served in a seeded order that can resume."""

import dataclasses
import hashlib
from collections.abc import Mapping

import jax
import numpy as np

from llama3_jax import feed
from llama3_jax.base.errors import UserError

# Computed by a model: other digits on another machine, from the same examples.
COMPUTED = ('ref_logp',)


class Rows:
  """Serves `arrays` (a batch of all rows, see feed.py) in batches, epoch after epoch.

  Each epoch is a fresh permutation drawn from (seed, epoch), so the order depends on
  neither the number of hosts nor the batch size. `length` is the rows' T; `tokens`
  counts what was served, padding not counted.
  """

  def __init__(self, arrays, length: int, seed: int = 0):
    self.arrays = arrays
    self.length = length
    self.seed = seed
    self.size = len(arrays.tokens)
    self.served, self.tokens = 0, 0
    self._epoch, self._order = -1, None
    if self.size == 0:
      raise UserError(
        f'no example fits into train.length={length} tokens: raise it or give examples'
      )
    group = tuple(range(1, arrays.segment.ndim))
    self.counts = np.sum(arrays.segment > 0, axis=group)
    self.fingerprint = digest(arrays)

  def batch(self, size: int, length: int, shard: tuple[int, int] = (0, 1)):
    """This host's part of the next `size` rows; shard: (host, number of hosts)."""
    return self.read(self.plan(size, length), shard)

  def plan(self, size: int, length: int) -> list[int]:
    """The numbers of the next `size` rows."""
    if length != self.length:
      raise UserError(
        f'these rows hold {self.length} tokens, not train.length={length}: this stage '
        'takes one length, without a ramp of it'
      )
    picked = [self._row(self.served + i) for i in range(size)]
    self.served += size
    self.tokens += int(np.sum(self.counts[picked]))
    return picked

  def read(self, picked: list[int], shard: tuple[int, int] = (0, 1)):
    """This host's part of planned rows; shard: (host, number of hosts)."""
    host, hosts = shard
    if len(picked) % hosts:
      raise UserError(f'train.batch={len(picked)} does not divide over {hosts} hosts')
    part = len(picked) // hosts
    mine = picked[host * part : (host + 1) * part]
    return jax.tree.map(lambda x: x[mine], self.arrays)

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


def digest(arrays) -> str:
  """Fingerprint of what rows hold and of their order; what a model computed for them
  is left out, and so are dims of one."""
  found = hashlib.blake2b(digest_size=16)
  for name in sorted({f.name for f in dataclasses.fields(arrays)} - set(COMPUTED)):
    array = np.ascontiguousarray(getattr(arrays, name))
    shape = array.shape[:1] + tuple(n for n in array.shape[1:] if n != 1)
    found.update(f'{name} {array.dtype} {shape};'.encode())
    found.update(array)
  return found.hexdigest()


def place(ids: list[int], length: int, mask=()) -> feed.Tokens:
  """One padded row [T] of one document.

  targets[t] is the token after tokens[t]; the last one has none (0, never weighted).
  mask: which tokens are supervised; place t of the weight speaks of token t + 1.
  """
  n = len(ids)
  row = jax.tree.map(lambda x: x[0], feed.empty(feed.Tokens, dict(B=1, T=length)))
  row.tokens[:n] = ids
  row.targets[: max(n - 1, 0)] = ids[1:]
  row.segment[:n] = 1
  row.position[:n] = np.arange(n)
  row.weight[: max(len(mask) - 1, 0)] = mask[1:]
  return row


def stack(rows: list):
  """A batch of rows, or a row of a group's rows: one more leading dim."""
  return jax.tree.map(lambda *x: np.stack(x), *rows)
