"""The page of contamination: thresholds, shares and gains of each benchmark (5.1.4)."""

import pathlib
from collections.abc import Mapping

from llama3_jax.eval import table
from llama3_jax.eval.contamination import LEVEL
from llama3_jax.report import page as pages
from llama3_jax.report.blocks import Card
from llama3_jax.report.blocks import Interval
from llama3_jax.report.blocks import Note
from llama3_jax.report.blocks import Page
from llama3_jax.report.blocks import Section
from llama3_jax.report.blocks import Table

NOTE = (
  'A question is contaminated where more than the threshold of its words lie in an '
  '8-gram of the training data. The gain is the score on all questions less that on '
  'clean ones; z is that gain in standard errors. p is how often the best of all '
  'thresholds has so high a mean z of the models when the shares are dealt out anew '
  f'among the questions. The threshold with the largest gain of p < {LEVEL:g} is '
  'taken; none is, where no gain is significant.'
)


def write(folder: pathlib.Path, results: Mapping) -> None:
  """Writes <folder>/report.html of a finished run of experiments/contamination.py."""
  pages.write(folder / 'report.html', page(results))


def sentence(found: Mapping) -> str:
  """What a sweep says, in a line."""
  if not (row := found['chosen']):
    most = max((r['contaminated'] for r in found['thresholds']), default=0)
    return f'no significant gain; {most:.1%} of the questions have an 8-gram in common'
  named = zip(table.runs(row['gains']), row['gains'].values())
  gains = ', '.join(f'{100 * g["gain"]:+.1f} ({name})' for name, g in named)
  return (
    f'{row["contaminated"]:.1%} contaminated above a share of {row["threshold"]:g}; '
    f'estimated gain in points: {gains}; p {row["p"]:.2g}'
  )


def page(results: Mapping) -> Page:
  """The report: a line a benchmark, then all its thresholds."""
  sections = [
    Section('Benchmarks', [Note(NOTE), Card([_summary(results)])], name='all')
  ]
  for i, (task, found) in enumerate(table.shown(results['tasks']).items()):
    sections.append(Section(task, [Card([_table(found)])], name=f'task-{i}'))
  tiles = [(f'{results["documents"]:,}', 'documents read')]
  return Page('Contamination', sections, tiles=tiles, links=True)


def _summary(results):
  header = ('benchmark', 'questions', 'what is said')
  rows = [
    (task, found['n'], sentence(found))
    for task, found in table.shown(results['tasks']).items()
  ]
  return Table(header, rows, sentences=header[2:])


def _table(found):
  models = list(found['thresholds'][0]['gains'])
  names = table.runs(models)
  rows = []
  for row in found['thresholds']:
    cells = [_cell(row['gains'][model]) for model in models]
    cells.append('–' if row['p'] is None else f'{row["p"]:.2g}')
    taken = 'taken' if row == found['chosen'] else ''
    rows.append((row['threshold'], f'{row["contaminated"]:.1%}', *cells, taken))
  return Table(('above', 'contaminated', *names, 'p', ''), rows, wide=True)


def _cell(gain):
  if gain is None:
    return '–'
  return Interval(f'{100 * gain["gain"]:+.1f}', f'z {gain["z"]:.1f}')
