"""Curation: crawled pages and documents in, clean documents out (section 3.1.1).

  python -m experiment --config=configs/curate.py:herd --workdir=runs/curate
  python -m experiment --config=configs/curate.py:files --workdir=runs/curate \\
    --config.inputs="('crawl/*.warc.gz', 'code=s3://bucket/source.jsonl.zst')"

An input is a WARC, Parquet or JSONL file (.gz, .zst), a pattern or an fsspec URL, with
`category=` before it when that is not general. Writes documents/<category>.jsonl.gz
(text, url, date, source, lang, category), dropped.jsonl.gz (reason, value, url),
funnel.json, report.html and results.json. The same command goes on where it stopped;
with another threshold only the stages from there on run again, with
--config.sweep="(('heuristics', 'max_top_2gram', 0.1, 0.3),)" a table says what other
values of a rule would drop. Several machines: --config.hosts=4 --config.host=0..3 with
one folder; a Ray cluster: --config.engine=ray.
"""

import dataclasses
import hashlib

import ml_collections
from absl import logging

from llama3_jax import config as configs
from llama3_jax.config import UserError
from llama3_jax.curate import documents
from llama3_jax.curate import engine
from llama3_jax.curate import funnel
from llama3_jax.curate import margins
from llama3_jax.curate import report
from llama3_jax.curate import run
from llama3_jax.curate import stages
from llama3_jax.data import samples


def main(config, workdir):
  """Curate the inputs; returns {inputs, steps, problems, categories, ...}."""
  # Every field is free: fingerprints say which stages another value concerns.
  free = (*configs.FREE, *configs.flatten(config))
  folder = configs.open_workdir(config, workdir, free)
  rules = fill(stages.Config(), config.curate)
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
  rules = dataclasses.replace(
    rules, engine=config.engine, workers=config.workers, hosts=config.hosts
  )
  rules = dataclasses.replace(rules, host=config.host)
  if not 0 <= rules.host < rules.hosts:
    raise UserError(f'host={rules.host}: one of 0 to {rules.hosts - 1} (config.hosts)')
  done = folder / 'results.json'
  if done.exists() and not wanted:
    results = configs.read_json(done)
    if _same(results, inputs, rules, folder):
      return results
  store = run.open_store(inputs, rules, folder)
  total = run.run(store, rules)
  results = {'inputs': found, **total, 'print': store.print}
  results['rules'] = _rules(inputs, rules)
  if rules.host == 0:
    configs.replace(folder / 'funnel.json', total)
    _report(store, rules, total, lines, wanted, folder)
    configs.replace(done, results)
  return results


def _same(results, inputs, rules, folder):
  """Whether the results are of these inputs and rules; inputs may be gone by now."""
  try:
    return run.open_store(inputs, rules, folder).print == results.get('print')
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


def fill(default, config):
  """The dataclass `default` with the fields of a ConfigDict, part by part."""
  values = {}
  for name, value in config.items():
    present = getattr(default, name)
    if isinstance(value, ml_collections.ConfigDict):
      value = fill(present, value)
    elif isinstance(value, list):
      value = tuple(value)
    elif present is None and value is not None:  # a rule that was off
      value = _number(name, value)
    values[name] = value
  return dataclasses.replace(default, **values)


def _number(name, value):
  try:
    return float(value)
  except (TypeError, ValueError):
    raise UserError(f'{name}={value!r}: a number is needed') from None


def _wanted(lines, entry):
  """(Line, limits) of a sweep ('column or reason', value, ...)."""
  name, *limits = entry
  for line in lines:
    if name in (line.reason, line.key, line.column):
      return line, [float(limit) for limit in limits]
  near = configs.nearest(str(name), [line.key for line in lines])
  raise UserError(f'sweep: no rule {name!r}; did you mean {" or ".join(near) or "?"}')


def _report(store, rules, total, lines, wanted, folder):
  """Writes report.html, and sweep.json where a sweep was asked for."""
  shards, count = range(len(store.shards)), len(store.stages)
  with engine.start(rules.engine, rules.workers) as each:
    jobs = [(store, count, tuple(lines), i) for i in shards]
    parts = dict(each(margins.shard, jobs))
    found = margins.merge([parts[job] for job in jobs], lines)
    sweeps = []
    if wanted:
      jobs = [
        (store, count, tuple((x, tuple(v)) for x, v in wanted), i) for i in shards
      ]
      counts = [result for _, result in each(margins.sweep, jobs)]
      for line, limits in wanted:
        summed = [
          [sum(c[line.key][i][k] for c in counts) for k in (0, 1)]
          for i in range(len(limits))
        ]
        sweeps.append({'rule': line.key, 'limits': limits, 'counts': summed})
      configs.replace(folder / 'sweep.json', sweeps)
  report.write(
    folder / 'report.html',
    {
      'funnel': total,
      'seconds': funnel.seconds(store),
      'lines': lines,
      'margins': found,
      'sweeps': sweeps,
    },
  )


def _input(text):
  """{'path', 'category'} of 'path' or 'category=path'."""
  category, _, path = text.partition('=')
  if category not in documents.CATEGORIES:  # a path with a = in it
    category, path = 'general', text
  return {'path': path, 'category': category}
