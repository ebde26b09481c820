"""Training steps after pre-training against TRL and torch, on SmolLM2-135M.

python bench/post.py --trl=PYTHON --work=FOLDER [--rounds=2] [--steps=2] [--batch=4]
  [--length=256] [--remat=none] [--only=sft,dpo,joined,reward] [--core=1]

FOLDER/hf has the model as transformers reads it. Each side is an interpreter of its own
on one pinned core; a round runs both sides of a row, and the least CPU-seconds a step
count, compilation left out. A step is loss, gradients, clipping and AdamW in float32 on
`batch` dialogs of `length` tokens, or half as many pairs, two rows of that length each;
for the reward model the paper's row of both answers after one prompt stands against the
two rows of TRL, and so does the row of DPO that both share (post/joined.py). Tokens are
counted as TRL reads them. Prints a ratio a row, ours / theirs in tokens a CPU-second,
and exits with 1 below 1.3, or where the memory is more.
"""

import argparse
import pathlib
import random
import sys

import child

MODEL, VOCABULARY = 'smollm2', 49152
BAR = 1.3


def job(a, stage):
  """The model, the sizes, and [prompt, chosen, rejected] ids of each row or pair."""
  draw = random.Random(0)
  ids = lambda n: [draw.randrange(10, VOCABULARY) for _ in range(n)]
  count = a.batch if stage == 'sft' else max(a.batch // 2, 1)
  half = a.length // 2
  rows = [[ids(half), ids(half), ids(half)] for _ in range(count)]
  made = dict(model=MODEL, folder=str(a.work / 'hf'), stage=stage, rows=rows)
  return made | dict(steps=a.steps, remat=a.remat)


def row(a, stage):
  """Runs both sides of a stage; prints its row; whether a bar is missed."""
  given, best = job(a, stage), {}
  for _ in range(a.rounds):
    for side, python in (('ours', sys.executable), ('torch', a.trl)):
      found = child.run(python, f'post_{side}', given, a.core)
      if side not in best or found['seconds'] < best[side]['seconds']:
        best[side] = found
  tokens = a.length * len(given['rows']) * (1 if stage == 'sft' else 2)
  ours, theirs = best['ours'], best['torch']
  ratio = theirs['seconds'] / ours['seconds']
  memory = ours['memory'] / theirs['memory']
  missed = ratio < BAR or memory > 1
  shown = (
    stage,
    f'{tokens / ours["seconds"]:.0f}',
    f'{tokens / theirs["seconds"]:.0f}',
    f'{ratio:.2f}{" MISSED" if ratio < BAR else ""}',
    f'{ours["memory"] / 1e9:.2f}',
    f'{theirs["memory"] / 1e9:.2f}{" MISSED" if memory > 1 else ""}',
    f'{ours["losses"][0]:.4f}, {theirs["losses"][0]:.4f}',
  )
  print(f'| {" | ".join(shown)} |', flush=True)
  return missed


def main():
  p = argparse.ArgumentParser()
  p.add_argument('--trl', required=True)
  p.add_argument('--work', type=pathlib.Path, required=True)
  p.add_argument('--rounds', type=int, default=2)
  p.add_argument('--steps', type=int, default=2)
  p.add_argument('--batch', type=int, default=4)
  p.add_argument('--length', type=int, default=256)
  p.add_argument('--remat', default='none', choices=('none', 'full'))
  p.add_argument('--core', type=int, default=1)
  p.add_argument('--only', default='sft,dpo,joined,reward')
  a = p.parse_args()
  header = 'stage', 'ours, tokens/s', 'TRL', 'ratio', 'ours, GB', 'TRL', 'first losses'
  print(f'| {" | ".join(header)} |\n|{"---|" * len(header)}')
  return int(any([row(a, stage) for stage in a.only.split(',')]))


if __name__ == '__main__':
  sys.exit(main())
