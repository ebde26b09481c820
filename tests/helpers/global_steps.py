"""Runs a global step of curation on batches, through files of keys."""

import pathlib
import tempfile

from llama3_jax.curate.machine import documents
from llama3_jax.curate.machine import keys


def state(module, shards, config, partitions=2):
  """What resolve() gives for a list of shards, each a list of batches."""
  with tempfile.TemporaryDirectory() as folder:
    paths, sides = [], []
    for i, batches in enumerate(shards):
      found = module.emit(iter(batches), config)
      paths.append(pathlib.Path(folder, f'{i}.arrow'))
      keys.write(paths[-1], found['keys'])
      sides += [found['side']] if 'side' in found else []
    reduced = [
      module.reduce(keys.read(paths, p, partitions), config) for p in range(partitions)
    ]
  return module.resolve(iter(reduced), iter(sides), config)


def run(module, batch, config):
  """The batch after the step, its documents being the whole corpus."""
  return module.step(batch, config, state(module, [[batch]], config))


def batch(rows, first=0):
  """Documents in English, with their number in the corpus."""
  base = {'lang': 'en', 'category': 'general', 'date': '2024-01-01'}
  found = documents.batch([{**base, **row} for row in rows], first)
  return found.append_column('ordinal', found['id'])
