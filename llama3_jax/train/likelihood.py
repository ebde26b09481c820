"""Log-probability of answers after prompts, for every caller (4.1.4, 3.2.1, 5.1)."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from llama3_jax import axes
from llama3_jax import feed
from llama3_jax.base.errors import UserError
from llama3_jax.config import ModelConfig
from llama3_jax.model import llama
from llama3_jax.train import counted
from llama3_jax.train import loss


def of_targets(
  params: llama.Params,
  batch: feed.Tokens | feed.Pairs | feed.Joined,
  config: ModelConfig,
  chunk: int = 1024,
  kept: int = 0,
  branches: bool = False,
) -> jax.Array:
  """Log-probability of each target, float32, shape and layout of the tokens.

  Args: batch: feed.Tokens [B,T] or a batch of groups of rows [B,A,T]; chunk: tokens a
  device whose logits exist at one time (0: all); kept: of counted.most, tokens a row
  that have weight at most: the others are 0 then. 0: all tokens. branches: as of
  llama.forward.
  """
  rows = (batch.tokens, batch.position, batch.segment, batch.targets, batch.weight)
  *inputs, targets, weight = map(feed.flat, rows)
  hidden, _ = llama.forward(params, *inputs, config, branches=branches)
  places, weight, (hidden, targets) = counted.pick(kept, weight, hidden, targets)
  logp, _ = loss.logprobs(params, hidden, targets, config, chunk)
  # NaN where a row has more tokens than were picked.
  logp = counted.spread(logp + 0 * weight, places, batch.tokens.shape[-1])
  return axes.shard(logp.reshape(batch.tokens.shape), feed.letters(batch).tokens)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _sums(params, batch, config, chunk):
  total = jnp.sum(of_targets(params, batch, config, chunk) * batch.weight, -1)
  return axes.shard(total, '_' * total.ndim)  # replicated: it is read on the host


def of_rows(
  params: llama.Params,
  rows: feed.Tokens | feed.Pairs,
  config: ModelConfig,
  size: int,
  chunk: int = 1024,
) -> np.ndarray:
  """Log-probability of every row's weighted targets, np.float32 [rows] or [rows,A].

  Args: rows: a batch of all rows, np arrays; size: rows at a time.
  """
  parts = [
    np.asarray(_sums(params, feed.place(batch), config, chunk))
    for batch in feed.batches(rows, size)
  ]
  return np.concatenate(parts)[: len(rows.tokens)] if parts else np.zeros(0, np.float32)


def of_answers(
  params: llama.Params,
  prompts: Sequence[Sequence[int]],
  answers: Sequence[Sequence[int]],
  config: ModelConfig,
  size: int,
  length: int,
  chunk: int = 1024,
) -> np.ndarray:
  """Log-probability of every answer after its prompt, np.float32 [n].

  Args:
    prompts, answers: lists of token ids, at least one token each.
    size: rows at a time.
    length: tokens of a row; a prompt that is too long for it loses its beginning.
  """
  rows = feed.empty(feed.Tokens, dict(B=len(prompts), T=length))
  for i, (prompt, answer) in enumerate(zip(prompts, answers)):
    room = length + 1 - len(answer)
    if room < 1 or not len(answer) or not len(prompt):
      raise UserError(f'answer {i} has {len(answer)} tokens, a row has {length}')
    ids = np.array([*prompt[-room:], *answer], np.int32)
    n = len(ids) - 1
    rows.tokens[i, :n], rows.targets[i, :n] = ids[:-1], ids[1:]
    rows.segment[i, :n], rows.position[i, :n] = 1, np.arange(n)
    rows.weight[i, n - len(answer) : n] = 1
  return of_rows(params, rows, config, size, chunk)
