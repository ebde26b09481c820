"""Tokenised sources for training: curated text, exercises and needles (section 3.1).

  python -m experiment --config=configs/shards.py --workdir=runs/shards \\
    --config.documents=runs/herd/curate/documents \\
    --config.tokenizer=runs/herd/tokenizer/tokenizer.model

Writes one folder a source (general, code, multilingual, math, drill, needle and
needle_long) with ArrayRecord files and index.json, and results.json.
"""

import pathlib
import random
import re

from llama3_jax import config as configs
from llama3_jax import tokenizer as tokenizers
from llama3_jax import workdir as workdirs
from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError
from llama3_jax.data import shards
from llama3_jax.tasks import needle
from llama3_jax.tasks import suite


def main(config, workdir):
  """Write every source; returns {source: {documents, tokens}}."""
  folder = workdirs.claim(config, workdir)
  if (done := workdirs.finished(folder, _indexes)) is not None:
    return done
  if not config.heldout < 1:
    raise UserError(f'heldout={config.heldout}: it is a share, below 1')
  tokenizer = tokenizers.Tokenizer.load(config.tokenizer)
  results = {}
  for name, documents in _sources(config, tokenizer).items():
    index = shards.write(
      documents,
      tokenizer,
      folder / name,
      heldout=config.heldout,
      seed=config.seed,
      vocabulary=config.tokenizer,
    )
    results[name] = {k: index[k] for k in ('documents', 'tokens', 'languages')}
  configs.write_json(folder / 'results.json', results)
  return results


def _indexes(results):
  return [f'{name}/index.json' for name in results]


def _sources(config, tokenizer):
  """{source: iterable of documents}."""
  found = {}
  for path in sorted(pathlib.Path(config.documents).glob('*.jsonl.gz')):
    found[path.name.removesuffix('.jsonl.gz')] = list(read(path))
  if not found:
    raise UserError(f'documents={config.documents}: no *.jsonl.gz there; curate first')
  pages = suite.documents(config.task_pages, config.seed)
  found['math'] = [*found.get('math', []), *pages]
  found['drill'] = suite.drills(config.drills, config.seed)
  general = found.get('general') or next(iter(found.values()))
  text = sentences(d['text'] for d in general)
  c = config.needle
  for name, pages, room, facts in (
    ('needle', c.short_pages, c.short, c.facts),
    ('needle_long', c.long_pages, c.long, c.long_facts),
  ):
    found[name] = haystacks(config.seed, tokenizer, text, pages, room, facts, name)
  return found


def read(path):
  """Documents of a .jsonl.gz file."""
  for where, row in jsonl.read(path, 'documents', empty=True):
    jsonl.text(row, 'text', where)
    yield row


def sentences(texts):
  """Sentences of 20 to 160 characters: the hay."""
  found = []
  for text in texts:
    for s in re.split(r'(?<=[.!?])\s+', ' '.join(text.split())):
      if 20 < len(s) < 160 and s[-1] in '.!?':
        found.append(s)
  if not found:
    raise UserError('documents: no sentence in category general to hide needles in')
  return found


def haystacks(seed, tokenizer, text, pages, room, facts, name):
  """`pages` documents of `room` tokens that hide `facts` (both from, to)."""
  rng = random.Random(f'{seed}/{name}')
  count = lambda s: len(tokenizer.encode(s))
  for _ in range(pages):
    length, n_facts = rng.randint(*room), rng.randint(*facts)
    page = needle.page(rng, text, length, n_facts, count)
    yield {'text': page, 'source': name, 'lang': 'en'}
