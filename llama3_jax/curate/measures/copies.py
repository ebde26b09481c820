"""Equal keys among the words, lines or n-grams of one document (3.1.1)."""

import numpy as np

from llama3_jax.curate.machine import compiled
from llama3_jax.curate.measures import words as texts


@compiled.inner
def heads(keys, places, count, table, stamps, stamp, mask, head, times):
  """Finds equal keys: head[i] is the first place of i's key, times[head] its number.

  `table` and `stamps` are a hash table of mask + 1 slots; an entry counts when its
  stamp is this call's, so it is never cleared.
  """
  for k in range(count):
    i = places[k]
    key = keys[i]
    slot = np.int64(texts.mix(key) & np.uint64(mask))
    while stamps[slot] == stamp and keys[table[slot]] != key:
      slot = (slot + 1) & mask
    if stamps[slot] != stamp:
      stamps[slot], table[slot], times[i] = stamp, i, 0
    head[i] = table[slot]
    times[table[slot]] += 1


@compiled.inner
def room(first):
  """Slots (a power of 2) of a table for the longest document."""
  longest = 1
  for d in range(len(first) - 1):
    longest = max(longest, first[d + 1] - first[d])
  slots = 2
  while slots < 2 * longest:
    slots *= 2
  return longest, slots


@compiled.inner
def mask(count, slots):
  """A mask for few entries: a small table stays in the cache."""
  while slots > 2 and slots // 2 >= 2 * count:
    slots //= 2
  return slots - 1
