"""Walks many trees at once: measures as ranks among the trees' limits, one byte each.

A measure is above a limit where more limits than that one's place are below it. So
blocks are compared by bytes, LANES of them side by side, and every split of a tree is
looked at, from the leaves to the root, which costs less than to follow one path.
trees.score is the slow reference; the sums are the same to the last bit.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from llama3_jax.curate.machine import compiled

LANES = 128
HALF = 8  # leaves' parents; known when compiled, so that all is done by whole vectors


@dataclasses.dataclass(frozen=True)
class Walk:
  """Trees on ranks.

  Fields:
    bias: added to the sum.
    column: int64 [trees, 2**depth - 1] measure of each split.
    place: uint8 of that shape, of its limit among the limits of the measure.
    value: float32 [trees, 2**depth].
  """

  bias: float
  column: np.ndarray
  place: np.ndarray
  value: np.ndarray


@dataclasses.dataclass(frozen=True)
class Limits:
  """Limits of all trees: float32 [measures, most], ascending, and int64 [measures]."""

  values: np.ndarray
  count: np.ndarray


def pack(found: Sequence, width: int) -> tuple[Limits, list[Walk]]:
  """The limits of trees.Trees on `width` measures, and the trees on their ranks."""
  column = np.concatenate([one.column.ravel() for one in found])
  limit = np.concatenate([one.limit.ravel() for one in found])
  each = [np.unique(limit[column == c]) for c in range(width)]
  count = np.array([len(one) for one in each])
  if count.max() > 255:
    raise ValueError(f'{count.max()} limits of one measure; a byte counts to 255')
  values = np.zeros((width, max(1, count.max())), np.float32)
  for row, one in zip(values, each):
    row[: len(one)] = one
  walks = []
  for one in found:
    if one.value.shape[1] != 2 * HALF:
      raise ValueError(f'{one.value.shape[1]} leaves a tree; walk.HALF is {HALF}')
    places = [
      np.searchsorted(each[c], above)
      for c, above in zip(one.column.flat, one.limit.flat)
    ]
    place = np.array(places, np.uint8).reshape(one.column.shape)
    walks.append(Walk(one.bias, one.column.astype(np.int64), place, one.value))
  return Limits(values, count), walks


def empty(n: int, limits: Limits) -> np.ndarray:
  """uint8 [groups of LANES blocks, measures, LANES]: room for the ranks of n blocks."""
  return np.empty((-(-n // LANES), len(limits.count), LANES), np.uint8)


def rank(x: np.ndarray, first: int, limits: Limits, ranks: np.ndarray) -> None:
  """Fills in the ranks of measures `first` and after, float32 [blocks, measures]."""
  _rank(x, first, limits.values, limits.count, ranks)


def score(ranks: np.ndarray, n: int, walk: Walk) -> np.ndarray:
  """float32 [n]: the sums of the trees."""
  result = np.empty(n, np.float32)
  _score(ranks, walk.bias, walk.column, walk.place, walk.value, result)
  return result


@compiled.kernel(
  compiled.TABLE_F, compiled.INT, compiled.TABLE_F, compiled.NUMBERS, compiled.BLOCK
)
def _rank(x, first, limits, count, ranks):
  values, above = np.zeros(LANES, np.float32), np.empty(LANES, np.int32)
  for group in range(len(ranks)):
    start = group * LANES
    size = min(LANES, len(x) - start)
    for c in range(x.shape[1]):
      if not count[first + c]:
        continue
      for i in range(size):
        values[i] = x[start + i, c]
      above[:] = 0
      for k in range(count[first + c]):
        limit = limits[first + c, k]
        for i in range(LANES):
          above[i] += values[i] > limit
      out = ranks[group, first + c]
      for i in range(LANES):
        out[i] = above[i]


@compiled.kernel(
  compiled.BLOCK,
  compiled.FLOAT,
  compiled.ROWS,
  compiled.TABLE,
  compiled.TABLE_F,
  compiled.FLOATS_F,
)
def _score(ranks, bias, column, place, value, result):
  leaf, sums = np.empty((HALF, LANES), np.uint8), np.empty(LANES, np.float32)
  for group in range(len(ranks)):
    here = ranks[group]
    sums[:] = bias
    for t in range(len(column)):
      _leaves(here, column[t], place[t], leaf)
      one, values = leaf[0], value[t]
      for i in range(LANES):
        sums[i] += values[one[i]]
    start = group * LANES
    for i in range(min(LANES, len(result) - start)):
      result[start + i] = sums[i]


@compiled.once
def _leaves(here, column, place, leaf):
  """Sets leaf[0] to the leaf of every block: of each split, from the last level up."""
  for k in range(HALF):
    ranks, limit, out = here[column[HALF - 1 + k]], place[HALF - 1 + k], leaf[k]
    for i in range(LANES):
      out[i] = ranks[i] > limit
  width, bit = HALF // 2, np.uint8(2)
  while width:
    for k in range(width):
      ranks, limit, out = here[column[width - 1 + k]], place[width - 1 + k], leaf[k]
      left, right = leaf[2 * k], leaf[2 * k + 1]
      for i in range(LANES):
        low, high = left[i], np.uint8(right[i] | bit)
        out[i] = high if ranks[i] > limit else low
    width, bit = width // 2, np.uint8(2 * bit)
