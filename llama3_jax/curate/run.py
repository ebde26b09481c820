"""Curation: crawled pages to clean documents, with a count for every rule (3.1.1)."""

import collections
import dataclasses
import pathlib
import time

import pyarrow.compute as pc
from absl import logging

from llama3_jax import config as configs
from llama3_jax.config import UserError
from llama3_jax.curate import dedup
from llama3_jax.curate import documents
from llama3_jax.curate import extract
from llama3_jax.curate import heuristics
from llama3_jax.curate import language
from llama3_jax.curate import urls
from llama3_jax.curate import warc

EXCERPT = 300  # characters of a dropped document that are kept for the reader


@dataclasses.dataclass(frozen=True)
class Config:
  """The switches of every step; see each step for what they mean."""

  blocked_hosts: tuple[str, ...] = ()
  dirty_words: tuple[str, ...] = heuristics.DIRTY_WORDS
  min_lang_score: float = 0.3
  minhash_bands: int = 14
  minhash_rows: int = 8
  line_limit: int = 6
  line_bucket_documents: int = 30_000_000
  limits: heuristics.Limits = heuristics.Limits()
  skip: tuple[str, ...] = ()  # names of steps to leave out


def steps(config):
  """The steps in the paper's order: list of (name, function Table -> Table)."""
  c = config
  return [
    ('block', lambda t: urls.step_block(t, c.blocked_hosts)),
    ('extract', extract.step),
    ('language', lambda t: language.step(t, c.min_lang_score)),
    ('url', urls.step_newest),
    ('document', lambda t: dedup.step_documents(t, c.minhash_bands, c.minhash_rows)),
    ('line', lambda t: dedup.step_lines(t, c.line_limit, c.line_bucket_documents)),
    ('length', lambda t: heuristics.step_length(t, c.limits)),
    ('repetition', lambda t: heuristics.step_repetition(t, c.limits)),
    ('dirty', lambda t: heuristics.step_dirty(t, c.limits, c.dirty_words)),
    ('outlier', lambda t: heuristics.step_outliers(t, c.limits)),
  ]


def curate(table, config):
  """Runs the steps over a table of documents.

  Returns:
    (table, funnel): the same rows with drop_reason filled in; and for each step a dict
    step, documents, bytes (both of what is left), seconds, dropped {reason: {documents,
    bytes}}, languages {lang: documents left}. The first entry is the input.
  """
  names = [name for name, _ in steps(config)]
  unknown = sorted(set(config.skip) - set(names))
  if unknown:
    raise UserError(
      f'config.skip: no step {unknown[0]!r}; steps are {", ".join(names)}'
    )
  funnel = [_entry('input', table, table, 0.0)]
  for name, step in steps(config):
    if name in config.skip:
      continue
    start, before = time.monotonic(), table
    table = step(table)
    funnel.append(_entry(name, before, table, time.monotonic() - start))
    logging.info('curate %s: %d documents left', name, funnel[-1]['documents'])
  return table, funnel


def run(inputs, config, folder):
  """Curates files into a folder; funnel.json is written last.

  Args:
    inputs: list of dicts with path and, optionally, category and source.
    config: Config.
    folder: gets documents/<category>.jsonl.gz, dropped.jsonl.gz and funnel.json.

  Returns:
    What funnel.json holds: steps (see curate), problems (unreadable records), and
    documents, bytes and languages of each category of the result.
  """
  folder = pathlib.Path(folder)
  rows, problems = [], []
  for entry in inputs:
    found, bad = warc.read(
      entry['path'], entry.get('category', 'general'), entry.get('source')
    )
    rows.extend(found)
    problems.extend(bad)
  unknown = {row['category'] for row in rows} - set(documents.CATEGORIES)
  if unknown:
    raise UserError(
      f'config.inputs: category {sorted(unknown)[0]!r}; it is one of '
      f'{", ".join(documents.CATEGORIES)}'
    )
  if not rows:
    raise UserError('config.inputs: no document could be read from them')
  for problem in problems:
    logging.warning('%s', problem)
  table, funnel = curate(documents.table(rows), config)
  result = {'steps': funnel, 'problems': problems, 'categories': _categories(table)}
  try:
    _write(table, result, folder)
  except OSError as error:
    raise UserError(f'{folder}: cannot be written: {error.strerror}') from error
  return result


def _write(table, result, folder):
  (folder / 'documents').mkdir(parents=True, exist_ok=True)
  for category in documents.CATEGORIES:
    keep = pc.and_(
      table['drop_reason'].is_null(), pc.equal(table['category'], category)
    )
    fields = ['text', 'url', 'date', 'source', 'lang', 'category']
    rows = table.filter(keep).select(fields).to_pylist()
    warc.write_jsonl(
      folder / 'documents' / f'{category}.jsonl.gz',
      ({**row, 'date': (row['date'] or '')[:10]} for row in rows),
    )
  gone = table.filter(pc.is_valid(table['drop_reason'])).select(
    ['drop_reason', 'drop_value', 'url', 'date', 'source', 'lang', 'category', 'text']
  )
  warc.write_jsonl(
    folder / 'dropped.jsonl.gz',
    (
      {
        'reason': row.pop('drop_reason'),
        'value': row.pop('drop_value'),
        **row,
        'text': (row['text'] or '')[:EXCERPT],
      }
      for row in gone.to_pylist()
    ),
  )
  configs.write_json(folder / 'funnel.json', result)


def _sizes(table):
  """Bytes of each document: of its text, or of its html before extraction."""
  return pc.fill_null(
    pc.binary_length(pc.coalesce(table['text'], table['html'])), 0
  ).to_pylist()


def _entry(name, before, after, seconds):
  """One line of the funnel."""
  sizes, was = _sizes(after), _sizes(before)
  dropped = collections.defaultdict(lambda: {'documents': 0, 'bytes': 0})
  languages, count, total = collections.Counter(), 0, 0
  columns = zip(
    before['drop_reason'].to_pylist(),
    after['drop_reason'].to_pylist(),
    after['lang'].to_pylist(),
    sizes,
    was,
  )
  for old, reason, lang, size, size_before in columns:
    if reason is None:
      count += 1
      total += size
      languages[lang or 'unknown'] += 1
    elif old is None or name == 'input':
      dropped[reason]['documents'] += 1
      dropped[reason]['bytes'] += size_before
  return {
    'step': name,
    'documents': count,
    'bytes': total,
    'seconds': round(seconds, 3),
    'dropped': dict(sorted(dropped.items())),
    'languages': dict(sorted(languages.items())),
  }


def _categories(table):
  """Documents, bytes and languages of each category that are left."""
  result = {}
  rows = documents.alive(table)
  sizes = _sizes(table)
  for row, category, lang in zip(
    rows, documents.take(table, 'category', rows), documents.take(table, 'lang', rows)
  ):
    entry = result.setdefault(category, {'documents': 0, 'bytes': 0, 'languages': {}})
    entry['documents'] += 1
    entry['bytes'] += sizes[row]
    count = entry['languages'].setdefault(lang, {'documents': 0, 'bytes': 0})
    count['documents'] += 1
    count['bytes'] += sizes[row]
  return result
