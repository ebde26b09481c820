"""Inputs of a small curation run, and what it leaves."""

import dataclasses
import gzip
import json
import random

from llama3_jax.base import jsonl
from llama3_jax.curate.machine import run
from llama3_jax.curate.machine import stages
from llama3_jax.curate.reading import warc
from llama3_jax.curate.rules import heuristics

LOOSE = dataclasses.replace(heuristics.OFF, min_words=5)
CONFIG = stages.Config(
  workers=1, heuristics=heuristics.Config(prose=LOOSE, overrides=()), skip=('outlier',)
)


def article(i):
  rng = random.Random(i)
  nouns = 'house river teacher window garden winter letter boat apple stone'.split()
  verbs = 'finds carries paints forgets repairs follows remembers'.split()
  words = ' '.join(
    f'The {rng.choice(nouns)} of number {i} {rng.choice(verbs)} a {rng.choice(nouns)} '
    f'near the {rng.choice(nouns)} while it {rng.choice(verbs)} {k} days.'
    for k in range(12)
  )
  return f'<html><body><main><article><p>{words}</p></article></main></body></html>'


def write_inputs(folder, count=5):
  pages = [
    {'url': f'https://a.example/{i}', 'date': '2024-02-01', 'html': article(i)}
    for i in range(count)
  ]
  old = {'url': 'https://a.example/1#x', 'date': '2020-01-01', 'html': article(99)}
  warc.write(folder / 'web.warc.gz', [*pages, old])
  code = {'text': 'def f(x):\n  return x\n' * 10, 'url': 'f.py', 'date': '2024'}
  jsonl.write(folder / 'code.jsonl.gz', [code])
  return [
    {'path': str(folder / 'web.warc.gz')},
    {'path': str(folder / 'code.jsonl.gz'), 'category': 'code', 'source': 'mine'},
  ]


def curated(inputs, config, folder):
  return run.run(run.open_store(inputs, config, folder), config)


def read(path):
  with gzip.open(path, 'rb') as f:
    return [json.loads(line) for line in f]
