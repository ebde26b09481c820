"""Curation: crawled pages and documents in, clean documents out (section 3.1.1).

  python -m experiment --config=configs/curate.py:herd --workdir=runs/curate
  python -m experiment --config=configs/curate.py:files --workdir=runs/curate \\
    --config.inputs="('crawl/*.warc.gz', 'code=s3://bucket/source.jsonl.zst')"

An input is a WARC, Parquet or JSONL file (.gz, .zst), a pattern or an fsspec URL, with
`category=` before it when that is not general. Writes documents/ (text, url, date,
source, lang, category) as <category>/<input>.parquet, or with
--config.curate.form=jsonl as <category>.jsonl.gz; dropped.jsonl.gz (reason, value,
url), funnel.json, report.html and results.json.

The same command resumes where it stopped; with another threshold only the stages from
there on run again, with --config.sweep="(('heuristics', 'max_top_2gram', 0.1, 0.3),)" a
table says what other values of a rule would drop. Several machines: --config.hosts=4
--config.host=0..3 with one folder; a Ray cluster: --config.engine=ray.

Expected with `herd` (packages of the registry, see data/samples.py): 2,681 pages and
files come in and 2,187 survive, 13.8 MB: English, seven other languages and code.
"""

import collections
import dataclasses
import hashlib

from absl import logging

from llama3_jax import config as configs
from llama3_jax import workdir as workdirs
from llama3_jax.base import files
from llama3_jax.base.errors import UserError
from llama3_jax.curate.machine import check
from llama3_jax.curate.machine import documents
from llama3_jax.curate.machine import engine
from llama3_jax.curate.machine import output
from llama3_jax.curate.machine import run
from llama3_jax.curate.machine import stages
from llama3_jax.curate.reporting import funnel
from llama3_jax.curate.reporting import margins
from llama3_jax.curate.reporting import report
from llama3_jax.curate.reporting import verdicts
from llama3_jax.data import samples


def main(config, workdir):
  """Curate the inputs; returns {inputs, steps, problems, categories, ...}."""
  # Every field is free: fingerprints say which stages another value concerns.
  free = tuple(configs.flatten(config))
  folder = workdirs.claim(config, workdir, free)
  rules = configs.fill(stages.Config(), config.curate, 'curate')
  run_on = {name: config[name] for name in ('engine', 'workers', 'hosts', 'host')}
  rules = dataclasses.replace(rules, **run_on)
  check.check(rules)
  known = verdicts.load(config.verdicts)
  lines = stages.thresholds(rules)
  wanted = [_wanted(lines, entry) for entry in config.sweep]
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
  done = folder / 'results.json'
  written = output.written(folder, rules)
  written += [done, folder / 'funnel.json', folder / 'report.html']
  if all(path.exists() for path in written) and not wanted and not known:
    results = files.read_json(done)
    if _same(results, inputs, rules, folder):
      return results
  store = run.open_store(inputs, rules, folder)
  total = run.run(store, rules)
  results = {'inputs': found, **total, 'fingerprint': store.fingerprint}
  results['rules'] = _rules(inputs, rules)
  if not total['categories']:
    logging.warning('%s', _nothing(total))
  if rules.host == 0:
    files.write_json(folder / 'funnel.json', total)
    _report(store, rules, total, lines, (wanted, known), folder)
    files.write_json(done, results)
  return results


def _nothing(total):
  """Says that no document is left, and what took most of them."""
  lost = collections.Counter()
  for step in total['steps']:
    for reason, gone in step['dropped'].items():
      lost[reason] += gone['documents']
  most = ', '.join(f'{reason} {n}' for reason, n in lost.most_common(3))
  return (
    f'no document is left ({most}): dropped.jsonl.gz has them, report.html the rules'
  )


def _same(results, inputs, rules, folder):
  """Whether the results are of these inputs and rules; inputs may be gone by now."""
  try:
    store = run.open_store(inputs, rules, folder)
    same = store.fingerprint == results.get('fingerprint')
    return same and results.get('rules') == _rules(inputs, rules)
  except UserError as error:
    if results.get('rules') != _rules(inputs, rules):
      raise
    logging.warning('%s; results.json of an earlier run is kept', error)
    return True


def _rules(inputs, rules):
  """Names what was asked for, without looking at the inputs."""
  same = dataclasses.replace(
    rules, engine='', workers=0, hosts=1, host=0, memory_bytes=0
  )
  return hashlib.sha256(repr((inputs, same)).encode()).hexdigest()[:16]


def _wanted(lines, entry):
  """(Line, limits) of a sweep ('column or reason', value, ...)."""
  try:
    name, *limits = entry if isinstance(entry, (tuple, list)) else (entry,)
    limits = [float(limit) for limit in limits]
  except (TypeError, ValueError):
    limits = []
  if not limits:
    raise UserError(
      f'sweep: {entry!r}; give a rule and limits: --config.sweep='
      '"((\'length.words\', 20, 100),)"'
    )
  for line in lines:
    if name in (line.reason, line.key, line.column):
      return line, limits
  known = sorted({line.reason for line in lines})
  near = configs.nearest(str(name), known)
  hint = f'did you mean {" or ".join(near)}?' if near else f'one of {", ".join(known)}'
  raise UserError(f'sweep: no rule {name!r}; {hint}')


def _report(store, rules, total, lines, asked, folder):
  """Writes report.html, and sweep.json where a sweep was asked for."""
  wanted, known = asked
  with engine.start(rules.engine, rules.workers) as each:
    found, sweeps = margins.study(each, store, lines, wanted)
  if wanted:
    files.write_json(folder / 'sweep.json', sweeps)
  report.write(
    folder / 'report.html',
    {
      'funnel': total,
      'seconds': funnel.seconds(store),
      'lines': lines,
      'margins': found,
      'sweeps': sweeps,
      'personal': funnel.personal(store),
      'models': funnel.models(store),
      'verdicts': verdicts.count(store, known),
    },
  )


def _input(text):
  """{'path', 'category'} of 'path' or 'category=path'."""
  if not isinstance(text, str):
    raise UserError(f'inputs: {text!r}; give paths, patterns or URLs')
  category, _, path = text.partition('=')
  if category not in documents.CATEGORIES:  # a path with a = in it
    category, path = 'general', text
  return {'path': path, 'category': category}
