"""Batches for tests that compare layouts: packed documents, padding, uneven weights."""

import numpy as np

from llama3_jax import feed


def packed(b, t, seed=0):
  """A batch [b,t] of up to four documents a row below 64; row 5 is all padding."""
  rng = np.random.default_rng(seed)
  tokens, targets = rng.integers(0, 64, (2, b, t)).astype(np.int32)
  segment = np.sort(rng.integers(1, 5, (b, t)), 1).astype(np.int32)
  segment[1, 5 * t // 8 :] = 0
  segment[5] = 0
  position = np.tile(np.arange(t, dtype=np.int32), (b, 1))
  weight = (rng.random((b, t)) * (segment > 0)).astype(np.float32)
  return feed.Tokens(tokens, targets, segment, position, weight)
