"""Rewards of several answers to each prompt, which is read once for all (4.2.2).

Answers are branches after their prompt, none of which sees another (kernels/rule.py):
each gets the reward of a dialog of its own. Prompts share rows, so little is padding.
"""

import functools
from collections.abc import Sequence

import jax
import numpy as np

from llama3_jax import axes
from llama3_jax import feed
from llama3_jax.base.errors import UserError
from llama3_jax.config import ModelConfig
from llama3_jax.kernels import rule
from llama3_jax.post import reward

LENGTH, TOKENS, BUCKET = 1024, 4096, 128  # of a row; at a time; lengths are multiples

Piece = tuple[int, tuple[int, ...]]  # a prompt and those of its answers in one row


def rewards(
  params: reward.Reward,
  prompts: Sequence[Sequence[int]],
  answers: Sequence[Sequence[Sequence[int]]],
  config: ModelConfig,
  length: int = LENGTH,
) -> list[np.ndarray]:
  """Reward of every answer to every prompt, [float32 [answers of the prompt]].

  prompts, answers: token ids, an answer up to its eot; length: tokens of a row, more
  where a prompt with one answer is longer.
  """
  for i, given in enumerate(answers):
    if not all(map(len, given)) or not len(prompts[i]):
      raise UserError(f'prompt {i}: it and its answers need at least one token each')
  longest = max(
    (len(p) + max(map(len, a)) for p, a in zip(prompts, answers, strict=True) if a),
    default=0,
  )
  length = -(-max(length, longest) // BUCKET) * BUCKET
  rows = _packed(prompts, answers, length)
  parts = axes.parts('B')
  size = parts * max(1, TOKENS // (length * parts))
  found = [np.zeros(len(given), np.float32) for given in answers]
  back = np.argsort(feed.order(length))
  for start in range(0, len(rows), size):
    built = [_row(pieces, prompts, answers, length) for pieces in rows[start:][:size]]
    blank = np.zeros((3, length), np.int32)
    batch = np.stack([r for r, _ in built] + [blank] * (size - len(built)), 1)
    batch = batch[..., feed.order(length)]
    values = np.asarray(_all(params, *batch, config))[:, back]
    for row, (_, ends) in enumerate(built):
      for prompt, answer, column in ends:
        found[prompt][answer] = values[row, column]
  return found


@functools.partial(jax.jit, static_argnames='config')
def _all(params, tokens, position, segment, config):
  shard = lambda x: axes.shard(x, 'BT')
  inputs = map(shard, (tokens, position, segment))
  return reward.token_rewards(params, *inputs, config, branches=True)


def _packed(prompts, answers, length):
  """Rows of Pieces: the answers of a prompt in as few pieces as fit, the longest pieces
  first, each in the first row with room for it."""
  pieces = []
  for i, (prompt, given) in enumerate(zip(prompts, answers)):
    taken, room = [], length - len(prompt)
    for k, answer in enumerate(given):
      if len(answer) > room:
        pieces.append((i, tuple(taken)))
        taken, room = [], length - len(prompt)
      taken.append(k)
      room -= len(answer)
    if taken:
      pieces.append((i, tuple(taken)))
  size = lambda p: len(prompts[p[0]]) + sum(len(answers[p[0]][k]) for k in p[1])
  rows, rooms = [], []
  for piece in sorted(pieces, key=size, reverse=True):
    at = next((r for r, room in enumerate(rooms) if size(piece) <= room), len(rows))
    if at == len(rows):
      rows.append([])
      rooms.append(length)
    rows[at].append(piece)
    rooms[at] -= size(piece)
  return rows


def _row(pieces, prompts, answers, length):
  """(tokens, position, segment: int32 [3,T], [(prompt, answer, column of its end)])."""
  row, ends, column = np.zeros((3, length), np.int32), [], 0
  for document, (i, taken) in enumerate(pieces, 1):
    prompt = prompts[i]
    parts = [(prompt, 0, document)]
    for branch, k in enumerate(taken, 1):
      parts.append((answers[i][k], len(prompt), document + branch * rule.BRANCH))
    for (ids, first, segment), k in zip(parts, (None, *taken)):
      part = slice(column, column + len(ids))
      row[:, part] = ids, first + np.arange(len(ids)), np.full(len(ids), segment)
      column = part.stop
      if k is not None:
        ends.append((i, k, column - 1))
  return row, ends
