"""Token log-probabilities and the next-token loss, never holding B x T x V logits."""

import jax
import jax.numpy as jnp

from llama3_jax import axes
from llama3_jax.model import llama


def logprobs(params, hidden, targets, config, chunk=1024):
  """Log-probability of each target and log of the softmax's sum, float32 [B,T] each.

  Args: hidden [B,T,D]; targets int32 [B,T]; chunk: columns whose logits exist at one
  time (0: all). The columns of a chunk stride through the row, so that under context
  parallelism every device has its share of every chunk.
  """
  t = hidden.shape[1]
  chunks = -(-t // chunk) if chunk else 1
  while t % chunks:
    chunks += 1
  if chunks == 1:
    return _picked(params, hidden, targets, config)

  def split(x, dims):
    x = x.reshape(x.shape[0], t // chunks, chunks, *x.shape[2:])
    return axes.shard(jnp.moveaxis(x, 2, 0), '_' + dims)

  @jax.checkpoint
  def one(_, part):
    return None, _picked(params, *part, config)

  parts = split(hidden, 'BTD'), split(targets, 'BT')
  _, results = jax.lax.scan(one, None, parts)
  return tuple(jnp.moveaxis(x, 0, 2).reshape(targets.shape) for x in results)


def _picked(params, hidden, targets, config):
  logits = llama.logits(params, hidden, config)
  place = {} if axes.mesh() is None else dict(out_sharding=jax.typeof(logits).sharding)
  # A mask instead of a gather: the vocabulary may be sharded.
  iota = jax.lax.broadcasted_iota(jnp.int32, logits.shape, 2, **place)
  picked = jnp.sum(jnp.where(iota == targets[..., None], logits, 0), -1)
  logz = jax.nn.logsumexp(logits, -1)
  return picked - logz, logz


def next_token(params, batch, config, z_loss=0.0, chunk=1024):
  """Weighted cross entropy, summed over supervised tokens, plus the z-loss.

  Returns (scalar sum, metric sums): `count` supervised tokens, `loss` without the
  z-loss.
  """
  hidden, _ = llama.forward(
    params, batch['tokens'], batch['position'], batch['segment'], config
  )
  logp, logz = logprobs(params, hidden, batch['targets'], config, chunk)
  weight = batch['weight']
  loss = -jnp.sum(logp * weight)
  total = loss + z_loss * jnp.sum(logz * logz * weight)
  return total, {'loss': loss, 'count': jnp.sum(weight)}
