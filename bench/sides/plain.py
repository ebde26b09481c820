"""A bare jax.jit loop: the same model and AdamW in the fewest lines one would write.

python sides/plain.py SHAPE DTYPE REMAT STEPS
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import jax
import jax.numpy as jnp
import optax
from shapes import SHAPES


def init(key, s):
  d, f, h = s['d'], s['ffn'], s['head']
  n, k, layers = s['heads'] * h, s['kv_heads'] * h, s['layers']
  sizes = dict(q=(d, n), k=(d, k), v=(d, k), o=(n, d), g=(d, f), u=(d, f), w=(f, d))
  keys = iter(jax.random.split(key, 9))
  stacked = {
    a: jax.random.normal(next(keys), (layers, *b)) * b[0] ** -0.5
    for a, b in sizes.items()
  }
  stacked |= dict(n1=jnp.ones((layers, d)), n2=jnp.ones((layers, d)))
  table = jax.random.normal(next(keys), (s['vocabulary'], d))
  head = jax.random.normal(next(keys), (d, s['vocabulary'])) * d**-0.5
  return dict(layers=stacked, embed=table, head=head, norm=jnp.ones(d))


def norm(x, w):
  y = x.astype(jnp.float32)
  y = y * jax.lax.rsqrt(jnp.mean(y * y, -1, keepdims=True) + 1e-5)
  return (y * w).astype(x.dtype)


def rope(x):
  half = x.shape[-1] // 2
  angle = jnp.arange(x.shape[1])[:, None] * 5e5 ** (-jnp.arange(half) / half)
  c, s = jnp.cos(angle)[:, None], jnp.sin(angle)[:, None]
  a, b = jnp.split(x.astype(jnp.float32), 2, -1)
  return jnp.concatenate([a * c - b * s, b * c + a * s], -1).astype(x.dtype)


def loss(p, tokens, targets, s, dtype, remat):
  x = p['embed'].astype(dtype)[tokens]

  def layer(x, w):
    w = jax.tree.map(lambda a: a.astype(dtype), w)
    heads = lambda y: y.reshape(*y.shape[:2], -1, s['head'])
    y = norm(x, w['n1'])
    q, k, v = (heads(y @ w[a]) for a in 'qkv')
    y = jax.nn.dot_product_attention(rope(q), rope(k), v, is_causal=True)
    x = x + y.reshape(*x.shape[:2], -1) @ w['o']
    y = norm(x, w['n2'])
    return x + (jax.nn.silu(y @ w['g']) * (y @ w['u'])) @ w['w'], None

  layer = jax.checkpoint(layer) if remat == 'full' else layer
  x, _ = jax.lax.scan(layer, x, p['layers'])
  logits = (norm(x, p['norm']) @ p['head'].astype(dtype)).astype(jnp.float32)
  return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()


def main(shape, dtype, remat, steps):
  s = SHAPES[shape]
  optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(3e-4, b2=0.95))
  p = jax.jit(lambda k: init(k, s))(jax.random.key(0))
  state = optimizer.init(p)
  rows = (s['rows'], s['length'] + 1)
  rows = jax.random.randint(jax.random.key(1), rows, 0, s['vocabulary'])

  @jax.jit
  def step(p, state):
    value, g = jax.value_and_grad(loss)(p, rows[:, :-1], rows[:, 1:], s, dtype, remat)
    updates, state = optimizer.update(g, state, p)
    return optax.apply_updates(p, updates), state, value

  for _ in range(steps):
    p, state, value = step(p, state)
    value = float(value)
  print(f'loss {value:.4f} parameters {sum(x.size for x in jax.tree.leaves(p))}')


if __name__ == '__main__':
  main(*sys.argv[1:4], int(sys.argv[4]))
