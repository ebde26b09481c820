"""Where a train step's time goes, by operation: python bench/operations.py

python bench/operations.py [--shape=d256] [--dtype=float32] [--remat=none] [--steps=5]

One thread on one core, so that the times of operations add up to that of the step.
Every operation of the compiled program counts as what it was written for: milliseconds
a step and the share of the step. Linux.
"""

import argparse
import collections
import glob
import os
import pathlib
import re
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
sys.path.insert(0, str(pathlib.Path(__file__).parent / 'sides'))

from llama3_jax.base import memory

if __name__ == '__main__':
  os.environ['JAX_PLATFORMS'] = 'cpu'
  os.environ['PJRT_NPROC'] = '1'
  memory.restart()
  os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

import jax
import ours
from shapes import flops

from llama3_jax.train import step as steps

INSTRUCTION = re.compile(r'\s+(?:ROOT )?%?([\w.\-]+) = (.*)')
# (category, pattern of the instruction's name, pattern of what it was written for).
CATEGORIES = (
  ('attention, products', r'dot|ynn', r'K[RS][HS]?,\w+->\w+/dot_general'),
  ('loss, products', r'dot|ynn', r'C[DV],\w+->\w+/dot_general'),
  ('layers, products', r'dot|ynn', r',\w+->\w+/dot_general'),
  ('zeros for sums and stacks', r'wrapped_broadcast', r''),
  ('transposed for products', r'.*copy_bitcast|.*transpose', r''),
  ('into stacks of layers and blocks', r'.*dynamic-update', r''),
  ('out of stacks of layers and blocks', r'.*dynamic-slice', r''),
  ('copies', r'copy', r''),
  ('casts', r'.*convert', r'^$'),
  ('attention, softmax', r'', r'cond/branch|attention/while|attention/.*exp'),
  ('SwiGLU', r'', r'feed_forward/(jit\(silu\)|mul)'),
  ('RoPE, norm of attention', r'', r'/attention/'),
  ('norm of feed-forward', r'', r'/feed_forward/'),
  ('softmax of the loss', r'', r'jvp\(\)/while/body/closed_call/(?!attention|feed)'),
  ('residual stream, embedding, norms', r'', r'jvp'),
  ('sums and others that XLA does not name', r'', r'^$'),
  ('optimizer', r'', r''),
)


def category(name, text):
  """Category of an instruction by its name and the rest of its line."""
  found = re.search(r'op_name="([^"]*)"', text)
  written = found[1] if found else ''
  for label, instruction, origin in CATEGORIES:
    if re.match(instruction, name) and re.search(origin, written):
      return label
  raise AssertionError(name)


def own_times(folder):
  """{event: ns} of a trace, without the events inside of each."""
  files = glob.glob(f'{folder}/**/*.xplane.pb', recursive=True)
  own = collections.Counter()
  for plane in jax.profiler.ProfileData.from_file(files[0]).planes:
    for line in plane.lines:
      stack = []
      events = [(e.start_ns, -e.duration_ns, e.name) for e in line.events]
      for start, length, name in sorted(events):
        while stack and stack[-1][0] <= start:
          stack.pop()
        if stack:
          own[stack[-1][1]] += length
        own[name] -= length
        stack.append((start - length, name))
  return own


def main():
  p = argparse.ArgumentParser()
  p.add_argument('--shape', default='d256')
  p.add_argument('--dtype', default='float32')
  p.add_argument('--remat', default='none')
  p.add_argument('--steps', type=int, default=5)
  a = p.parse_args()
  train_step, state, batch = ours.prepare(a.shape, a.dtype, a.remat)
  program = steps.train_step.lower(state, batch, train_step).compile().as_text()
  lines = map(INSTRUCTION.match, program.splitlines())
  known = {line[1]: line[2] for line in lines if line}
  for _ in range(2):
    state, _ = jax.block_until_ready(train_step(state, batch))
  with tempfile.TemporaryDirectory() as folder:
    with jax.profiler.trace(folder):
      for _ in range(a.steps):
        state, _ = jax.block_until_ready(train_step(state, batch))
    own = own_times(folder)
  table = collections.Counter()
  for name, spent in own.items():
    if name in known:
      table[category(name, known[name])] += spent / a.steps / 1e6
    elif name == 'ThunkExecutor::Execute':
      table['starts of operations'] += spent / a.steps / 1e6
  total = sum(table.values())
  rate = flops(a.shape) / total / 1e6
  print(
    f'{a.shape} {a.dtype} remat {a.remat}: {total:.0f} ms, {rate:.0f} GFLOP a second'
  )
  print('| operations | ms a step | share |\n|---|---|---|')
  for name, spent in table.most_common():
    print(f'| {name} | {spent:.1f} | {spent / total:.1%} |')


if __name__ == '__main__':
  main()
