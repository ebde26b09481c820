"""Documents a CPU-second of MinHash: python bench/minhash.py TEXTS [PYTHON].

From text to signature and band keys, 14 x 8 of word 5-grams; TEXTS and PYTHON as in
heuristics.py. Then, on random sets of known similarity: how often two share a band and
how good the estimate is, beside what theory says.
"""

import dataclasses
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import heuristics as bench
import numpy as np

from llama3_jax.curate.duplicates import lines
from llama3_jax.curate.duplicates import minhash
from llama3_jax.curate.measures import words

PAIRS, SIZE = 4000, 400


def sets(similarity, config):
  """(true similarity, share of pairs with a band in common, estimates)."""
  rng = np.random.default_rng(round(1000 * similarity))
  shared = round(2 * SIZE * similarity / (1 + similarity))
  hashes = rng.integers(0, 2**63, (PAIRS, 2 * SIZE - shared), np.uint64)
  signatures = []
  for part in (hashes[:, :SIZE], hashes[:, -SIZE:]):
    flat, first = np.ascontiguousarray(part).ravel(), np.arange(PAIRS + 1) * SIZE
    scale = np.ones(PAIRS, np.int64)
    blank = dict.fromkeys(field.name for field in dataclasses.fields(words.Words))
    given = dict(hashes=flat, first=first, scale=scale)
    found = words.Words(**blank | given)
    signatures.append(minhash.signatures(found, config))
  scope = np.zeros(PAIRS, np.uint64)
  a, b = (minhash.band_keys(part, scope, config) for part in signatures)
  estimates = (signatures[0] == signatures[1]).mean(axis=1)
  return shared / (2 * SIZE - shared), (a == b).any(axis=1).mean(), estimates


def main():
  texts = bench.read(sys.argv[1])
  parts = bench.batches(texts)
  config, counted = minhash.Config(), lines.Config(scope=('language',))
  ours = bench.rate(lambda batch: minhash.emit([batch], config), parts)
  print(f'ours, text to signature and bands: {ours:,.0f} documents a CPU-second')
  rate = bench.rate(lambda batch: lines.emit([batch], counted), parts)
  print(f'ours, keys of lines: {rate:,.0f}')
  if len(sys.argv) > 2:
    (theirs,) = bench.peer(sys.argv[2], texts[: bench.PEER], 'minhash').values()
    print(f'datatrove, text to signature: {theirs:,.0f}')
    print(f'ours / datatrove: {ours / theirs:,.0f}')
  print('similarity  band in common  theory  estimate  s.d.   theory')
  config = minhash.Config(gram=1)
  for similarity in (0.5, 0.7, 0.8, 0.9):
    true, hits, estimates = sets(similarity, config)
    theory = 1 - (1 - true**config.rows) ** config.bands
    deviation = (true * (1 - true) / (config.bands * config.rows)) ** 0.5
    print(
      f'{true:10.3f}  {hits:14.3f}  {theory:6.3f}  {estimates.mean():8.3f}  '
      f'{estimates.std():.3f}  {deviation:.3f}'
    )


if __name__ == '__main__':
  main()
