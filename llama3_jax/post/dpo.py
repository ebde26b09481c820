"""Direct preference optimization (4.1.4): format tokens masked, NLL of the chosen."""

import jax
import jax.numpy as jnp

from llama3_jax import feed
from llama3_jax.base import log
from llama3_jax.config import ModelConfig
from llama3_jax.model import llama
from llama3_jax.train import likelihood


def loss(
  params: llama.Params,
  batch: feed.Pairs,
  config: ModelConfig,
  beta: float = 0.1,
  nll: float = 0.2,
  chunk: int = 1024,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """-log sigmoid(beta * margin) + nll * NLL(chosen), summed over pairs.

  margin = change of log p(chosen) - change of log p(rejected), each relative to the
  reference (`ref_logp` f32 [B,2]) and summed over `contrast`: response tokens without
  format tokens. NLL is the mean over the chosen response's tokens, format tokens (its
  eot) included. Metric sums over pairs: loss, contrast (first term), nll, chosen and
  rejected (log-probability changes), margin, accuracy, count.
  """
  logp = likelihood.of_targets(params, batch, config, chunk)
  change = jnp.sum(logp * batch.contrast, -1) - batch.ref_logp
  tokens = jnp.sum(batch.weight, -1)
  real = (tokens[:, 0] > 0).astype(jnp.float32)
  margin = beta * (change[:, 0] - change[:, 1])
  first = jax.nn.softplus(-margin)
  second = -jnp.sum(logp * batch.weight, -1)[:, 0] / jnp.maximum(tokens[:, 0], 1)
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


def reference(
  params: llama.Params,
  rows: feed.Pairs,
  config: ModelConfig,
  batch_size: int = 16,
  chunk: int = 1024,
) -> feed.Pairs:
  """`rows` with `ref_logp` f32 [pairs,2]: log-probabilities under the SFT model."""
  contrast = rows.replace(weight=rows.contrast)
  with log.work(f'log-probabilities of {len(rows.tokens):,} pairs before training'):
    logp = likelihood.of_rows(params, contrast, config, batch_size, chunk)
  return rows.replace(ref_logp=logp.reshape(-1, 2))
