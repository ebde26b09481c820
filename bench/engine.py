"""The engine against transformers, llama.cpp and the plain way, on SmolLM2-135M.

python bench/engine.py --work=FOLDER --questions=GSM8K.jsonl [--torch=PYTHON]
  [--llamacpp=PYTHON] [--lmeval=PYTHON --choices=ARC.jsonl] [--rounds=2] [--queue=200]
  [--only=decode,queue,...]

FOLDER has the model as the sides read it, hf/ and f16.gguf; questions are rows
{"question", "answer"}, choices rows {"query", "choices", "gold"}.
Each side is an interpreter of its own on one pinned core; a round runs every side of a
row, and the least CPU-seconds count. Prints a ratio a row, other / ours, and exits with
1 when a bar is missed. A side without an interpreter is left out.
"""

import argparse
import json
import pathlib
import sys
import time

import child

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

MODEL = 'smollm2'


def best(sides, rounds, core):
  """{name: result with the least seconds} of {name: (python, side, job)}."""
  found = {}
  for _ in range(rounds):
    for name, given in sides.items():
      python, side, job = given
      result = child.run(python, f'engine_{side}', job, core)
      if name not in found or result['seconds'] < found[name]['seconds']:
        found[name] = result
  return found


class Bench:
  """The sides that are there, their inputs, and the rows so far."""

  def __init__(self, a):
    self.a, self.rows = a, []
    self.job = dict(
      model=MODEL, folder=str(a.work / 'hf'), gguf=str(a.work / 'f16.gguf')
    )
    from llama3_jax.train import belongs

    self.tokenizer = belongs.tokenizer('', MODEL)
    rows = [json.loads(line) for line in a.questions.read_text().splitlines()]
    encode = self.tokenizer.encode
    self.queue = [
      (encode(r['question'], bos=True), len(encode(r['answer'])) + 1)
      for r in rows[: a.queue]
    ]
    self.text = [i for p, _ in self.queue for i in p]

  def prompts(self, count, length):
    ids = self.text * (1 + count * length // len(self.text))
    return [ids[i * length : (i + 1) * length] for i in range(count)]

  def sides(self, work, others=(), **job):
    """{name: (python, side, job)} of our engine and the others that are there."""
    job = {**self.job, 'work': work, **job}
    found = {'ours': (sys.executable, 'ours', job)}
    for name in others:
      python = {'transformers': self.a.torch, 'llama.cpp': self.a.llamacpp}.get(name)
      if name == 'rectangle':
        found[name] = (sys.executable, 'ours', {**job, 'work': 'rectangle'})
      elif python:
        side = {'transformers': 'torch', 'llama.cpp': 'llamacpp'}[name]
        found[name] = (python, side, job)
    return found

  def row(self, name, ratio, bar, about=''):
    missed = ratio is not None and bar is not None and ratio < bar
    self.rows.append(missed)
    shown = '' if bar is None else f'>= {bar}{" MISSED" if missed else ""}'
    print(f'| {name} | {ratio:.2f} | {shown} | {about} |', flush=True)

  def compare(self, name, sides, bars):
    found = best(sides, self.a.rounds, self.a.core)
    ours = found['ours']
    for other in found:
      if other != 'ours':
        ratio = found[other]['seconds'] / ours['seconds']
        about = f'{ours["seconds"]:.4g} s against {found[other]["seconds"]:.4g} s'
        self.row(f'{name}, {other}', ratio, bars.get(other), about)
    return found


def decode(b):
  """A step of rows whose prompts are read."""
  for dtype, rows, bars in (
    ('bfloat16', 16, {'rectangle': 3, 'transformers': 1.5, 'llama.cpp': 1.3}),
    ('float32', 16, {'rectangle': 1.5}),
    ('float32', 4, {}),
  ):
    others = ('rectangle', 'transformers', 'llama.cpp')
    sides = b.sides(
      'decode', others, dtype=dtype, rows=rows, steps=24, prompts=b.prompts(rows, 128)
    )
    b.compare(f'decode step, {dtype}, {rows} rows', sides, bars)


def alone(b):
  """One request at a time."""
  job = dict(dtype='float32', rows=1, steps=24, prompts=b.prompts(1, 128))
  sides = b.sides('decode', ('llama.cpp', 'transformers'), **job)
  b.compare('one at a time, float32', sides, {'llama.cpp': 0.4})


def queue(b):
  """Real prompts with answers of their true lengths."""
  for rows, bar in ((16, 2.5), (64, 4)):
    sides = b.sides('queue', dtype=b.a.dtype, rows=rows, queue=b.queue)
    theirs = b.sides(
      'queue', ('transformers',), dtype=b.a.dtype, rows=16, queue=b.queue
    )
    sides |= {n: x for n, x in theirs.items() if n != 'ours'}
    found = b.compare(
      f'queue of {len(b.queue)}, {b.a.dtype}, {rows} slots',
      sides,
      {'transformers': bar},
    )
    padding = 100 * found['ours']['padding']
    b.row(f'padding of prompts, %, {rows} slots', -padding, -10)


def samples(b):
  """K answers to one prompt."""
  job = dict(dtype=b.a.dtype, samples=16, steps=128, prompts=b.prompts(1, 512))
  shared = b.sides('samples', **job, shared=True)
  shared['own requests'] = b.sides('samples', **job, shared=False)['ours']
  found = b.compare('16 samples of 512 tokens, 128 new', shared, {'own requests': 2})
  pages = found['own requests']['pages'] / found['ours']['pages']
  about = f'{found["ours"]["pages"]} pages against {found["own requests"]["pages"]}'
  b.row('their pages, own requests', pages, 1 / 0.3, about)


def likelihood(b):
  """Choices of questions after none, 5 and 25 solved ones."""
  rows = [json.loads(line) for line in b.a.choices.read_text().splitlines()]
  text = lambda r: f'{r["query"]}\nAnswer:'
  solved = [f'{text(r)} {r["choices"][r["gold"]]}\n\n' for r in rows[:25]]
  for shots, bar in ((0, 2), (5, 8), (25, 30)):
    pairs = [
      (''.join(solved[:shots]) + text(r), f' {choice}')
      for r in rows[25 : 25 + b.a.items]
      for choice in r['choices']
    ]
    sides = b.sides('likelihood', dtype='float32', pairs=pairs)
    if b.a.lmeval:
      sides['lm-eval'] = (b.a.lmeval, 'lmeval', sides['ours'][2])
    found = b.compare(f'likelihood, {shots} shots', sides, {'lm-eval': bar})
    if b.a.lmeval:
      both = zip(*(found[name]['logps'] for name in found))
      worst = max(abs(x - y) for x, y in both)
      b.row(f'largest difference, {shots} shots, nats', -worst, -1e-3, f'{worst:.1g}')


WORK = dict(
  decode=decode, alone=alone, queue=queue, samples=samples, likelihood=likelihood
)


def main():
  p = argparse.ArgumentParser()
  p.add_argument('--work', type=pathlib.Path, required=True)
  p.add_argument('--questions', type=pathlib.Path, required=True)
  p.add_argument('--choices', type=pathlib.Path)
  p.add_argument('--items', type=int, default=48)
  p.add_argument('--torch')
  p.add_argument('--lmeval')
  p.add_argument('--llamacpp')
  p.add_argument('--rounds', type=int, default=2)
  p.add_argument('--queue', type=int, default=200)
  p.add_argument('--dtype', default='bfloat16')
  p.add_argument('--core', type=int, default=1)
  p.add_argument('--only', default=','.join(WORK))
  bench = Bench(p.parse_args())
  print('| row | other / ours | bar | |\n|---|---|---|---|')
  start = time.perf_counter()
  for name in bench.a.only.split(','):
    WORK[name](bench)
  print(f'\n{time.perf_counter() - start:.0f} s')
  return int(any(bench.rows))


if __name__ == '__main__':
  sys.exit(main())
