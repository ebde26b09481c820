"""Sums of decision trees: the score of a block from its measures, in two passes.

The second pass also sees what the first says about the block's neighbours and about the
elements around it, so that an article is kept as a whole and a teaser in it is not.
"""

import dataclasses
import functools
import hashlib
import io
import pathlib

import numpy as np

from llama3_jax.base.errors import UserError
from llama3_jax.curate.extraction import cut
from llama3_jax.curate.extraction import measures
from llama3_jax.curate.extraction import walk
from llama3_jax.curate.machine import compiled

FILE = pathlib.Path(__file__).parent / 'blocks.npz'
# Of that file and of what its columns are; a stage's fingerprint holds the source of
# its modules, and so the trees.
DIGEST = '4ad48ee8f5ddb425'
CONTEXT = (
  'own p-1 p+1 p-2 p+2 p-3 p+3 up1 up2 up3 up4 up5 page before after shape window '
  'head section'
).split()
WIDTH = len(measures.NAMES) + len(CONTEXT)


@dataclasses.dataclass(frozen=True)
class Trees:
  """Trees of one depth, as full binary trees.

  Fields:
    bias: added to the sum.
    column: int16 [trees, 2**depth - 1] measure of each split.
    limit: float32 of that shape; above it, to the right.
    value: float32 [trees, 2**depth].
  """

  bias: float
  column: np.ndarray
  limit: np.ndarray
  value: np.ndarray


def digest(raw: bytes) -> str:
  """Fingerprint of a file of trees and of the measures that its columns count."""
  columns = ' '.join([*measures.NAMES, *CONTEXT])
  return hashlib.sha256(raw + columns.encode()).hexdigest()[:16]


@functools.cache
def load() -> tuple[Trees, Trees]:
  """The trees of both passes; UserError where file or measures are not DIGEST's."""
  raw = FILE.read_bytes()
  if digest(raw) != DIGEST:
    raise UserError(
      f'{FILE}: not the trees of these measures; install this version again, or train '
      'them (bench/extraction.py --train)'
    )
  with np.load(io.BytesIO(raw)) as data:
    return tuple(
      Trees(float(data[f'bias{k}']), data[f'column{k}'], data[f'limit{k}'],
            data[f'value{k}'])
      for k in (1, 2)
    )  # fmt: skip


@functools.cache
def packed() -> tuple[walk.Limits, walk.Walk, walk.Walk]:
  """The trees of both passes on ranks among their limits."""
  limits, (one, two) = walk.pack(load(), WIDTH)
  return limits, one, two


def score(x: np.ndarray, trees: Trees) -> np.ndarray:
  """float32 [blocks], log odds to be text, from float32 [blocks, measures].

  The slow reference of walk.score, and what training uses.
  """
  column = trees.column.view(np.uint16)  # unsigned: no test for negative places
  return _score(x, trees.bias, column, trees.limit, trees.value)


@compiled.kernel(
  compiled.TABLE_F, compiled.FLOAT, compiled.COLUMNS, compiled.TABLE_F, compiled.TABLE_F
)
def _score(x, bias, column, limit, value):
  result, leaves, depth = np.empty(len(x), np.float32), np.uint32(value.shape[1]), 0
  while 1 << depth < value.shape[1]:
    depth += 1
  one, two = np.uint32(1), np.uint32(2)
  for i in range(len(x)):
    result[i] = bias
    for t in range(len(column)):
      row, split, low, k = x[i], column[t], limit[t], np.uint32(0)
      for _ in range(depth):
        k = two * k + one + np.uint32(row[split[k]] > low[k])
      result[i] += value[t, k + one - leaves]
  return result


def context(x: np.ndarray, first: np.ndarray, mass: np.ndarray, found: cut.Cut):
  """Measures for the second pass: those of the first, and CONTEXT of its scores.

  Args:
    x: float32 [blocks, measures].
    first: float32 [blocks], scores of the first pass.
    mass: float64 [blocks], characters.
    found: cut.Cut.

  Returns:
    float32 [blocks, measures + CONTEXT].
  """
  return np.concatenate([x, _around(x, first, mass, found)], 1)


def _around(x, first, mass, found):
  p = (1 / (1 + np.exp(-first.astype(np.float64)))).astype(np.float32)
  gap = x[:, measures.HEADGAP].copy()
  return _context(p, mass, found.blocks, found.nodes, gap)


@compiled.kernel(
  compiled.FLOATS_F, compiled.FLOATS, compiled.ROWS, compiled.ROWS, compiled.FLOATS_F
)
def _context(p, mass, blocks, nodes, gap):
  n = len(p)
  c = np.zeros((n, 19), np.float32)
  sums = np.zeros((n + 1, 2))
  for i in range(n):
    sums[i + 1, 0] = sums[i, 0] + mass[i]
    sums[i + 1, 1] = sums[i, 1] + mass[i] * p[i]
  all_, kept = max(1.0, sums[n, 0]), max(1e-6, sums[n, 1])
  for i in range(n):
    c[i, 0] = p[i]
    for k in range(6):
      j = i + (-1, 1, -2, 2, -3, 3)[k]
      c[i, 1 + k] = p[j] if 0 <= j < n else -1.0
    for k in range(7, 12):
      c[i, k] = -1.0
    node, level, size = blocks[i, cut.NODE], -1, 0
    while level < 5:
      first, last = nodes[node, cut.FIRST], nodes[node, cut.LAST]
      if last - first > size:
        size = last - first
        level += 1
        if 1 <= level <= 5:
          c[i, 6 + level] = (sums[last, 1] - sums[first, 1]) / (
            sums[last, 0] - sums[first, 0]
          )
      if node == 0:
        break
      node = nodes[node, cut.PARENT]
    c[i, 12] = kept / all_
    c[i, 13] = sums[i, 1] / kept
    c[i, 14] = 1 - sums[i + 1, 1] / kept
    same, weight = 0.0, 0.0
    for j in range(max(0, i - 10), min(n, i + 11)):
      if nodes[blocks[j, cut.NODE], cut.SHAPE] == nodes[blocks[i, cut.NODE], cut.SHAPE]:
        same += mass[j] * p[j]
        weight += mass[j]
    c[i, 15] = same / weight
    low, high = max(0, i - 5), min(n, i + 6)
    c[i, 16] = (sums[high, 1] - sums[low, 1]) / max(1.0, sums[high, 0] - sums[low, 0])
  first = 0
  while first < n:  # what is under one heading
    last = first + 1
    while last < n and gap[last] > gap[last - 1]:
      last += 1
    mean = (sums[last, 1] - sums[first, 1]) / (sums[last, 0] - sums[first, 0])
    for i in range(first, last):
      c[i, 17] = p[first] if gap[first] == 0 else -1.0
      c[i, 18] = mean
    first = last
  return c


def scores(found: cut.Cut, title: bytes) -> np.ndarray:
  """float32 [blocks]: log odds of both passes together."""
  x, mass = measures.measures(found, title)
  limits, one, two = packed()
  ranks = walk.empty(len(x), limits)
  walk.rank(x, 0, limits, ranks)
  around = _around(x, walk.score(ranks, len(x), one), mass, found)
  walk.rank(around, x.shape[1], limits, ranks)
  return walk.score(ranks, len(x), two)
