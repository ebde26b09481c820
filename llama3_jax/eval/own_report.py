"""The page of a model of your own text: its curves, what it writes, what was read."""

import pathlib
from collections.abc import Mapping
from collections.abc import Sequence

from llama3_jax.report.blocks import Card
from llama3_jax.report.blocks import Details
from llama3_jax.report.blocks import Section
from llama3_jax.report.blocks import Stack
from llama3_jax.report.blocks import Table
from llama3_jax.report.blocks import Turn
from llama3_jax.train import metrics
from llama3_jax.train import report

LISTED = 50  # files that are left out, in the page


def write(folder: pathlib.Path, results: Mapping) -> None:
  """Writes <folder>/report.html of a finished run of experiments/own.py."""
  sections = [
    Section('What the model writes', _samples(metrics.read(folder)), _WRITES),
    Section('Files', _files(results)),
  ]
  report.write(folder, results, sections)


_WRITES = (
  'Beginnings, as a rule of held-out documents, and how the model continues them after '
  'so many steps.'
)


def _samples(rows: Sequence[Mapping]) -> list:
  """The newest samples, and those of every evaluation before."""
  written = [row for row in rows if row.get('samples')]
  if not written:
    return []
  before = [Details(_step(row), [_turns(row)]) for row in reversed(written[:-1])]
  return [Card([_turns(written[-1]), *before], _step(written[-1]))]


def _step(row):
  loss = f', held-out loss {row["eval_loss"]:.3f}' if 'eval_loss' in row else ''
  return f'After {row["step"]:,} steps{loss}'


def _turns(row):
  return Stack([Turn(text, head=prompt) for prompt, text in row['samples']])


def _files(results):
  """Tables of what was read and of what was left out."""
  text = results['text']
  header = 'kind', 'files', 'documents', 'characters'
  kinds = [
    (kind, c['files'], c['documents'], c['characters'])
    for kind, c in sorted(text['kinds'].items())
  ]
  cards = [Card([Table(header, kinds)], 'What was read')]
  if text['left_out']:
    rows = text['left_out'][:LISTED]
    more = len(text['left_out']) - len(rows)
    rows = rows + [[f'and {more} more', '']] if more else rows
    table = Table(('file', 'reason'), rows, sentences=('file', 'reason'))
    cards.append(Card([table], 'What was left out'))
  return cards
