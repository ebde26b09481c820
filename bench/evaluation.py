"""Whole evaluations against lm-evaluation-harness with transformers, on SmolLM2-135M.

python bench/evaluation.py --lmeval=PYTHON --model=FOLDER --data=FOLDER [--items=0]
  [--only=arc:0,piqa:0] [--core=1]

Both sides read the model as transformers does and the same local files of questions
(bench/harness), and ask them in float32: a row is a task with a number of solved
examples. CPU-seconds from the questions to the scores count, without loading the model
and compiling. Requests are the choices that are weighed. Exits with 1 below 2 times the
requests a CPU-second of ARC with no solved example, below 8 times with 5, and where
scores differ by more than half a point. Where choices are two and long, there is little
to share, and no bar. --items=0 asks all questions; of fewer each side draws its own, so
that their scores are not compared.
"""

import argparse
import pathlib
import sys

import child

ROWS = 'arc:0,arc:5,piqa:0,openbookqa:0,winogrande:0,lambada:0'
FILES = {
  'arc': 'arc_easy.jsonl',
  'piqa': 'piqa.jsonl',
  'openbookqa': 'openbook_qa.jsonl',
  'winogrande': 'winogrande.jsonl',
  'lambada': 'lambada_openai.jsonl',
}
BARS = {('arc', 0): 2.0, ('arc', 5): 8.0}  # of four short choices
NEAR = 0.5  # points


def row(a, name, shots):
  """Runs both sides; prints the row; whether a bar is missed."""
  file = str(a.data / FILES[name])
  items = min(a.items, a.shown) if shots and a.shown else a.items
  job = dict(model=str(a.model), task=name, file=file, shots=shots, items=items)
  ours = child.run(sys.executable, 'evaluation_ours', job, a.core)
  theirs = child.run(a.lmeval, 'evaluation_lmeval', job, a.core)
  ratio = theirs['seconds'] / ours['seconds']
  apart = 100 * (ours['score'] - theirs['score'])
  slow, far = ratio < BARS.get((name, shots), 0.0), abs(apart) > NEAR and not items
  shown = (
    f'{name}, {shots} shots',
    f'{ours["questions"]:,}',
    f'{theirs["requests"] / ours["seconds"]:.1f}',
    f'{theirs["requests"] / theirs["seconds"]:.1f}',
    f'{ratio:.2f}{" MISSED" if slow else ""}',
    f'{100 * ours["score"]:.2f}',
    f'{100 * theirs["score"]:.2f}{" MISSED" if far else ""}',
  )
  print(f'| {" | ".join(shown)} |', flush=True)
  return slow or far


def main():
  p = argparse.ArgumentParser()
  p.add_argument('--lmeval', required=True)
  p.add_argument('--model', type=pathlib.Path, required=True)
  p.add_argument('--data', type=pathlib.Path, required=True)
  p.add_argument('--items', type=int, default=0)
  p.add_argument('--shown', type=int, default=0, help='items of rows with shots')
  p.add_argument('--core', type=int, default=1)
  p.add_argument('--only', default=ROWS)
  a = p.parse_args()
  header = (
    'row',
    'questions',
    'ours, requests/s',
    'lm-eval',
    'ratio',
    'ours, %',
    'theirs',
  )
  print(f'| {" | ".join(header)} |\n|{"---|" * len(header)}')
  rows = [name.split(':') for name in a.only.split(',')]
  return int(any([row(a, name, int(shots)) for name, shots in rows]))


if __name__ == '__main__':
  sys.exit(main())
