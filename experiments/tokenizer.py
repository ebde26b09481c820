"""The tokenizer: train or extend a byte-level BPE and report its compression (3.2).

  python -m experiment --config=configs/tokenizer.py:train --workdir=runs/tokenizer \\
    --config.inputs='("runs/herd/curate/documents",)' --config.vocab_size=4096
  python -m experiment --config=configs/tokenizer.py:extend --workdir=runs/extended \\
    --config.base=runs/tokenizer/tokenizer.model --config.vocab_size=5120

Writes tokenizer.model in Meta's format and results.json with characters per token by
language: after training on much text of a language expect 3 to 4 for Latin scripts.
Extending raises the added languages and leaves the kept ones exactly as they were.
"""

import collections
import itertools
import pathlib
import shutil

from absl import logging

from llama3_jax import workdir as workdirs
from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError
from llama3_jax.data import texts
from llama3_jax.tasks import suite
from llama3_jax.text import tokenizer


@workdirs.stage('tokenizer.model')
def main(config, folder):
  """Returns {'characters_per_token': {language: rate}, 'vocab_size', ...}."""
  train, held_out = _split(config)
  path = folder / 'tokenizer.model'
  results = {}
  if config.base:
    before = tokenizer.Tokenizer.load(config.base)
    results['base_characters_per_token'] = _rates(before, held_out)
    _extend(config, before, train, path)
  else:
    texts = itertools.chain.from_iterable(train[k] for k in sorted(train))
    tokenizer.train(texts, config.vocab_size, path, config.fewer)
  after = tokenizer.Tokenizer.load(path)
  rates = _rates(after, held_out)
  results |= dict(
    vocab_size=after.vocab_size,
    n_base=after.n_base,
    fingerprint=after.fingerprint,
    characters={k: sum(map(len, train[k])) for k in sorted(train)},
    characters_per_token=rates,
  )
  for language, rate in rates.items():
    logging.info('%s: %.2f characters per token', language, rate)
  return results


def _extend(config, base, train, path):
  extra = config.vocab_size - base.n_base
  if extra < 0:
    raise UserError(
      f'vocab_size={config.vocab_size} is below the {base.n_base} of base={config.base}'
    )
  if extra == 0:
    shutil.copyfile(config.base, path)
    return
  keep = [k for k in sorted(train) if k in config.keep]
  new = [k for k in sorted(train) if k not in config.keep]
  if not new:
    raise UserError(f'inputs hold no language beside those kept ({", ".join(keep)})')
  tokenizer.extend(
    config.base,
    itertools.chain.from_iterable(train[k] for k in new),
    extra,
    path,
    keep=itertools.chain.from_iterable(train[k] for k in keep),
  )


def _rates(vocabulary, texts):
  rates = tokenizer.characters_per_token(vocabulary, texts)
  return {language: round(rate, 4) for language, rate in rates.items()}


def _split(config):
  """Texts by language: for training, and every `hold_out`-th for the report; of each
  at most `max_characters` are held in memory."""
  train, held_out = collections.defaultdict(list), collections.defaultdict(list)
  used, measured, seen = (collections.Counter() for _ in range(3))
  made = itertools.chain(
    suite.documents(config.task_pages, 0, config.task_names),
    suite.drills(config.task_pages, 0),
  )
  pages = (('exercises', d['text']) for d in made)
  for language, text in itertools.chain(documents(config.inputs), pages):
    seen[language] += 1
    if seen[language] % config.hold_out == 0:
      if measured[language] < config.max_characters:
        held_out[language].append(text)
        measured[language] += len(text)
    elif used[language] < config.max_characters:
      train[language].append(text[: config.max_characters - used[language]])
      used[language] += len(text)
  for language in train:  # too few documents to hold one out
    held_out.setdefault(language, train[language])
  return train, {k: held_out[k] for k in sorted(held_out)}


def documents(inputs):
  """(language, text) of every document, in the order of the file names."""
  paths = []
  for given in inputs:
    p = pathlib.Path(given)
    files = texts.below(p) if p.is_dir() else [p]
    if not files or not files[0].exists():
      raise UserError(f'inputs: {given} is no file of documents, nor a folder of such')
    paths += files
  if not paths:
    raise UserError('inputs is empty: name JSONL files of documents, or folders')
  for path in paths:
    for row in texts.read(path, 'inputs'):
      yield jsonl.text(row, 'lang', str(path), '') or 'und', row['text']
