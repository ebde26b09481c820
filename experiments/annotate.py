"""Preference annotation (4.2.1): which of two answers is better, by people or judges.

  python -m experiment --config=annotate --files=two.jsonl --workdir=runs/annotate
  python -m experiment --config=annotate --files=prompts.jsonl --workdir=runs/other \\
    --config.pool="('runs/a', 'runs/b')"

Expected: `the page is at http://127.0.0.1:8001`; every row is written as it is judged,
and the same command goes on where it stopped. With `judges` of judges there is no page.
Writes preferences.jsonl, which `reward` and `dpo` read, and skipped.jsonl; with a pool
first candidates.jsonl, two answers of two different models to every prompt. With
--config.scale=7 the scale is that of human evaluation (5.3), and every verdict is also
a row of ratings.jsonl, which `pairwise` reads.
"""

import collections
import functools
import importlib.util

from absl import logging

from llama3_jax import workdir as workdirs
from llama3_jax.base import jsonl
from llama3_jax.base import rows
from llama3_jax.base.errors import UserError
from llama3_jax.post import annotators
from llama3_jax.post import asking
from llama3_jax.post import formats
from llama3_jax.post import pool
from llama3_jax.post import ratings
from llama3_jax.post import selection
from llama3_jax.text import chat

ALONE = True  # one process writes
WAITS = True  # for people: its log may be silent
FREE = ('host', 'port')
SCALES = (8, 7)


def main(config, workdir):
  """Annotate; returns {'judged', 'skipped', 'total', 'bad'}, of judges also 'counts',
  'first': rows whose first response is better, and 'wins': of each model."""
  if not config.files:
    raise UserError('files is empty: rows of prompt and responses, --files=FILE')
  if config.scale not in SCALES:
    raise UserError(f'scale={config.scale}: 8 (four strengths of a side) or 7 points')
  if not config.rater.strip():
    raise UserError("rater is empty: name who rates, --config.rater='Ann'")
  if tuple(config.judges) != ('people',):
    return _judged(config, workdir)
  if any(importlib.util.find_spec(n) is None for n in ('starlette', 'uvicorn')):
    raise UserError("annotate needs starlette and uvicorn: pip install -e '.[serve]'")
  folder = workdirs.claim(config, workdir, FREE)
  asked, bad = _asked(config, folder)
  return {'bad': bad} | _page(config, folder, asked)


def _asked(config, folder):
  """(questions, how many rows are none)."""
  left = selection.Left()
  bad = lambda error: left.add(selection.BAD, str(error))
  files = _candidates(config, folder, bad) if config.pool else config.files
  given = [row for path in files for row in rows.read(path, 'files', bad)]
  asked = annotators.questions(given, bad)
  left.tell()
  of_pool = all(row.get('models') for _, row in given)
  if not asked and not of_pool:  # two models may give the same answers
    raise UserError(f'files: none of {len(given)} rows has two answers that differ')
  return asked, sum(left.counts().values())


def _made(config, results):
  """Files of judges."""
  return ['preferences.jsonl'] + ['ratings.jsonl'] * (config.scale == 7)


@workdirs.stage(made=_made, free=FREE)
def _judged(config, folder):
  """The verdicts of judges."""
  counts = collections.Counter()
  judges = _judges(config, counts)  # refused before a model is loaded
  asked, bad = _asked(config, folder)
  if config.scale == 7:
    judges = _rated(config, folder, judges, asked)
  verdicts = annotators.ensemble(judges, config.ensemble)(asked) if asked else []
  made = [annotators.row(q, v, config.source) for q, v in zip(asked, verdicts) if v]
  jsonl.write(folder / 'preferences.jsonl', made)
  logging.info('%d of %d rows are judged %s', len(made), len(asked), dict(counts))
  return {
    **{'judged': len(made), 'skipped': len(asked) - len(made), 'total': len(asked)},
    **{'bad': bad, 'counts': dict(counts), 'wins': _wins(made)},
    'first': sum(v.best == 0 for v in verdicts if v),
  }


def _rated(config, folder, judges, asked):
  """Writes every rating of every judge; returns annotators that say the same."""
  found, made = [], []
  for name, rater in zip(config.judges, judges):
    said = rater(asked) if asked else []
    pairs = [(q, r) for q, r in zip(asked, said) if r]
    made += [ratings.row(q, r, name) for q, r in pairs]
    found.append(lambda _, said=said: [ratings.verdict(r) for r in said])
  jsonl.write(folder / 'ratings.jsonl', made)
  return found


def _wins(rows):
  """{model: rows whose better answer it gave}, of rows that name their models."""
  names = [row['models'][0] for row in rows if row.get('models')]
  return {name: names.count(name) for name in sorted(set(names))}


def _page(config, folder, asked):
  from llama3_jax.serve import annotate

  rater = config.rater if config.scale == 7 else ''
  desk = annotate.Desk(folder, asked, config.seed, config.source, rater)
  if desk.left:
    annotate.run(desk, config.host, config.port)
  logging.info('%(judged)d judged, %(skipped)d skipped, of %(total)d', desk.counts())
  return desk.counts()


def _judges(config, counts):
  """Annotators of `judges`, on seven points raters: 'labels=FILE' of people, of a model
  that writes its verdict, 'judge=MODEL', or whose choice is read, 'likelihood=MODEL',
  'reward=RUN'."""
  seven = config.scale == 7
  own = ratings if seven else annotators
  of = ratings.of if seven else lambda annotate: annotate
  made = []
  for name in config.judges:
    kind, _, source = name.partition('=')
    if kind == 'labels' and source:
      made.append(of(annotators.labels(source, 'judges')))
    elif kind == 'judge' and source:
      ask = asking.judge(source, config.sample, config.batch)
      made.append(own.judge(ask, config.template or own.TEMPLATE, counts))
    elif kind == 'likelihood' and source:
      template = config.template or annotators.LETTER
      made.append(of(annotators.weighed(asking.weigher(source), template)))
    elif kind == 'reward' and source:
      made.append(of(annotators.scored(asking.scorer(source, config.batch))))
    else:
      raise UserError(
        f"judges={name!r}: 'people' alone, or labels=FILE, judge=MODEL, "
        'likelihood=MODEL and reward=RUN'
      )
  return made


def _candidates(config, folder, bad):
  """The file of two answers to each prompt, which is made once."""
  path = folder / 'candidates.jsonl'
  if not path.exists():
    read = [row for file in config.files for row in rows.read(file, 'files', bad)]
    said = [formats.prompt(row.get('prompt'), where) for where, row in read]
    prompts = [tuple(chat.message(m, 'files') for m in turns) for turns in said]
    how = dict(sample=config.sample, seed=config.seed, batch_size=config.batch)
    answer = functools.partial(asking.answers, **how)
    made = pool.collect(prompts, config.pool, answer, config.seed)
    kinds = ('category', 'subcategory')
    for row, (_, given) in zip(made, read, strict=True):
      row |= {name: given[name] for name in kinds if name in given}
    jsonl.write(path, made)
  return (path,)
