"""Tokenised sources for training: curated text, exercises and needles (section 3.1).

  python -m experiment --config=configs/shards.py --workdir=runs/shards \\
    --config.documents=runs/herd/curate/documents \\
    --config.tokenizer=runs/herd/tokenizer/tokenizer.model

Writes one folder a source (general, code, multilingual, math, drill, needle and
needle_long) with ArrayRecord files and index.json, and results.json. Files are read
part by part, each in a process of its own; the same command resumes where it stopped.
"""

from llama3_jax import workdir as workdirs
from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError
from llama3_jax.curate.machine import engine
from llama3_jax.data import texts
from llama3_jax.data import tokenise
from llama3_jax.tasks import needle
from llama3_jax.tasks import suite
from llama3_jax.text import store


def _indexes(config, results):
  return [f'{name}/index.json' for name in results]


@workdirs.stage(made=_indexes)
def main(config, folder):
  """Write every source; returns {source: {documents, tokens, languages}}."""
  if not config.heldout < 1:
    raise UserError(f'heldout={config.heldout}: it is a share, below 1')
  tokenizer, results = store.load(config.tokenizer), {}
  sources = texts.categories(config.documents, 'documents')
  for name, rows in _made(config, tokenizer, sources).items():
    path = folder / 'made' / f'{name}.jsonl.gz'
    path.parent.mkdir(exist_ok=True)
    if jsonl.write(path, rows):
      before = sources.get(name, []) if name == 'math' else []
      sources[name] = [*before, path]
  how = {n: config[n] for n in ('heldout', 'seed', 'part_bytes')}
  with engine.start(config.engine, config.workers) as each:
    for name, paths in sources.items():
      index = tokenise.write_files(paths, config.tokenizer, folder / name, each, **how)
      results[name] = {k: index[k] for k in ('documents', 'tokens', 'languages')}
  return results


def _made(config, tokenizer, sources):
  """{source: documents} that are generated: exercises, drills and needles."""
  made = {'math': suite.documents(config.task_pages, config.seed, config.task_names)}
  made['drill'] = suite.drills(config.drills, config.seed)
  c = config.needle
  if not (c.short_pages or c.long_pages):
    return made
  general = sources.get('general') or next(iter(sources.values()))
  rows = (row for path in general for row in texts.read(path, 'documents'))
  hay = needle.sentences(row['text'] for row in rows)
  for name, pages, room, facts in (
    ('needle', c.short_pages, c.short, c.facts),
    ('needle_long', c.long_pages, c.long, c.long_facts),
  ):
    made[name] = needle.pages(config.seed, tokenizer, hay, pages, room, facts, name)
  return made
