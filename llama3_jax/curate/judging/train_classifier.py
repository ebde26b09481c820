"""Training of the classifiers of documents in JAX, and the small encoder (3.1.1)."""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax

from llama3_jax.base.errors import UserError
from llama3_jax.curate.judging import classifier

BLOCK = 64  # documents the encoder scores at a time


def fit(
  ids: np.ndarray, labels: np.ndarray, classes: int, config: classifier.Config
) -> dict[str, np.ndarray]:
  """Trains a classifier with AdamW, a linear decay and the mean cross entropy.

  Args:
    ids: int32 [n, width] of padded().
    labels: int [n] in [0, classes).

  Returns:
    dict of np.float32 arrays: the parameters for score().
  """
  if config.kind not in classifier.KINDS:
    raise UserError(f'kind={config.kind!r}: it is one of {", ".join(classifier.KINDS)}')
  params = _init(jax.random.key(config.seed), classes, config)
  optimizer = optax.adamw(optax.linear_schedule(config.lr, 0.0, config.steps))
  state = optimizer.init(params)
  rng = np.random.default_rng(config.seed)
  # All classes have the same weight, however rare.
  weights = 1 / np.maximum(np.bincount(labels, minlength=classes), 1)
  shares = weights[labels] / weights[labels].sum()

  @jax.jit
  def step(params, state, x, y):
    def loss(p):
      scores = logits(p, x, config)
      return optax.softmax_cross_entropy_with_integer_labels(scores, y).mean()

    updates, state = optimizer.update(jax.grad(loss)(params), state, params)
    return optax.apply_updates(params, updates), state

  for _ in range(config.steps):
    rows = rng.choice(len(ids), config.batch, p=shares)
    params, state = step(params, state, ids[rows], labels[rows])
  params = jax.tree.map(np.asarray, params)
  if config.kind == 'linear':
    return {'table': params['embed'] @ params['out'], 'bias': params['bias']}
  return params


def logits(
  params: Mapping[str, jax.Array], ids: jax.Array, config: classifier.Config
) -> jax.Array:
  """float32 [n, classes] of ids int32 [n, width], -1 where a document ends."""
  mask = ids >= 0
  x = params['embed'][jnp.maximum(ids, 0)] * mask[..., None]
  if config.kind == 'encoder':
    x = x + params['position'][: ids.shape[1]] * mask[..., None]
    for i in range(config.layers):
      layer = {k: params[f'{k}/{i}'] for k in ('qkv', 'o', 'up', 'down')}
      x = _layer(x, mask, layer, config.heads)
    x = _norm(x) * mask[..., None]
  mean = x.sum(1) / jnp.maximum(mask.sum(1), 1)[:, None]
  return mean @ params['out'] + params['bias']


def score(
  params: Mapping[str, np.ndarray], ids: np.ndarray, config: classifier.Config
) -> np.ndarray:
  """np.float32 [n, classes]: the encoder's probabilities of int32 [n, width]."""
  parts = [np.zeros((0, len(params['bias'])), np.float32)]
  for i in range(0, len(ids), BLOCK):
    block = np.full((BLOCK, ids.shape[1]), -1, np.int32)  # one shape, one compilation
    block[: len(ids[i : i + BLOCK])] = ids[i : i + BLOCK]
    parts.append(np.asarray(_score(params, block, config))[: len(ids) - i])
  return np.concatenate(parts)


@functools.partial(jax.jit, static_argnums=2)
def _score(params, ids, config):
  return jax.nn.softmax(logits(params, ids, config))


@functools.partial(jax.jit, static_argnums=(1, 2))
def _init(key, classes, config):
  c, keys = config, iter(jax.random.split(key, 3 + 4 * config.layers))
  normal = lambda *shape: jax.random.normal(next(keys), shape) / np.sqrt(shape[0])
  params = {
    'embed': jax.random.normal(next(keys), (c.buckets, c.dim)) * c.dim**-0.5,
    'out': normal(c.dim, classes) * 0.1,
    'bias': jnp.zeros(classes),
  }
  if c.kind == 'encoder':
    params['position'] = jnp.zeros((c.words, c.dim))
    for i in range(c.layers):
      params[f'qkv/{i}'] = normal(c.dim, 3 * c.dim)
      params[f'o/{i}'] = normal(c.dim, c.dim)
      params[f'up/{i}'] = normal(c.dim, 4 * c.dim)
      params[f'down/{i}'] = normal(4 * c.dim, c.dim)
  return params


def _layer(x, mask, p, heads):
  """Pre-norm Transformer layer with bidirectional attention."""
  b, t, d = x.shape
  q, k, v = jnp.split((_norm(x) @ p['qkv']).reshape(b, t, heads, -1), 3, axis=-1)
  scores = jnp.einsum('btnh,bsnh->bnts', q, k) * (d // heads) ** -0.5
  scores = jnp.where(mask[:, None, None], scores, -1e9)
  y = jnp.einsum('bnts,bsnh->btnh', jax.nn.softmax(scores), v).reshape(b, t, d)
  x = x + y @ p['o']
  return x + jax.nn.gelu(_norm(x) @ p['up']) @ p['down']


def _norm(x):
  return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), -1, keepdims=True) + 1e-6)
