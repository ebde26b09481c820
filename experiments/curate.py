"""Curation: crawled pages and documents in, clean documents out (section 3.1.1).

  python -m experiment --config=configs/curate.py:herd --workdir=runs/curate
  python -m experiment --config=configs/curate.py:files --workdir=runs/curate \\
    --config.inputs="('crawl.warc.gz', 'code=source.jsonl.gz')"

An input is a .warc or .jsonl file, plain or gzip, with `category=` before it when that
is not general. Writes documents/<category>.jsonl.gz (text, url, date, source, lang,
category), dropped.jsonl.gz (reason, value, url), funnel.json (documents, bytes and
languages after every step) and results.json.

Expected with `herd` (packages of the registry, see data/samples.py): 2,681 pages and
files come in and 1,936 survive, 11.9 MB: English, seven other languages and code, 3.5M
tokens of a vocabulary of 4,096; 20 to 40 s on one core and 0.4 GB.
"""

from absl import logging

from llama3_jax import config as configs
from llama3_jax.config import UserError
from llama3_jax.curate import heuristics
from llama3_jax.curate import run
from llama3_jax.data import samples


def main(config, workdir):
  """Curate the inputs; returns {inputs, steps, problems, categories}."""
  folder = configs.open_workdir(config, workdir)
  if (folder / 'results.json').exists():
    return configs.read_json(folder / 'results.json')
  rules = curation(config)
  inputs, found = [], {}
  if config.samples:
    found = samples.prepare(
      folder / 'inputs',
      languages=tuple(config.languages),
      code_characters=config.code_characters,
      offline=config.offline,
    )
    if found['offline']:
      logging.warning('no package registry (%s): generated text', found['reason'])
    inputs = found.pop('inputs')
  inputs += [_input(text) for text in config.inputs]
  if not inputs:
    raise UserError(
      'inputs: empty; name files, e.g. --config.inputs="(\'a.warc.gz\',)"'
    )
  results = {'inputs': found, **run.run(inputs, rules, folder)}
  configs.write_json(folder / 'results.json', results)
  return results


def curation(config):
  """The run.Config of a ConfigDict."""
  c = config
  for name in ('top_grams', 'duplicate_grams'):
    wanted = len(getattr(heuristics.Limits(), name))
    if len(c.limits[name]) != wanted:
      raise UserError(f'limits.{name}: {len(c.limits[name])} values, give {wanted}')
  limits = {
    name: tuple(value) if isinstance(value, (tuple, list)) else value
    for name, value in c.limits.items()
  }
  return run.Config(
    blocked_hosts=tuple(c.blocked_hosts),
    dirty_words=tuple(c.dirty_words),
    min_lang_score=c.min_lang_score,
    minhash_bands=c.minhash.bands,
    minhash_rows=c.minhash.rows,
    line_limit=c.lines.limit,
    line_bucket_documents=c.lines.bucket,
    limits=heuristics.Limits(**limits),
    skip=tuple(c.skip),
  )


def _input(text):
  """{'path', 'category'} of 'path' or 'category=path'."""
  category, _, path = text.rpartition('=')
  return {'path': path, 'category': category or 'general'}
