"""CPU-seconds of a train step: ours, a bare jax.jit loop, transformers, MaxText.

python bench/train_step.py [--shape=d256] [--dtype=float32] [--remat=full] [--rounds=3]
  [--jax=PYTHON] [--torch=PYTHON] [--maxtext=PYTHON]

Each side is its own process. A round runs every side with few and with many steps; the
difference of their CPU-seconds, by steps, is the cost of a step and leaves start-up
and compilation out. The median over rounds is printed, with the ratio ours / side.
"""

import argparse
import os
import pathlib
import resource
import statistics
import subprocess
import sys

from sides.shapes import flops

HERE = pathlib.Path(__file__).parent


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


def main():
  p = argparse.ArgumentParser()
  p.add_argument('--shape', default='d256')
  p.add_argument('--dtype', default='float32')
  p.add_argument('--remat', default='full')
  p.add_argument('--rounds', type=int, default=3)
  p.add_argument('--few', type=int, default=2)
  p.add_argument('--many', type=int, default=12)
  for name in ('jax', 'torch', 'maxtext'):
    p.add_argument(f'--{name}', default=sys.executable if name == 'jax' else '')
  a = p.parse_args()
  costs, starts = {}, {}
  for _ in range(a.rounds):
    for name, (command, environment) in sides(a).items():
      few, _ = cpu_seconds([*command, str(a.few)], environment)
      many, line = cpu_seconds([*command, str(a.many)], environment)
      costs.setdefault(name, []).append((many - few) / (a.many - a.few))
      starts.setdefault(name, []).append(few)
      print(f'{name}: {costs[name][-1]:.3f}  ({line[:70]})', file=sys.stderr)
  ours = statistics.median(costs['ours'])
  print(f'\n{a.shape} {a.dtype} remat {a.remat}, CPU-seconds a step')
  print('| side | a step | ours / side | GFLOP a CPU-second | start-up |')
  print('|---|---|---|---|---|')
  for name, found in costs.items():
    cost, start = statistics.median(found), statistics.median(starts[name])
    rate = flops(a.shape) / cost / 1e9
    print(f'| {name} | {cost:.3f} | {ours / cost:.2f} | {rate:.0f} | {start:.1f} |')


if __name__ == '__main__':
  main()
