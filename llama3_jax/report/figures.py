"""Figures in the style of the page, drawn by plotly in the reader's browser.

A figure's colour is a name (`role:0`, `ink:`, `soft:`, `line:`, `scale:`) that the
page's script replaces by the colour of the reader's light or dark mode.
"""

import html
import textwrap
from collections.abc import Iterable
from collections.abc import Sequence

import plotly.graph_objects as go

BASE = {
  'template': None,
  'paper_bgcolor': 'rgba(0,0,0,0)',
  'plot_bgcolor': 'rgba(0,0,0,0)',
  'margin': {'l': 56, 'r': 16, 't': 28, 'b': 44},
  'hoverlabel': {'namelength': -1},
  'legend': {
    'orientation': 'h',
    'x': 0,
    'xanchor': 'left',
    'y': -0.2,
    'yanchor': 'top',
  },
}


def figure(drawn: go.Figure, height: int, **layout: object) -> dict:
  """The JSON of a plotly figure in the page's style, `height` pixels high."""
  spec = drawn.to_plotly_json()
  spec['layout'] = {**BASE, **spec['layout'], **layout, 'height': height}
  # Named colours are not valid plotly colours, so they are set on the plain dict.
  spec['layout']['font'] = {
    'family': 'system-ui, -apple-system, "Segoe UI", Roboto, sans-serif',
    'size': 12.5,
    'color': 'ink:',
  }
  for name, axis in spec['layout'].items():
    if name.startswith(('xaxis', 'yaxis')):
      axis.setdefault('gridcolor', 'line:')
      axis.update(linecolor='line:', zeroline=False, fixedrange=True)
      axis.setdefault('automargin', True)
  return spec


def paint(spec: dict, roles: Sequence[str]) -> dict:
  """`spec` with the colour of each trace (line, marker and fill) set to its role."""
  for trace, role in zip(spec['data'], roles, strict=True):
    # Bars have no line, and plotly drops an empty marker.
    parts = ('line', 'marker') if trace['type'] == 'scatter' else ('marker',)
    for part in parts:
      trace[part] = {**trace.get(part, {}), 'color': role}
  return spec


def errors(
  values: Sequence[float], ends: Sequence[Sequence[float] | None]
) -> dict[str, object]:
  """Bars of error for a trace of values with intervals [low, high]; None: no bar."""
  ends = [end or [value, value] for value, end in zip(values, ends, strict=True)]
  return {
    'type': 'data',
    'symmetric': False,
    'array': [high - v for v, (_, high) in zip(values, ends)],
    'arrayminus': [v - low for v, (low, _) in zip(values, ends)],
    'thickness': 1,
    'width': 3,
  }


def plain(text: str) -> str:
  """A text for a figure: plotly reads marks of HTML in it."""
  return html.escape(text, quote=False)


def funnel(
  names: Sequence[str], counts: Sequence[int], what: str = 'documents'
) -> dict:
  """Figure of the documents left after every step, in order, as bars.

  Args:
    names, counts: of the steps; the first is the input. what: is counted.
  """
  bars = go.Bar(
    x=counts,
    y=['<br>'.join(textwrap.wrap(name, 22)) for name in names],
    orientation='h',
    text=[f'{count:,}' for count in counts],
    customdata=[count / max(counts[0], 1) for count in counts],
    textposition='outside',
    cliponaxis=False,
    hovertemplate=f'%{{x:,}} {what}, %{{customdata:.0%}} of the input<extra></extra>',
  )
  spec = figure(
    go.Figure(bars),
    80 + 30 * len(names),
    bargap=0.25,
    yaxis={'autorange': 'reversed', 'gridcolor': 'rgba(0,0,0,0)'},
    xaxis={
      'title': {'text': f'{what} left'},
      'nticks': 5,
      'range': [0, 1.25 * max([1, *counts])],
    },
  )
  return paint(spec, ['role:0'])


def shares(
  parts: Iterable[tuple[str, str, float]],
  unit: str,
  height: int,
  mark: tuple[float, str] | None = None,
) -> dict:
  """Figure of stacked horizontal bars: parts of (name, bar, value).

  mark: (value, label) of a dotted line across them.
  """
  bars = [
    go.Bar(
      orientation='h',
      name=name,
      x=[value],
      y=[bar],
      hovertemplate=f'{name}: %{{x:.3g}} {unit}<extra></extra>',
    )
    for name, bar, value in parts
  ]
  spec = figure(
    go.Figure(bars),
    height,
    barmode='stack',
    margin={'l': 90, 'r': 16, 't': 20, 'b': 90},
    legend={
      'orientation': 'h',
      'traceorder': 'normal',
      'x': 0,
      'y': 0,
      'yref': 'container',
      'yanchor': 'bottom',
    },
    xaxis={'title': {'text': unit}, 'rangemode': 'tozero'},
    yaxis={},
  )
  if mark:
    value, label = mark
    line = {'color': 'soft:', 'dash': 'dot', 'width': 1.5}
    across = {'x0': value, 'x1': value, 'y0': 0, 'y1': 1, 'yref': 'paper'}
    spec['layout']['shapes'] = [{'type': 'line', **across, 'line': line}]
    above = {'x': value, 'y': 1.06, 'yref': 'paper', 'xanchor': 'right'}
    words = {'text': label, 'showarrow': False, 'font': {'color': 'soft:'}}
    spec['layout']['annotations'] = [{**above, **words}]
  return paint(spec, [f'role:{i}' for i in range(len(bars))])
