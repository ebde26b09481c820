"""Direct preference optimization (4.1.4): format tokens masked, NLL of the chosen.

Other losses on the same rows stand beside it (post/losses): what is compared, the mask
and the NLL are the same.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from llama3_jax import feed
from llama3_jax.base.errors import UserError
from llama3_jax.config import ModelConfig
from llama3_jax.model import llama
from llama3_jax.post import joined
from llama3_jax.post.losses import dpo
from llama3_jax.post.losses import ipo
from llama3_jax.post.losses import kto
from llama3_jax.post.losses import orpo
from llama3_jax.post.losses import robust
from llama3_jax.post.losses import simpo
from llama3_jax.post.losses.seen import Seen

LOSSES = dict(dpo=dpo, ipo=ipo, simpo=simpo, kto=kto, orpo=orpo, robust=robust)
OWN = dict(simpo='target', robust='flipped')  # the field that only this loss has

Contrast = Callable[[Seen, float], jax.Array]


def contrast(config: ConfigDict) -> Contrast:
  """The loss of the field `loss`: (Seen, beta) -> float32 [B]."""
  if config.loss not in LOSSES:
    raise UserError(f'loss={config.loss!r} is unknown: use one of {", ".join(LOSSES)}')
  found, own = LOSSES[config.loss].loss, OWN.get(config.loss)
  return functools.partial(found, **{own: config[own]}) if own else found


def loss(
  params: llama.Params,
  batch: feed.Pairs | feed.Joined,
  config: ModelConfig,
  beta: float = 0.1,
  nll: float = 0.2,
  chunk: int = 1024,
  compare: Contrast = dpo.loss,
  kept: int = 0,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """compare(answers, beta) + nll * NLL(chosen), summed over pairs.

  The first term is -log sigmoid(beta * margin) or another of LOSSES; margin = change of
  log p(chosen) - change of log p(rejected), each relative to the reference (`ref_logp`
  f32 [B,2]) and summed over `contrast`: response tokens without format tokens. NLL is
  the mean over the chosen response's tokens, format tokens (its eot) included. Metric
  sums over pairs: loss, contrast (first term), nll, chosen and rejected
  (log-probability changes), margin, accuracy, count. kept: as of likelihood.of_targets.
  """
  logp, pairs = joined.of_targets(params, batch, config, chunk, kept)
  return of_logp(logp, pairs, beta, nll, compare)


def of_logp(
  logp: jax.Array,
  batch: feed.Pairs,
  beta: float = 0.1,
  nll: float = 0.2,
  compare: Contrast = dpo.loss,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """As `loss`, of the log-probability of each target, float32 [B,2,T]."""
  own = jnp.sum(logp * batch.contrast, -1)
  tokens = jnp.sum(batch.weight, -1)
  real = (tokens[:, 0] > 0).astype(jnp.float32)
  compared = jnp.maximum(jnp.sum(batch.contrast, -1), 1)
  seen = Seen(own, own - batch.ref_logp, compared, real)
  margin = beta * seen.margin
  first = compare(seen, beta)
  second = -jnp.sum(logp * batch.weight, -1)[:, 0] / jnp.maximum(tokens[:, 0], 1)
  total = jnp.sum(real * (first + nll * second))
  metrics = {
    'loss': total,
    'contrast': jnp.sum(real * first),
    'nll': jnp.sum(real * second),
    'chosen': jnp.sum(real * seen.change[:, 0]),
    'rejected': jnp.sum(real * seen.change[:, 1]),
    'margin': jnp.sum(real * margin),
    'accuracy': jnp.sum(real * ((margin > 0) + 0.5 * (margin == 0))),
    'count': jnp.sum(real),
  }
  return total, metrics
