"""Our train step on synthetic tokens: python sides/ours.py SHAPE DTYPE REMAT STEPS.

The process starts as the launcher's do, with huge pages (base/memory.py). Without remat
the scan over 4 layers is unrolled (`model.unroll`).
"""

import functools
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))
sys.path.insert(0, str(pathlib.Path(__file__).parent))

from llama3_jax.base import memory

if __name__ == '__main__':
  memory.restart()

import jax
import jax.numpy as jnp
import numpy as np
from shapes import SHAPES

from llama3_jax import feed
from llama3_jax.config import ModelConfig
from llama3_jax.model import llama
from llama3_jax.train import loss as losses
from llama3_jax.train import optim
from llama3_jax.train import step


def prepare(shape, dtype, remat):
  """(train step, state, batch) of a shape."""
  s = SHAPES[shape]
  c = ModelConfig(
    *(s[k] for k in ('layers', 'd', 'heads', 'kv_heads', 'head', 'ffn')),
    vocab_size=s['vocabulary'],
    dtype=dtype,
    remat=remat,
    unroll=s['layers'] if remat == 'none' and s['layers'] <= 4 else 1,
  )
  rng = np.random.default_rng(0)
  rows = rng.integers(0, c.vocab_size, (s['rows'], s['length'] + 1)).astype(np.int32)
  ones = np.ones_like(rows[:, 1:])
  batch = feed.Tokens(
    tokens=rows[:, :-1],
    targets=rows[:, 1:],
    segment=ones,
    position=np.arange(s['length'], dtype=np.int32) * ones,
    weight=ones.astype(np.float32),
  )
  batch = jax.tree.map(jnp.asarray, batch)
  optimizer = optim.create(optim.OptimConfig(warmup=10, decay=1000))
  params = jax.jit(llama.init, static_argnums=1)(jax.random.key(0), c)
  loss = functools.partial(losses.next_token, config=c)
  train_step = step.compose(loss, optimizer)
  return train_step, train_step.start(params), batch


def main(shape, dtype, remat, steps):
  train_step, state, batch = prepare(shape, dtype, remat)
  for _ in range(steps):
    state, found = train_step(state, batch)
    value = float(found['loss'])
  count = sum(x.size for x in jax.tree.leaves(state.params))
  print(f'loss {value:.4f} parameters {count}')


if __name__ == '__main__':
  main(*sys.argv[1:4], int(sys.argv[4]))
