"""Direct preference optimization (4.1.4): format tokens masked, NLL of the chosen."""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from llama3_jax import axes
from llama3_jax import feed
from llama3_jax.config import ModelConfig
from llama3_jax.model import llama
from llama3_jax.post import reward
from llama3_jax.post import rows as rows_lib
from llama3_jax.train import loss as loss_lib


def token_logp(
  params: llama.Params, batch: Mapping, config: ModelConfig, chunk: int = 1024
) -> jax.Array:
  """Log-probability of each target, float32 [B,2,T], of rows from `dpo_rows`."""
  rows = reward.flat(batch)
  hidden, _ = llama.forward(
    params, rows['tokens'], rows['position'], rows['segment'], config
  )
  logp, _ = loss_lib.logprobs(params, hidden, rows['targets'], config, chunk)
  return axes.shard(logp.reshape(batch['tokens'].shape), 'B_T')


def loss(
  params: llama.Params,
  batch: Mapping,
  config: ModelConfig,
  beta: float = 0.1,
  nll: float = 0.2,
  chunk: int = 1024,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """-log sigmoid(beta * margin) + nll * NLL(chosen), summed over pairs.

  margin = change of log p(chosen) - change of log p(rejected), each against the
  reference (`ref_logp` f32 [B,2]) and summed over `contrast`: response tokens without
  format tokens. NLL is the mean over the chosen response's tokens, format tokens (its
  eot) included. Metric sums over pairs: loss, contrast (first term), nll, chosen and
  rejected (log-probability changes), margin, accuracy, count.
  """
  logp = token_logp(params, batch, config, chunk)
  weight, contrast = (axes.shard(batch[n], 'B_T') for n in ('weight', 'contrast'))
  change = jnp.sum(logp * contrast, -1) - axes.shard(batch['ref_logp'], 'B_')
  tokens = jnp.sum(weight, -1)
  real = (tokens[:, 0] > 0).astype(jnp.float32)
  margin = beta * (change[:, 0] - change[:, 1])
  first = jax.nn.softplus(-margin)
  second = -jnp.sum(logp * weight, -1)[:, 0] / jnp.maximum(tokens[:, 0], 1)
  total = jnp.sum(real * (first + nll * second))
  metrics = {
    'loss': total,
    'contrast': jnp.sum(real * first),
    'nll': jnp.sum(real * second),
    'chosen': jnp.sum(real * change[:, 0]),
    'rejected': jnp.sum(real * change[:, 1]),
    'margin': jnp.sum(real * margin),
    'accuracy': jnp.sum(real * ((margin > 0) + 0.5 * (margin == 0))),
    'count': jnp.sum(real),
  }
  return total, metrics


@functools.partial(jax.jit, static_argnames=('config', 'chunk'))
def _pair_logp(params, batch, config, chunk):
  logp = token_logp(params, batch, config, chunk)
  return jnp.sum(logp * axes.shard(batch['contrast'], 'B_T'), -1)


def reference(
  params: llama.Params,
  rows: Mapping[str, np.ndarray],
  config: ModelConfig,
  batch_size: int = 16,
  chunk: int = 1024,
) -> dict[str, np.ndarray]:
  """`rows` with `ref_logp` f32 [pairs,2]: log-probabilities under the SFT model."""
  size = len(rows['tokens'])
  found = [
    np.asarray(_pair_logp(params, feed.place(batch), config, chunk))
    for batch in rows_lib.batches(rows, batch_size)
  ]
  logp = np.concatenate([np.zeros((0, 2), np.float32), *found])[:size]
  return {**rows, 'ref_logp': logp}
