"""CPU-seconds from the command to the first step: ours and MaxText's.

python bench/first_step.py [--maxtext=PYTHON]

Ours is `python -m experiment` with the herd's tiny model shape of bench/sides/shapes.py
on shards written for it, one step, its checkpoint and final parameters included; once
with an empty compilation cache and then with the cache that run left. MaxText's is its
trainer for one step, once to fill its own cache and once measured.
"""

import argparse
import os
import pathlib
import statistics
import sys
import tempfile

from loader import MIX
from loader import Random
from train_step import HERE
from train_step import cpu_seconds

ROOT = HERE.parent


def ours(folder, run):
  """Command of a fresh run of one step."""
  sizes = dict(
    n_layers=4, d_model=256, n_heads=8, n_kv_heads=2, d_head=32, d_ff=896
  ) | dict(vocab_size=4096)
  fields = {f'model.{k}': v for k, v in sizes.items()}
  fields |= {'data.root': folder / 'shards', 'train.steps': 1, 'train.eval_every': 0}
  fields |= {f'data.mix.{n}': float(n == 'general') for n in MIX}
  fields |= {'data.mix.drill': 0.0, 'data.mix.needle': 0.0, 'data.changes': '()'}
  fields |= {'data.eval_batches': 1}
  command = [sys.executable, '-m', 'experiment', '--config=configs/pretrain.py:tiny']
  command += [f'--config.{k}={v}' for k, v in fields.items()]
  return [*command, f'--workdir={folder / run}']


def write(folder):
  """Shards of random tokens."""
  sys.path.insert(0, str(ROOT))
  from llama3_jax.data import tokenise

  for name in ('general',):
    documents = ({'text': f'{name} {i}'} for i in range(200))
    tokenizer = Random(300)
    tokenizer.top = 4096
    tokenise.write(documents, tokenizer, folder / 'shards' / name, heldout=0.05)


def main():
  p = argparse.ArgumentParser()
  p.add_argument('--maxtext', default='')
  p.add_argument('--rounds', type=int, default=3)
  a = p.parse_args()
  os.chdir(ROOT)
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    write(folder)
    plain = dict(os.environ, JAX_PLATFORMS='cpu', LLAMA3_CACHE=str(folder / 'cache'))
    theirs = dict(
      plain, PYTHON=a.maxtext, JAX_COMPILATION_CACHE_DIR=str(folder / 'maxtext')
    )
    other = ['bash', HERE / 'sides/maxtext.sh', 'd256', 'float32', 'full', '1']
    cold, _ = cpu_seconds(ours(folder, 'cold'), plain)
    costs = {'ours': [], 'MaxText': []}
    for i in range(a.rounds + 1):  # the first round fills MaxText's cache
      costs['ours'].append(cpu_seconds(ours(folder, f'run{i}'), plain)[0])
      if a.maxtext:
        costs['MaxText'].append(cpu_seconds(other, theirs)[0])
  found = statistics.median(costs['ours'][1:])
  print('| side | CPU-seconds to the end of one step |\n|---|---|')
  print(f'| ours, empty cache | {cold:.1f} |\n| ours | {found:.1f} |')
  if a.maxtext:
    theirs = statistics.median(costs['MaxText'][1:])
    print(f'| MaxText | {theirs:.1f} |\n\nratio {found / theirs:.2f}')


if __name__ == '__main__':
  main()
