"""Sources in memory and the streams of rows they give."""

import numpy as np

from llama3_jax.data import pipeline


class Source:
  """Documents in memory: number k of source s is [1, s, k, 0, 1, 2, ..., 2]."""

  def __init__(self, name, lengths, fingerprint='a'):
    self.fingerprint = f'{name}{fingerprint}'
    self.lengths = np.array(lengths, np.uint32)
    self.read = set()
    self._tag = sum(name.encode())

  def __len__(self):
    return len(self.lengths)

  def __getitem__(self, i):
    self.read.add(i)
    n = int(self.lengths[i])
    body = np.arange(100, 100 + n, dtype=np.uint32)
    body[:3], body[-1] = (1, self._tag, 1000 + i), 2
    return body


def sources():
  rng = np.random.default_rng(0)
  return {
    'web': Source('web', rng.integers(5, 60, 50)),
    'code': Source('code', rng.integers(5, 400, 30)),
    'math': Source('math', rng.integers(5, 30, 40)),
  }


PHASES = [(0, {'web': 0.6, 'code': 0.4}), (3000, {'web': 0.2, 'math': 0.8})]


def rows(phases=PHASES, seed=0, positions='row', lanes=8):
  return pipeline.Rows(sources(), phases, seed, positions, lanes)
