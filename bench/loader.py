"""Tokens a CPU-second of the data loader: python bench/loader.py [DOCUMENT_TOKENS].

Four sources in shards on disk, the paper's mix, packing with segments and positions,
the state taken after every batch and a resume in the middle; reading and unpacking the
documents is included, writing the shards is not. Then the time of a run whose steps
take as long as reading their batches, with batches read ahead and without (bar 0.75).
"""

import json
import pathlib
import resource
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import numpy as np

from llama3_jax.data import pipeline
from llama3_jax.data import shards
from llama3_jax.data import tokenise
from llama3_jax.train import prefetch
from llama3_jax.train import schedule

MIX = dict(general=0.5, math=0.25, code=0.17, multilingual=0.08)
ROWS, LENGTH, BATCHES = 8, 8192, 40


class Random:
  """A tokenizer that gives random ids: what they are does not matter here."""

  bos, eos, fingerprint = 0, 1, 'random'

  def __init__(self, tokens):
    self.rng, self.tokens, self.top = np.random.default_rng(0), tokens, 128_000

  def encode_batch(self, texts):
    sizes = self.rng.integers(self.tokens // 2, self.tokens * 3 // 2, len(texts))
    return [self.rng.integers(2, self.top, n).tolist() for n in sizes]


def cpu_seconds():
  used = resource.getrusage(resource.RUSAGE_SELF)
  return used.ru_utime + used.ru_stime


def rows(sources):
  return pipeline.Rows(sources, [(0, MIX)], 0)


def main():
  tokens = int(sys.argv[1]) if len(sys.argv) > 1 else 660
  with tempfile.TemporaryDirectory() as folder:
    sources = {}
    for name in MIX:
      path = pathlib.Path(folder, name)
      documents = ({'text': f'{name} {i}'} for i in range(4_000_000 // tokens))
      tokenise.write(documents, Random(tokens), path, heldout=0.0)
      sources[name] = shards.open_source(path)
    start, data, state = cpu_seconds(), rows(sources), None
    for i in range(BATCHES):
      if i == BATCHES // 2:
        data = rows(sources)
        data.restore(json.loads(state))
      data.batch(ROWS, LENGTH)
      state = json.dumps(data.state())
    rate = BATCHES * ROWS * LENGTH / (cpu_seconds() - start) / 1e6
    alone = waiting(sources, 0, 0) / BATCHES
    ratio = waiting(sources, 2, alone) / waiting(sources, 0, alone)
  print(f'documents of {tokens} tokens: {rate:.1f} M tokens a CPU-second')
  print(f'wall time, 2 batches read ahead / none: {ratio:.2f}')
  return ratio > 0.75


def waiting(sources, ahead, step):
  """Seconds of BATCHES steps that each wait `step` seconds for an accelerator."""
  phases = (schedule.Phase(0, ROWS, LENGTH),)
  batches = prefetch.Batches(rows(sources), phases, (0, 1), ahead)
  start = time.perf_counter()
  for _ in range(BATCHES):
    batches.take()
    time.sleep(step)
  return time.perf_counter() - start


if __name__ == '__main__':
  sys.exit(main())
