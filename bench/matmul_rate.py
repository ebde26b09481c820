"""This machine's rate of train-like matrix products: python bench/matmul_rate.py [D].

Forward and backward of two linear layers, D -> 3.5 D -> D, on 2,048 rows in float32,
and nothing else: what a train step of that width could reach at most. GFLOP a
CPU-second, the median of seven runs; `bench/train_step.py` prints the same for steps.
"""

import resource
import statistics
import sys

import jax
import jax.numpy as jnp

ROWS, LAYERS = 2048, 2


def cpu_seconds():
  used = resource.getrusage(resource.RUSAGE_SELF)
  return used.ru_utime + used.ru_stime


def main():
  d = int(sys.argv[1]) if len(sys.argv) > 1 else 512
  f = 7 * d // 2
  weights = [(jnp.ones((d, f)) / d, jnp.ones((f, d)) / f) for _ in range(LAYERS)]
  x = jnp.ones((ROWS, d))

  @jax.jit
  def step(weights, x):
    def loss(weights, x):
      for up, down in weights:
        x = (x @ up) @ down
      return jnp.sum(x)

    return jax.grad(loss, (0, 1))(weights, x)

  jax.block_until_ready(step(weights, x))
  flops, rates = 6 * ROWS * LAYERS * 2 * d * f, []
  for _ in range(7):
    start = cpu_seconds()
    for _ in range(20):
      jax.block_until_ready(step(weights, x))
    rates.append(20 * flops / (cpu_seconds() - start) / 1e9)
  print(f'd {d}: {statistics.median(rates):.0f} GFLOP a CPU-second')


if __name__ == '__main__':
  main()
