"""Rows of post-training in memory, in a seeded order that can be resumed."""

import dataclasses
import hashlib
from collections.abc import Mapping
from collections.abc import Sequence

import jax
import numpy as np
from absl import logging

from llama3_jax import feed
from llama3_jax.base.errors import UserError

LONGEST = 1024  # tokens of a row whose length is chosen by its examples
# Computed by a model: the digits of the same examples differ between machines.
COMPUTED = ('ref_logp',)


class Rows:
  """Serves `arrays` (a batch of all rows, see feed.py) in batches, epoch after epoch.

  Each epoch is a permutation sampled from (seed, epoch), so the order depends on
  neither the number of hosts nor the batch size. `length` is the rows' T; `tokens` is
  the number of tokens served, without padding.
  """

  def __init__(self, arrays: feed.Rows, length: int, seed: int = 0) -> None:
    self.arrays = arrays
    self.length = length
    self.seed = seed
    self.size = len(arrays.tokens)
    self.served, self.tokens = 0, 0
    self._epoch, self._order = -1, None
    if self.size == 0:
      raise UserError(
        f'no example fits into train.length={length} tokens: raise it, or give rows '
        'with --files=rows.jsonl'
      )
    group = tuple(range(1, arrays.segment.ndim))
    self.counts = np.sum(arrays.segment > 0, axis=group)
    self.fingerprint = digest(arrays)

  def batch(self, size: int, length: int, shard: tuple[int, int] = (0, 1)) -> feed.Rows:
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

  def read(self, picked: list[int], shard: tuple[int, int] = (0, 1)) -> feed.Rows:
    """This host's part of planned rows; shard: (host, number of hosts)."""
    host, hosts = shard
    if len(picked) % hosts:
      raise UserError(f'train.batch={len(picked)} does not divide over {hosts} hosts')
    part = len(picked) // hosts
    own = picked[host * part : (host + 1) * part]
    return jax.tree.map(lambda x: x[own], self.arrays)

  def _row(self, index: int) -> int:
    epoch, offset = divmod(index, self.size)
    if epoch != self._epoch:
      rng = np.random.default_rng((self.seed, epoch))
      self._epoch, self._order = epoch, rng.permutation(self.size)
    return int(self._order[offset])

  def state(self) -> dict:
    """State for `restore`, as JSON-ready values."""
    return {'served': self.served, 'tokens': self.tokens, 'rows': self.fingerprint}

  def restore(self, state: Mapping) -> None:
    """Continue after `state`; UserError when it is of other rows."""
    if state.get('rows', self.fingerprint) != self.fingerprint:
      raise UserError(
        'the training rows are not those this run began with: data.files, data.tasks '
        'or the vocabulary changed; put the files back or start a new workdir'
      )
    self.served, self.tokens = int(state['served']), int(state['tokens'])


def digest(arrays: feed.Rows) -> str:
  """Fingerprint (hex) of the content and order of rows, without the fields that a model
  computed and without dims of size 1."""
  hasher = hashlib.blake2b(digest_size=16)
  for name in sorted({f.name for f in dataclasses.fields(arrays)} - set(COMPUTED)):
    array = np.ascontiguousarray(getattr(arrays, name))
    shape = array.shape[:1] + tuple(n for n in array.shape[1:] if n != 1)
    hasher.update(f'{name} {array.dtype} {shape};'.encode())
    hasher.update(array)
  return hasher.hexdigest()


def fitting(longest: int) -> int:
  """Tokens of rows for examples of up to `longest`: a multiple of 64, at most LONGEST;
  longer examples are dropped, as with any length."""
  return min(max(-(-longest // 64), 1) * 64, LONGEST)


def tell_dropped(dropped: int, total: int, length: int) -> None:
  """Says in the log how many of `total` examples are too long for a row."""
  if dropped:
    logging.info(
      '%s of %s examples are longer than train.length=%d and dropped',
      f'{dropped:,}',
      f'{total:,}',
      length,
    )


def first_fit(
  sizes: Sequence[int], length: int, open_rows: int = 32
) -> list[list[int]]:
  """Which of the examples of `sizes` tokens, none above `length`, share a row of
  `length`: their numbers in order, each in the first of the last `open_rows` rows that
  has place for it."""
  packed, free = [], []
  for number, size in enumerate(sizes):
    for i in range(max(len(packed) - open_rows, 0), len(packed)):
      if free[i] >= size:
        packed[i].append(number)
        free[i] -= size
        break
    else:
      packed.append([number])
      free.append(length - size)
  return packed


def place(
  ids: list[int], length: int, mask: Sequence[bool] | np.ndarray = ()
) -> feed.Tokens:
  """One padded row [T] of one document.

  targets[t] is the token after tokens[t]; the last one has none (0, never weighted).
  mask: which tokens are supervised; index t of the weight belongs to token t + 1.
  """
  n = len(ids)
  row = jax.tree.map(lambda x: x[0], feed.empty(feed.Tokens, dict(B=1, T=length)))
  row.tokens[:n] = ids
  row.targets[: max(n - 1, 0)] = ids[1:]
  row.segment[:n] = 1
  row.position[:n] = np.arange(n)
  row.weight[: max(len(mask) - 1, 0)] = mask[1:]
  return row


def stack(rows: list) -> object:
  """Rows stacked along a new leading dim: a batch of rows, or a group of them."""
  return jax.tree.map(lambda *x: np.stack(x), *rows)
