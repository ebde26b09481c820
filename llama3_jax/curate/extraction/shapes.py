"""How often the shape and the text of a block occur in its page."""

import numpy as np

from llama3_jax.curate.extraction import cut
from llama3_jax.curate.machine import compiled


@compiled.inner
def _number(keys):
  """(int64 [keys] number of each key, in order of appearance; how many there are)."""
  n, size, count = len(keys), 1, 0
  while size < 2 * n:
    size *= 2
  slots, first, result = np.full(size, -1), np.zeros(n, np.int64), np.zeros(n, np.int64)
  for i in range(n):
    mixed = np.uint64(keys[i]) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(40)
    k = np.int64(mixed) & (size - 1)
    while slots[k] >= 0 and keys[first[slots[k]]] != keys[i]:
      k = (k + 1) & (size - 1)
    if slots[k] < 0:
      slots[k], first[count] = count, i
      count += 1
    result[i] = slots[k]
  return result, count


@compiled.kernel(compiled.NUMBERS, compiled.TABLE_F, compiled.INT)
def copies(hashes, x, at):
  """Sets column `at` of x: how often the text of a block occurs."""
  index, count = _number(hashes)
  times = np.zeros(count)
  for i in range(len(x)):
    times[index[i]] += 1
  for i in range(len(x)):
    x[i, at] = times[index[i]]


@compiled.kernel(compiled.ROWS, compiled.ROWS)
def signatures(blocks, nodes):
  """Hashes of the shapes of one and of three ancestors of every block."""
  n = len(blocks)
  near, far = np.zeros(n, np.int64), np.zeros(n, np.int64)
  for i in range(n):
    node, value = blocks[i, cut.NODE], np.int64(7)
    for k in range(4):
      value = value * np.int64(1000003) ^ nodes[node, cut.SHAPE]
      node = nodes[node, cut.PARENT]
      if k == 1:
        near[i] = value
    far[i] = value
  return near, far


@compiled.kernel(
  compiled.NUMBERS, compiled.FLOATS, compiled.TABLE_F, compiled.INT, compiled.BOOL
)
def sizes(signature, mass, x, at, links):
  """Sets columns of x from `at` on, of the blocks of a shape: their share of the page's
  text, how many they are, their mean size and, where links is set, share of links.
  """
  index, count = _number(signature)
  sums = np.zeros((count, 3))
  for i in range(len(x)):
    one = sums[index[i]]
    one[0] += mass[i]
    one[1] += 1
    one[2] += mass[i] * x[i, 1]
  total = max(1.0, sums[:, 0].sum())
  for i in range(len(x)):
    one, row = sums[index[i]], x[i]
    row[at], row[at + 1], row[at + 2] = one[0] / total, one[1], one[0] / one[1]
    if links:
      row[at + 3] = one[2] / one[0]
