"""Differences between two models on the same questions, with 95% intervals (5.1).

Both answered the same questions, so what counts is the difference of each question:
its mean varies less than the difference of two independent scores. The interval is a
bootstrap over questions, within each task where there are several.
"""

import os
import pathlib
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError

DRAWS = 10_000
FILE = 'answers.jsonl'


def difference(
  before: Mapping[str, Sequence[float]],
  after: Mapping[str, Sequence[float]],
  seed: int = 0,
) -> dict:
  """What `after` scores above `before`, on the same questions in the same order.

  before, after: {task: score of each question}. Returns {'difference' (mean over tasks
  of the mean over questions), 'low', 'high' (95%), 'better', 'worse' (questions), 'n'}.
  Raises ValueError where the tasks or their numbers of questions differ.
  """
  if before.keys() != after.keys():
    raise ValueError(f'tasks {sorted(before)} and {sorted(after)}')
  rng, drawn, means, every = np.random.default_rng(seed), 0.0, [], []
  for task in before:
    gains = np.asarray(after[task], float) - np.asarray(before[task], float)
    rows = rng.integers(len(gains), size=(DRAWS, len(gains)))
    drawn = drawn + gains[rows].mean(1) / len(before)
    means.append(gains.mean())
    every.append(gains)
  gains = np.concatenate(every)
  low, high = np.quantile(drawn, (0.025, 0.975))
  return {
    'difference': float(np.mean(means)),
    'low': float(low),
    'high': float(high),
    'better': int((gains > 0).sum()),
    'worse': int((gains < 0).sum()),
    'n': len(gains),
  }


def told(found: Mapping) -> str:
  """'better', 'worse' or 'not told apart', by whether 0 is inside the interval."""
  if found['low'] > 0:
    return 'better'
  return 'worse' if found['high'] < 0 else 'not told apart'


def sentence(found: Mapping) -> str:
  """What a difference says, in a line."""
  low, high = 100 * found['low'], 100 * found['high']
  return (
    f'{100 * found["difference"]:+.1f} points [{low:+.1f}, {high:+.1f}] over '
    f'{found["n"]} questions, {found["better"]} better and {found["worse"]} worse: '
    f'{told(found)}'
  )


def of_runs(before: str | os.PathLike, after: str | os.PathLike) -> dict[str, dict]:
  """{task or 'all': difference} of two finished evaluations of the same questions."""
  first, second = read(before), read(after)
  same(before, first, after, second)
  scores = lambda x: {t: [row['score'] for row in rows] for t, rows in x.items()}
  values = [scores(first), scores(second)]
  found = {t: difference({t: values[0][t]}, {t: values[1][t]}) for t in first}
  return {'all': difference(*values), **found}


def read(folder: str | os.PathLike) -> dict[str, list[dict]]:
  """{task: rows of its answers, in their order} of a finished evaluation."""
  found = {}
  for _, row in jsonl.read(pathlib.Path(folder) / FILE, 'evaluations'):
    found.setdefault(row['task'], []).append(row)
  return found


def same(
  one: str | os.PathLike,
  rows: Mapping[str, Sequence[Mapping]],
  other: str | os.PathLike,
  others: Mapping[str, Sequence[Mapping]],
) -> None:
  """Raises UserError unless two evaluations asked the same questions in one order, with
  the same right answers."""
  asked = lambda found: {
    t: [(r['question'], r['answer']) for r in every] for t, every in found.items()
  }
  if asked(rows) != asked(others):
    raise UserError(
      f'{other}/{FILE} has other questions or right answers than {one}/{FILE}: '
      'evaluate both with the same tasks, examples and seed'
    )
