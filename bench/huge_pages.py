"""CPU-milliseconds of a training step with huge pages (base/memory.py) and without.

python bench/huge_pages.py [--steps=20] [--rounds=2]

Steps of the herd's tiny model on random rows, of pre-training and of the reward model,
in a process each, alternating. Exits with 1 where huge pages take more than 0.9 of the
time, the page faults of a step are no fewer, or the loss is another.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from llama3_jax.base import memory

ROOT = pathlib.Path(__file__).resolve().parents[1]
BAR = 0.9
SHAPES = {'pretrain': (8, 256), 'reward': (16, 128)}


def child(stage, steps):
  """Runs the steps of one process; prints {user, system, faults, loss} of a step."""
  import resource

  import jax

  state, batch, train_step = _parts(stage)
  for _ in range(3):
    state, metrics = train_step(state, batch)
  jax.block_until_ready(metrics)
  before = resource.getrusage(resource.RUSAGE_SELF)
  for _ in range(steps):
    state, metrics = train_step(state, batch)
  jax.block_until_ready(metrics)
  after = resource.getrusage(resource.RUSAGE_SELF)
  of = lambda name: (getattr(after, name) - getattr(before, name)) / steps
  found = {'user': of('ru_utime'), 'system': of('ru_stime'), 'faults': of('ru_minflt')}
  print(json.dumps(found | {'loss': float(metrics['loss'])}))


def _parts(stage):
  """(state, batch, train step) of a stage of the herd, on random rows."""
  import functools

  import jax
  import numpy as np

  from configs import herd
  from llama3_jax import config as configs
  from llama3_jax import feed
  from llama3_jax.model import llama
  from llama3_jax.post import reward
  from llama3_jax.train import loss as losses
  from llama3_jax.train import optim
  from llama3_jax.train import step

  config = herd.get_config('tiny')
  model = configs.model_config(config.pretrain.model)
  (rows, length), section = SHAPES[stage], config[stage]
  params = jax.jit(llama.init, static_argnums=1)(jax.random.key(0), model)
  shape = (rows, length) if stage == 'pretrain' else (rows, 1, length)
  ids = np.random.default_rng(0).integers(1, 2000, shape).astype(np.int32)
  columns = np.broadcast_to(np.arange(length, dtype=np.int32), shape)
  filled = dict(tokens=ids, position=columns, segment=np.ones_like(ids))
  if stage == 'pretrain':
    loss = functools.partial(losses.next_token, config=model)
    batch = feed.empty(feed.Tokens, dict(B=rows, T=length))
    filled |= {'targets': ids, 'weight': np.ones(shape, np.float32)}
  else:
    loss = functools.partial(reward.loss, config=model)
    start = jax.jit(reward.init, static_argnums=2)
    params = start(jax.random.key(1), params, model)
    batch = feed.empty(feed.Ranked, dict(B=rows, A=1, T=length, _=3))
    filled['ends'] = np.tile(np.array([[60, 70, 80]], np.int32), (rows, 1))
  train_step = step.compose(loss, optim.of(section))
  return train_step.start(params), batch.replace(**filled), train_step


def measure(stage, huge, steps):
  command = [sys.executable, __file__, f'--child={stage}', f'--steps={steps}']
  env = os.environ | {'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'}
  env[memory.VARIABLE] = memory.SETTING if huge else 'glibc.malloc.hugetlb=0'
  return json.loads(
    subprocess.check_output(command, env=env, text=True).split('\n')[-2]
  )


def main():
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--steps', default=20, type=int)
  parser.add_argument('--rounds', default=2, type=int)
  parser.add_argument('--child', choices=SHAPES, help=argparse.SUPPRESS)
  asked = parser.parse_args()
  if asked.child:
    return child(asked.child, asked.steps)
  missed = False
  print('stage       ms user, system, page faults a step: default; huge; ratio of CPU')
  for stage in SHAPES:
    each = {False: [], True: []}
    for huge in (False, True) * asked.rounds:
      each[huge].append(measure(stage, huge, asked.steps))
    cpu = lambda found: found['user'] + found['system']
    old, new = (min(each[huge], key=cpu) for huge in (False, True))
    shown = [
      f'{1e3 * x["user"]:.0f}, {1e3 * x["system"]:.0f}, {x["faults"]:.0f}'
      for x in (old, new)
    ]
    ratio = cpu(new) / cpu(old)
    print(f'{stage:<12}{shown[0]}; {shown[1]}; {ratio:.2f}')
    missed |= (
      ratio > BAR or new['faults'] >= old['faults'] or new['loss'] != old['loss']
    )
  return missed


if __name__ == '__main__':
  sys.exit(main())
