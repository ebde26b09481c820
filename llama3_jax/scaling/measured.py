"""Readers of published runs: tables of IsoFLOP runs, ladders with benchmarks (3.2).

The fits are the same as for our own runs.
"""

import csv
import lzma
import math
import os
import pathlib
import re
from collections.abc import Mapping

from llama3_jax.base.errors import UserError

# Choices of a question, by the first word of a benchmark's column: the chance level.
CHOICES = {
  'mmlu': 4,
  'hellaswag': 4,
  'arc': 4,
  'openbookqa': 4,
  'csqa': 5,
  'socialiqa': 3,
  'boolq': 2,
  'piqa': 2,
  'winogrande': 2,
}
# Columns of a run in a table of IsoFLOP runs, and those that say how it was trained.
RUN = {'budget': 'flops', 'parameters': 'params', 'tokens': 'tokens', 'loss': 'loss'}
SCHEDULE = ('hparams', 'warmup', 'decay')
# Questions of the parts of MMLU's test and validation splits: weights of their mean.
MMLU = {
  'test': {'stem': 3018, 'humanities': 4705, 'social_sciences': 3077, 'other': 3242},
  'val': {'stem': 321, 'humanities': 518, 'social_sciences': 337, 'other': 355},
}
# Questions of the other benchmarks: every accuracy of the ladder is a share of these.
QUESTIONS = {
  'arc_challenge_test': 1172,
  'arc_challenge_val': 299,
  'arc_easy_test': 2376,
  'arc_easy_val': 570,
  'boolq_val': 3270,
  'csqa_val': 1221,
  'hellaswag_val': 10042,
  'openbookqa_test': 500,
  'openbookqa_val': 500,
  'piqa_val': 1838,
  'socialiqa_val': 1954,
  'winogrande_val': 1267,
}
NAT = math.log(2)  # nats in a bit
TOKENS_A_PARAMETER = 20  # of a run at 1 x compute-optimal


def isoflop(
  folder: str | os.PathLike, chosen: Mapping[str, str]
) -> list[dict[str, float]]:
  """Rows of the only .csv in `folder` whose columns have the values `chosen` ({column:
  text}): dicts of floats budget, parameters, tokens, loss."""
  path, rows = _isoflop_rows(folder, chosen)
  kept = [r for r in rows if all(r[k] == v for k, v in chosen.items())]
  if not kept:
    text = ', '.join(f'{k}={v}' for k, v in chosen.items())
    raise UserError(f'{path}: no row has {text}')
  return [_isoflop_run(path, r) for r in kept]


def variants(
  folder: str | os.PathLike, chosen: Mapping[str, str]
) -> tuple[list[str], dict[str, list[dict[str, float]]]]:
  """(schedules of the rows of `isoflop`, {schedule: rows of any other}).

  A schedule is text like 'hparams=tuned, warmup=short, decay=const': the columns of
  SCHEDULE that the table has. Other columns of `chosen` keep their values.
  """
  path, rows = _isoflop_rows(folder, chosen)
  columns = [c for c in SCHEDULE if c in rows[0]]
  fixed = {k: v for k, v in chosen.items() if k not in columns}
  own, others = set(), {}
  for row in rows:
    name = ', '.join(f'{c}={row[c]}' for c in columns)
    if columns and all(row[k] == v for k, v in fixed.items()):
      others.setdefault(name, []).append(_isoflop_run(path, row))
      if all(row[k] == v for k, v in chosen.items()):
        own.add(name)
  return sorted(own), {n: r for n, r in sorted(others.items()) if n not in own}


def _isoflop_rows(folder, chosen):
  files = sorted(_folder(folder).glob('*.csv'))
  if len(files) != 1:
    raise UserError(f'data={folder}: {len(files)} .csv files there, 1 is needed')
  rows = _table(files[0], open)
  _need(files[0], rows, [*RUN.values(), *chosen])
  return files[0], rows


def _isoflop_run(path, row):
  return {name: _number(path, row, column) for name, column in RUN.items()}


def ladder(folder: str | os.PathLike, last: int = 1) -> list[dict]:
  """Runs of a model ladder, of files <size>-<multiple>xC[-rerun].csv[.xz].

  Of a repeated run the later one counts: its checkpoints were evaluated like those of
  the other runs. N is tokens / (20 x multiple) of the size's longest run.

  Args:
    last: number of last checkpoints that are averaged (their spread is the noise of
      evaluation, not of training).

  Returns:
    list of dicts: name, size, multiple, params, tokens, scores {benchmark: (nll nats a
    byte, accuracy)}, path [{benchmark: (nll, accuracy)}] of the checkpoints.
  """
  runs = {}
  for path in sorted(_folder(folder).glob('*xC*.csv*')):
    match = re.fullmatch(r'([^-]+)-([\d.]+)xC(-rerun)?\.csv(\.xz)?', path.name)
    if not match:
      continue
    key = match[1], float(match[2])
    if key in runs and not match[3]:
      continue
    rows = _table(path, lzma.open if match[4] else open)
    _need(path, rows, ['_step', 'throughput/total_tokens'])
    runs[key] = _ladder_run(path, key, rows, last)
  if not runs:
    raise UserError(f'data={folder}: no files <size>-<multiple>xC.csv.xz there')
  for size in {r['size'] for r in runs.values()}:
    family = [r for r in runs.values() if r['size'] == size]
    longest = max(family, key=lambda r: r['multiple'])
    params = longest['tokens'] / (TOKENS_A_PARAMETER * longest['multiple'])
    for run in family:
      run['params'] = params
  return sorted(runs.values(), key=lambda r: (r['params'], r['tokens']))


def _ladder_run(path, key, rows, last):
  rows = sorted(rows, key=lambda r: _number(path, r, '_step'))
  names = _benchmarks(path, rows[0])
  checkpoints = []
  for row in rows:
    scores = {
      name: (NAT * _number(path, row, loss), _number(path, row, score))
      for name, (loss, score) in names.items()
    }
    checkpoints.append(scores | _mmlu(scores))
  final = checkpoints[-last:]
  mean = lambda name, i: sum(c[name][i] for c in final) / len(final)
  return {
    'name': f'{key[0]}-{key[1]:g}xC',
    'size': key[0],
    'multiple': key[1],
    'tokens': _number(path, rows[-1], 'throughput/total_tokens'),
    'scores': {n: (mean(n, 0), mean(n, 1)) for n in checkpoints[-1]},
    'path': checkpoints,
  }


def _benchmarks(path, row):
  """{benchmark: (column of bits per byte, column of accuracy)}."""
  columns = {}
  for column in row:
    match = re.fullmatch(r'eval/downstream_bpb/(\w+)_bpb', column)
    scores = [
      f'eval/downstream/{match[1]}_{kind}'
      for kind in ('len_norm', 'acc')
      if match and f'eval/downstream/{match[1]}_{kind}' in row
    ]
    if scores:
      columns[re.sub(r'_rc_\d+shot$', '', match[1])] = column, scores[0]
  if not columns:
    raise UserError(
      f'{path}: no pair of columns eval/downstream_bpb/NAME_bpb and '
      'eval/downstream/NAME_len_norm (or _acc)'
    )
  return columns


def _mmlu(scores):
  """MMLU of a split: the mean of its parts, weighted by their questions."""
  means = {}
  for split, weights in MMLU.items():
    parts = {f'mmlu_{part}_{split}': n for part, n in weights.items()}
    if set(parts) <= set(scores):
      total = sum(parts.values())
      means[f'mmlu_{split}'] = tuple(
        sum(scores[p][i] * n for p, n in parts.items()) / total for i in range(2)
      )
  return means


def chance(benchmark: str) -> float:
  """Accuracy of guessing, 0 to 1; UserError for a benchmark of unknown choices."""
  word = benchmark.split('_')[0]
  if word not in CHOICES:
    raise UserError(f'benchmark {benchmark!r}: its number of choices is not known')
  return 1 / CHOICES[word]


def questions(benchmark: str) -> int:
  """Number of questions of a benchmark's column; 0 where it is not known."""
  for split, parts in MMLU.items():
    known = {f'mmlu_{part}_{split}': n for part, n in parts.items()}
    known[f'mmlu_{split}'] = sum(parts.values())
    if benchmark in known:
      return known[benchmark]
  return QUESTIONS.get(benchmark, 0)


def _folder(folder):
  path = pathlib.Path(folder)
  if not folder or not path.is_dir():
    raise UserError(f'data={folder}: no such folder; name it with --data=DIR')
  return path


def _table(path, opened):
  try:
    with opened(path, 'rt', encoding='utf-8', newline='') as f:
      rows = list(csv.DictReader(f))
  except (OSError, EOFError, lzma.LZMAError, UnicodeDecodeError) as e:
    raise UserError(f'{path} cannot be read ({e}): fetch it again')
  if not rows:
    raise UserError(f'{path} has no rows')
  return rows


def _need(path, rows, columns):
  missing = [c for c in columns if c not in rows[0]]
  if missing:
    raise UserError(f'{path}: column {missing[0]!r} is missing')


def _number(path, row, column):
  try:
    value = float(row[column])
  except (TypeError, ValueError, KeyError):
    value = math.nan
  if not math.isfinite(value):
    raise UserError(f'{path}: {column} is {row.get(column)!r}, not a number')
  return value
