"""Search in sorted keys, for compiled functions."""

import numpy as np

from llama3_jax.curate.machine import compiled


@compiled.inner
def place(keys, key):
  """Place of the first of sorted keys that is not below one; their number if none."""
  low, high = np.int64(0), len(keys)
  while low < high:
    middle = (low + high) >> 1
    if keys[middle] < key:
      low = middle + 1
    else:
      high = middle
  return low
