"""CPU-seconds of a train step: ours, a bare jax.jit loop, transformers, MaxText.

python bench/train_step.py [--shape=d256] [--dtype=float32] [--remat=full] [--rounds=5]
  [--jax=PYTHON] [--torch=PYTHON] [--maxtext=PYTHON]

Each side is its own process. A round runs every side with few and with many steps; the
difference of their CPU-seconds, by steps, is the cost of a step and leaves start-up
and compilation out. It prints medians and quartiles over rounds, the ratio of ours to
each side, and GFLOP a CPU-second beside those of products alone; exits 1 when a bar is
missed.
"""

import argparse
import os
import pathlib
import resource
import statistics
import subprocess
import sys

from sides.shapes import SHAPES
from sides.shapes import flops

HERE = pathlib.Path(__file__).parent
BARS = {'MaxText': 0.6, 'transformers': 0.75, 'jax.jit loop': 0.7}  # ours / side
RATE = {'d256': 0.75, 'd512': 0.8}  # of the rate of products alone


def cpu_seconds(command, environment):
  """CPU-seconds of a command and its children; its last line."""
  before = resource.getrusage(resource.RUSAGE_CHILDREN)
  done = subprocess.run(
    command, env=environment, capture_output=True, text=True, timeout=1200
  )
  after = resource.getrusage(resource.RUSAGE_CHILDREN)
  if done.returncode:
    sys.exit(f'{" ".join(map(str, command))}\n{done.stderr[-2000:]}')
  used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
  return used, (done.stdout + done.stderr).strip().splitlines()[-1]


def sides(a):
  """{name: (command without the number of steps, environment)}."""
  plain = dict(os.environ, JAX_PLATFORMS='cpu')
  how = [a.shape, a.dtype, a.remat]
  found = {
    'ours': ([a.jax, HERE / 'sides/ours.py', *how], plain),
    'jax.jit loop': ([a.jax, HERE / 'sides/plain.py', *how], plain),
  }
  if a.torch:
    command = [a.torch, HERE / 'sides/torch_transformers.py', *how]
    found['transformers'] = (command, plain)
  if a.maxtext:
    command = ['bash', HERE / 'sides/maxtext.sh', *how]
    found['MaxText'] = (command, dict(plain, PYTHON=a.maxtext))
  return found


def measured(a):
  """{side: CPU-seconds of a step, by round}, {side: of start-up}; rates of products.

  Sides run in turn, so that all of a round see the same machine.
  """
  costs, starts, rates = {}, {}, []
  for _ in range(a.rounds):
    for name, (command, environment) in sides(a).items():
      few, _ = cpu_seconds([*command, str(a.few)], environment)
      many, line = cpu_seconds([*command, str(a.many)], environment)
      costs.setdefault(name, []).append((many - few) / (a.many - a.few))
      starts.setdefault(name, []).append(few)
      print(f'{name}: {costs[name][-1]:.3f}  ({line[:70]})', file=sys.stderr)
    command = [a.jax, HERE / 'matmul_rate.py', SHAPES[a.shape]['d']]
    _, line = cpu_seconds([*map(str, command)], dict(os.environ, JAX_PLATFORMS='cpu'))
    rates.append(float(line.split()[2]))
  return costs, starts, rates


def quartiles(values):
  if len(values) < 2:
    return (values[0],) * 3
  return tuple(statistics.quantiles(values, n=4, method='inclusive'))


def main():
  p = argparse.ArgumentParser()
  p.add_argument('--shape', default='d256')
  p.add_argument('--dtype', default='float32')
  p.add_argument('--remat', default='full')
  p.add_argument('--rounds', type=int, default=5)
  p.add_argument('--few', type=int, default=2)
  p.add_argument('--many', type=int, default=12)
  for name in ('jax', 'torch', 'maxtext'):
    p.add_argument(f'--{name}', default=sys.executable if name == 'jax' else '')
  a = p.parse_args()
  costs, starts, rates = measured(a)
  peak, missed = statistics.median(rates), []
  print(f'\n{a.shape} {a.dtype} remat {a.remat}, {a.rounds} rounds in turn')
  print(f'products alone (matmul_rate.py): {peak:.0f} GFLOP a CPU-second\n')
  print(
    '| side | CPU-seconds a step (quartiles) | ours / side (quartiles) | bar |'
    ' GFLOP a CPU-second | of products | start-up |'
  )
  print('|---|---|---|---|---|---|---|')
  for name, found in costs.items():
    low, cost, high = quartiles(found)
    first, ratio, last = quartiles([x / y for x, y in zip(costs['ours'], found)])
    rate, bar = flops(a.shape) / cost / 1e9, BARS.get(name, '')
    if bar and ratio > bar:
      missed.append(name)
    print(
      f'| {name} | {cost:.3f} ({low:.3f} to {high:.3f}) | {ratio:.2f} ({first:.2f} to'
      f' {last:.2f}) | {bar} | {rate:.0f} | {rate / peak:.2f} |'
      f' {statistics.median(starts[name]):.1f} |'
    )
  share = flops(a.shape) / statistics.median(costs['ours']) / 1e9 / peak
  if share < RATE[a.shape]:
    missed.append(f'{RATE[a.shape]:.0%} of the products')
  if missed:
    sys.exit(f'missed: {", ".join(missed)}')


if __name__ == '__main__':
  main()
