"""Packing: documents into rows of any length, nothing lost, no target across a border.

A document of n tokens gives n - 1 pairs (token, next token). Pairs are laid end to end
and cut into rows (concat-then-split): a row is always full, and a document longer than
the row continues in the next one. Attention is masked between documents by `segment`
(3.2), so the cut costs context but no token.
"""

import numpy as np

from llama3_jax import feed
from llama3_jax.base.errors import UserError

POSITIONS = ('row', 'document')


def pack(
  inputs: np.ndarray,
  targets: np.ndarray,
  document: np.ndarray,
  seq_len: int,
  positions: str = 'row',
) -> feed.Tokens:
  """Cuts a stream of pairs into rows.

  Args:
    inputs, targets: integer [B * T], the pairs of consecutive documents end to end.
    document: integer [B * T], number of each pair's document, which differs between
      neighbours; -1 is padding.
    seq_len: T.
    positions: 'row' counts 0..T-1 in each row, 'document' restarts at each document.

  Returns:
    feed.Tokens of np arrays [B, T]. Segments count from 1 in each row; padding has
    segment 0 and weight 0.
  """
  if positions not in POSITIONS:
    raise UserError(f'data.positions: {positions!r}; it is one of {POSITIONS}')
  document = document.reshape(-1, seq_len)
  starts = np.zeros(document.shape, bool)
  starts[:, 1:] = document[:, 1:] != document[:, :-1]
  position = np.broadcast_to(np.arange(seq_len, dtype=np.int32), document.shape)
  if positions == 'document':
    position = position - np.maximum.accumulate(np.where(starts, position, 0), axis=1)
  valid = document >= 0
  return feed.Tokens(
    tokens=inputs.reshape(document.shape).astype(np.int32),
    targets=targets.reshape(document.shape).astype(np.int32),
    segment=np.where(valid, np.cumsum(starts, axis=1) + 1, 0).astype(np.int32),
    position=np.ascontiguousarray(position, np.int32),
    weight=valid.astype(np.float32),
  )
