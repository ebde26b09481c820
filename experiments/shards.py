"""Tokenised sources for training: curated text, exercises and needles (section 3.1).

  python -m experiment --config=configs/shards.py --workdir=runs/shards \\
    --config.documents=runs/herd/curate/documents \\
    --config.tokenizer=runs/herd/tokenizer/tokenizer.model

Writes one folder a source (general, code, multilingual, math, drill, needle and
needle_long) with ArrayRecord files and index.json, and results.json.
"""

import pathlib

from llama3_jax import tokenizer as tokenizers
from llama3_jax import workdir as workdirs
from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError
from llama3_jax.data import shards
from llama3_jax.tasks import needle
from llama3_jax.tasks import suite


def _indexes(config, results):
  return [f'{name}/index.json' for name in results]


@workdirs.stage(made=_indexes)
def main(config, folder):
  """Write every source; returns {source: {documents, tokens}}."""
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
  return results


def _sources(config, tokenizer):
  """{source: iterable of documents}."""
  found = {}
  for path in sorted(pathlib.Path(config.documents).glob('*.jsonl.gz')):
    name = path.name.removesuffix('.jsonl.gz')
    found[name] = list(jsonl.documents(path, 'documents'))
  if not found:
    raise UserError(f'documents={config.documents}: no *.jsonl.gz there; curate first')
  pages = suite.documents(config.task_pages, config.seed, config.task_names)
  found['math'] = [*found.get('math', []), *pages]
  found['drill'] = suite.drills(config.drills, config.seed)
  general = found.get('general') or next(iter(found.values()))
  text = needle.sentences(d['text'] for d in general)
  c = config.needle
  for name, pages, room, facts in (
    ('needle', c.short_pages, c.short, c.facts),
    ('needle_long', c.long_pages, c.long, c.long_facts),
  ):
    found[name] = needle.pages(config.seed, tokenizer, text, pages, room, facts, name)
  return found
