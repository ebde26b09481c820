"""A decoder in miniature and packed rows for it."""

import numpy as np

from llama3_jax.config import ModelConfig

C = ModelConfig(
  2, 32, 4, 2, 8, 48, vocab_size=64, rope_theta=1e4, dtype='float32', attention='dense'
)


LENGTHS = ((9, 8, 6), (5, 15, 6))  # of the documents in two rows; the rest is padding
T = 26


def packed(seed=0):
  """tokens, position, segment int32 [2, 26] of packed documents and padding."""
  rng = np.random.default_rng(seed)
  tokens = rng.integers(0, C.vocab_size, (2, T)).astype(np.int32)
  segment, position = np.zeros((2, T), np.int32), np.zeros((2, T), np.int32)
  for row, lengths in enumerate(LENGTHS):
    ends = np.cumsum(lengths)
    for i, (n, end) in enumerate(zip(lengths, ends)):
      segment[row, end - n : end] = i + 1
      position[row, end - n : end] = np.arange(n)
  return tokens, position, segment
