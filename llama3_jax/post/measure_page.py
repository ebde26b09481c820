"""Sections of a reward model's report: who is right, how sure, how long (4.1.2)."""

from collections.abc import Mapping
from collections.abc import Sequence

import plotly.graph_objects as go

from llama3_jax.report import figures
from llama3_jax.report.blocks import Card
from llama3_jax.report.blocks import Interval
from llama3_jax.report.blocks import Note
from llama3_jax.report.blocks import Plot
from llama3_jax.report.blocks import Row
from llama3_jax.report.blocks import Section
from llama3_jax.report.blocks import Stack
from llama3_jax.report.blocks import Table

WORDS = {
  'correlation': 'correlation of reward and tokens, all responses',
  'within': 'the same, within a prompt',
  'better_longer': 'pairs whose better response is the longer one',
  'liked_longer': 'pairs whose preferred response is the longer one',
}
SURE = (
  'How sure the model is of the response that it prefers, sigma of the difference of '
  'the rewards, against the share of pairs in which it is right. Below the line it is '
  'too sure.'
)


def sections(results: Mapping) -> list[Section]:
  """Sections of the results of experiments/reward.py."""
  found = [_ranking('Ranking of held-out pairs', results, 'ranking')]
  for i, (path, judged) in enumerate(results.get('files', {}).items()):
    found.append(_ranking(f'Ranking of {path}', judged, f'ranking-{i}'))
  if filters := results.get('filtered'):
    blocks = [_counts(n, c) for n, c in filters.items() if len(c) > 1]
    left = [Stack(blocks)] if blocks else []
    found.append(Section('Rows that were left out', left))
  return found


def _ranking(title, judged, name):
  if not judged.get('n'):
    return Section(title, [])
  groups, found = [('all pairs', '', judged)], judged['ranking']
  for kind, parts in found['by'].items():
    groups += [(group, kind, part) for group, part in parts.items()]
  groups.append(('lengths within 10%', 'length', found['length']['matched']))
  cells = [(g, kind, _share(p), p['n']) for g, kind, p in groups if p['n']]
  header = ('pairs', 'by', 'accuracy', 'number')
  sure = found['calibration']
  words = f'{SURE} Mean distance from the line: {sure["error"]:.3f}.'
  length = found['length']
  lines = [(WORDS[n], length[n]) for n in WORDS if length[n] is not None]
  blocks = [
    Card([Table(header, cells, True)]),
    Row(
      [
        Card(
          [Plot(f'{name}-sure', _reliability(sure['bins'])), Note(words)], 'Calibration'
        ),
        Card([Table(('of length', ''), lines, sentences=('of length',))], 'Length'),
      ]
    ),
  ]
  return Section(title, [Stack(blocks)], name=name)


def _share(part):
  low, high = part['interval']
  return Interval(f'{part["accuracy"]:.1%}', f'[{low:.1%}, {high:.1%}]')


def _reliability(bins: Sequence[Mapping]) -> dict:
  """Figure of the reliability diagram; the size of a point is its share of pairs."""
  drawn, most = go.Figure(), max(b['n'] for b in bins)
  drawn.add_scatter(x=[0.5, 1], y=[0.5, 1], mode='lines', line_dash='dot')
  drawn.add_scatter(
    x=[b['predicted'] for b in bins],
    y=[b['right'] for b in bins],
    mode='lines+markers',
    marker_size=[6 + 14 * (b['n'] / most) ** 0.5 for b in bins],
    customdata=[b['n'] for b in bins],
    hovertemplate='%{customdata:,} pairs: %{x:.0%} sure, %{y:.0%} right<extra></extra>',
  )
  axis = lambda text: {'title': {'text': text}, 'tickformat': '.0%'}
  spec = figures.figure(
    drawn, 320, xaxis=axis('sure'), yaxis=axis('right'), showlegend=False
  )
  return figures.paint(spec, ['soft:', 'role:0'])


def _counts(name, counts):
  rows = [(reason, n) for reason, n in counts.items() if isinstance(n, int)]
  blocks = [Table((name, 'rows'), rows)]
  blocks += [Note(line) for line in counts.get('named', ())]
  return Card(blocks)
