"""Both answers of a pair in one row, so that their prompt is read once (4.1.4).

The answers are branches after the prompt, neither of which sees the other: log-
probabilities are those of two rows. The last token of the prompt begins each branch,
since each answer has a first token of its own to be its target.
"""

import jax
import jax.numpy as jnp
import numpy as np

from llama3_jax import axes
from llama3_jax import feed
from llama3_jax.base.errors import UserError
from llama3_jax.config import ModelConfig
from llama3_jax.kernels import rule
from llama3_jax.model import llama
from llama3_jax.post import rows as rows_lib
from llama3_jax.train import likelihood

MODES = ('separate', 'exact')


def mode(name: str) -> bool:
  """Whether pairs share a row; a UserError names an unknown data.mode."""
  if name not in MODES:
    raise UserError(f'data.mode={name!r} is unknown: use one of {", ".join(MODES)}')
  return name == 'exact'


def rows(pairs: feed.Pairs, length: int) -> tuple[feed.Joined, int]:
  """Rows of `length` tokens, 0: as long as the longest needs (rows.fitting), and how
  many pairs were too long and dropped.

  pairs: np arrays [n,2,T].
  """
  made = [_row(pairs, i) for i in range(len(pairs.tokens))]
  sizes = [len(row.tokens) for row in made]
  length = length or rows_lib.fitting(max(sizes, default=1))
  fits = [row for row, size in zip(made, sizes) if size <= length]
  dropped = len(made) - len(fits)
  rows_lib.tell_dropped(dropped, len(made), length)
  if not fits:
    return feed.empty(feed.Joined, dict(B=0, A=2, T=length)), dropped
  return rows_lib.stack([_padded(row, length) for row in fits]), dropped


def _row(pairs, i):
  """The row of pair `i`, without padding."""
  used = np.sum(pairs.segment[i] > 0, -1)
  one, two = (ids[:n] for ids, n in zip(pairs.tokens[i], used))
  supervised = pairs.weight[i] > 0
  starts = [int(np.argmax(w)) if w.any() else n for w, n in zip(supervised, used)]
  most = min(*starts, *map(int, used))
  same = one[:most] == two[:most]
  shared = most if same.all() else int(np.argmin(same))
  parts = [
    (0, slice(0, shared)),
    *((k, slice(shared, int(n))) for k, n in enumerate(used)),
  ]
  cut = lambda x: np.concatenate([x[i, k, part] for k, part in parts])
  branch = np.repeat((0, 1, 2), [part.stop - part.start for _, part in parts])
  names = ('tokens', 'targets', 'position', 'weight', 'contrast')
  arrays = {name: cut(getattr(pairs, name)) for name in names}
  segment = (1 + rule.BRANCH * branch).astype(np.int32)
  return feed.Joined(**arrays, segment=segment, ref_logp=pairs.ref_logp[i])


def _padded(row, length):
  """The row with padding up to `length` tokens."""
  fill = lambda x: np.pad(x, (0, length - len(x)))
  return jax.tree.map(fill, row).replace(ref_logp=row.ref_logp)


def of_targets(
  params: llama.Params,
  batch: feed.Pairs | feed.Joined,
  config: ModelConfig,
  chunk: int = 1024,
  kept: int = 0,
) -> tuple[jax.Array, feed.Pairs]:
  """Log-probability of each target, float32 [B,2,T], and the batch as Pairs, whose
  weights say which answer a token is of; arguments as of likelihood.of_targets."""
  if isinstance(batch, feed.Pairs):
    return likelihood.of_targets(params, batch, config, chunk, kept), batch
  logp = likelihood.of_targets(params, batch, config, chunk, kept, branches=True)
  answer = batch.segment[:, None] // rule.BRANCH == jnp.arange(1, 3)[:, None]
  own = lambda x: axes.shard(jnp.where(answer, x[:, None], 0), 'BAT')
  shared = {n: getattr(batch, n)[:, None] for n in ('tokens', 'targets', 'position')}
  apart = feed.Pairs(
    **shared,
    segment=own(batch.segment),
    weight=own(batch.weight),
    contrast=own(batch.contrast),
    ref_logp=batch.ref_logp,
  )
  return own(logp), apart
