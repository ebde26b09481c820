"""What the document mask costs: python bench/document_mask.py [LENGTH].

CPU-seconds of attention, forward and backward, of one row: under a causal mask alone
and under a document mask with documents of several lengths. The blocks that no query
may see are left out, so short documents must save time and long ones cost nothing.
"""

import pathlib
import resource
import statistics
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import jax
import jax.numpy as jnp

from llama3_jax.kernels import blockwise

N, K, H = 8, 2, 64


def cpu_seconds(run, *arguments):
  before = resource.getrusage(resource.RUSAGE_SELF)
  for _ in range(5):
    jax.block_until_ready(run(*arguments))
  after = resource.getrusage(resource.RUSAGE_SELF)
  return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / 5


def main():
  t = int(sys.argv[1]) if len(sys.argv) > 1 else 4096
  keys = jax.random.split(jax.random.key(0), 4)
  q, k, v, g = (
    jax.random.normal(a, (1, t, n, H), jnp.float32) for a, n in zip(keys, (N, K, K, N))
  )
  position = jnp.arange(t, dtype=jnp.int32)[None]

  @jax.jit
  def run(q, k, v, g, segment):
    side = (position, segment)
    attend = lambda q, k, v: blockwise.attend(q, k, v, side, side)
    out, back = jax.vjp(attend, q, k, v)
    return out, back(g)

  lengths = [t, t // 2, t // 4, t // 8, t // 16]
  rows = {n: 1 + position // n for n in lengths}
  costs = {n: [] for n in lengths}
  for _ in range(4):  # interleaved: the machine's speed drifts
    for n, segment in rows.items():
      costs[n].append(cpu_seconds(run, q, k, v, g, segment))
  base = statistics.median(costs[t][1:])
  print(f'row of {t} tokens, {N} query and {K} KV heads of {H}, float32')
  print('| documents of | CPU-seconds | of one document |\n|---|---|---|')
  for n, found in costs.items():
    cost = statistics.median(found[1:])
    print(f'| {n} | {cost:.3f} | {cost / base:.2f} |')


if __name__ == '__main__':
  main()
