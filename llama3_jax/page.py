"""A self-contained page of a report: light and dark, phone to desktop, with figures.

A figure's colour is a name (`role:0`, `ink:`, `line:`, `scale:`) that the page's script
replaces by the colour of the reader's light or dark mode.
"""

import html
import json
import math
import textwrap
from collections.abc import Mapping

import plotly.graph_objects as go
from plotly import offline

CSS = """
:root {
  color-scheme: light dark;
  --page: #fbfaf8; --card: #ffffff; --ink: #1d1f23; --soft: #5d636e; --line: #e3e0da;
  --accent: #2563b8; --accent-soft: #e8effa; --good: #1d7a4f; --bad: #b3372b;
  --bubble: #f1efea;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #15171a; --card: #1c1f23; --ink: #e6e7e9; --soft: #9aa1ac; --line: #30343a;
    --accent: #7db0f5; --accent-soft: #22304a; --good: #62c595; --bad: #f08a7c;
    --bubble: #262a30;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
}
main { max-width: 1120px; margin: 0 auto; padding: 40px 24px 80px; }
header h1 { font-size: 30px; line-height: 1.2; margin: 0 0 6px; font-weight: 650; }
header p, .note { color: var(--soft); margin: 0; max-width: 72ch; }
nav { display: flex; flex-wrap: wrap; gap: 4px 16px; margin-top: 16px;
  font-size: 14px; }
a { color: var(--accent); text-decoration: none; }
a:hover { text-decoration: underline; }
section { margin-top: 44px; }
h2 { font-size: 21px; margin: 0 0 4px; font-weight: 620; }
h3 { font-size: 15px; margin: 0 0 6px; font-weight: 600; }
.note { font-size: 14px; margin-bottom: 12px; }
.card {
  background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 16px; min-width: 0;
}
.tiles { display: flex; flex-wrap: wrap; gap: 12px; margin-top: 28px; }
.tile { flex: 1 1 118px; min-width: min-content; padding: 14px; }
.tile b {
  display: block; font-size: 22px; white-space: nowrap; line-height: 1.25;
  font-weight: 640;
  font-variant-numeric: tabular-nums;
}
.tile span { color: var(--soft); font-size: 13.5px; display: block; line-height: 1.4; }
.pair { display: grid; gap: 16px; grid-template-columns: repeat(2, minmax(0, 1fr)); }
.stack { display: grid; gap: 16px; grid-template-columns: minmax(0, 1fr); }
.plot { width: 100%; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { padding: 8px 10px; border-bottom: 1px solid var(--line); text-align: right;
  font-variant-numeric: tabular-nums; white-space: nowrap; }
th { color: var(--soft); font-weight: 560; }
tbody tr:last-child td, tbody tr:last-child th { border-bottom: 0; }
th:first-child, td:first-child { text-align: left; }
table.wide th:first-child { position: sticky; left: 0; background: var(--card);
  color: var(--ink); }
td small { color: var(--soft); }
td.best { background: var(--accent-soft); }
td.wrap { white-space: normal; min-width: 9em; }
table.checks { table-layout: auto; }
table.checks td { white-space: normal; }
table.checks td:first-child { width: 48%; }
table.checks td:nth-child(3) { white-space: nowrap; }
.pass, .fail { font-weight: 600; white-space: nowrap; }
.pass { color: var(--good); } .fail { color: var(--bad); }
.dialogs { display: grid; gap: 16px; grid-template-columns: repeat(2, minmax(0, 1fr)); }
.turn { background: var(--bubble); border-radius: 8px; padding: 8px 12px;
  margin-top: 8px; font-size: 14.5px; white-space: pre-wrap; overflow-wrap: anywhere; }
.turn.assistant { background: var(--accent-soft); }
.turn i { display: block; font-style: normal; font-size: 12px; color: var(--soft); }
footer { margin-top: 48px; color: var(--soft); font-size: 13px; }
@media (max-width: 720px) {
  main { padding: 24px 14px 56px; }
  header h1 { font-size: 24px; }
  .pair, .dialogs { grid-template-columns: minmax(0, 1fr); }
  .tiles { gap: 10px; }
  .tile { flex-basis: 40%; }
  .pass span, .fail span { display: none; }
  .tile b { font-size: 20px; }
  .card { padding: 12px; }
  th, td { padding: 7px 8px; }
}
@media print { section { break-inside: avoid; } }
"""

# Draws every figure with the colours of the page; draws again when the reader's system
# changes between light and dark. Colours named `role:N` in a figure are looked up here.
SCRIPT = """
const figures = JSON.parse(document.getElementById('figures').textContent);
const dark = window.matchMedia('(prefers-color-scheme: dark)');
const ROLES = {
  light: ['#2563b8', '#c4581f', '#1d8a68', '#8a4ca8', '#a87a0c', '#5d6673', '#b83a68'],
  dark: ['#6ea6f2', '#e8905a', '#55c29d', '#c190dc', '#d9b04a', '#9aa4b2', '#ea86a9'],
};
const SCALE = {
  light: [[0, '#f3efe7'], [0.5, '#8fb4e3'], [1, '#1f56a3']],
  dark: [[0, '#23272d'], [0.5, '#33598f'], [1, '#86b6f7']],
};
function paint(value, mode) {
  if (typeof value === 'string') {
    if (value.startsWith('role:')) return ROLES[mode][Number(value.slice(5)) % 7];
    if (value === 'scale:') return SCALE[mode];
    if (value === 'ink:') return mode === 'dark' ? '#e6e7e9' : '#1d1f23';
    if (value === 'soft:') return mode === 'dark' ? '#9aa1ac' : '#5d636e';
    if (value === 'line:') return mode === 'dark' ? '#30343a' : '#e3e0da';
    return value;
  }
  if (Array.isArray(value)) return value.map((item) => paint(item, mode));
  if (value && typeof value === 'object') {
    return Object.fromEntries(
      Object.entries(value).map(([name, item]) => [name, paint(item, mode)]));
  }
  return value;
}
function draw() {
  const mode = dark.matches ? 'dark' : 'light';
  for (const [name, figure] of Object.entries(figures)) {
    const place = document.getElementById(name);
    const painted = paint(figure, mode);
    const narrow = place.clientWidth < 480;
    const layout = painted.layout;
    layout.autosize = true;
    if (narrow) {
      layout.margin = {...layout.margin, l: Math.min(layout.margin.l, 46), r: 10};
      layout.font = {...layout.font, size: 11};
    }
    Plotly.react(place, painted.data, layout,
      {displayModeBar: false, responsive: true, scrollZoom: false});
  }
}
draw();
dark.addEventListener('change', draw);
"""

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


def figure(drawn, height, **layout):
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


def paint(spec, roles):
  """Sets the colour of each trace of a figure (line, marker and fill)."""
  for trace, role in zip(spec['data'], roles, strict=True):
    # Bars have no line, and plotly drops an empty marker.
    parts = ('line', 'marker') if trace['type'] == 'scatter' else ('marker',)
    for part in parts:
      trace[part] = {**trace.get(part, {}), 'color': role}
  return spec


def funnel(names, counts):
  """Figure of what is left after every step, in order, as bars.

  Args:
    names, counts: of the steps; the first is the input.
  """
  bars = go.Bar(
    x=counts,
    y=['<br>'.join(textwrap.wrap(name, 22)) for name in names],
    orientation='h',
    text=[f'{count:,}' for count in counts],
    customdata=[count / max(counts[0], 1) for count in counts],
    textposition='outside',
    cliponaxis=False,
    hovertemplate='%{x:,} documents, %{customdata:.0%} of the input<extra></extra>',
  )
  spec = figure(
    go.Figure(bars),
    80 + 30 * len(names),
    bargap=0.25,
    yaxis={'autorange': 'reversed', 'gridcolor': 'rgba(0,0,0,0)'},
    xaxis={
      'title': {'text': 'documents left'},
      'nticks': 5,
      'range': [0, 1.25 * max([1, *counts])],
    },
  )
  return paint(spec, ['role:0'])


def place(name, spec):
  """The element in which the figure `name` is drawn."""
  height = spec['layout']['height']
  return f'<div class="plot" id="{name}" style="height:{height}px"></div>'


def document(title, body, figures):
  """The page. Args: plain title, HTML of the body, {name: figure}."""
  # `<` inside JSON would let a text close the script element.
  data = json.dumps(_plain(figures), allow_nan=False).replace('<', '\\u003c')
  return (
    '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    f'<title>{html.escape(title)}</title><style>{CSS}</style></head>'
    f'<body><main>{body}</main>'
    f'<script>{offline.get_plotlyjs()}</script>'
    f'<script type="application/json" id="figures">{data}</script>'
    f'<script>{SCRIPT}</script></body></html>\n'
  )


def table(header, rows):
  """An HTML table of plain values; numbers stand to the right."""
  head = ''.join(f'<th>{html.escape(str(h))}</th>' for h in header)
  body = ''.join(
    '<tr>' + ''.join(f'<td>{html.escape(str(x))}</td>' for x in row) + '</tr>'
    for row in rows
  )
  return (
    f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
    f'<tbody>{body}</tbody></table></div>'
  )


def tiles(pairs):
  """Headline figures: (value, label) each."""
  cells = ''.join(
    f'<div class="card tile"><b>{html.escape(value)}</b>'
    f'<span>{html.escape(label)}</span></div>'
    for value, label in pairs
  )
  return f'<div class="tiles">{cells}</div>' if cells else ''


def _plain(value):
  """`value` as JSON has it: lists for arrays, null for what is not finite."""
  if isinstance(value, Mapping):
    return {name: _plain(item) for name, item in value.items()}
  if hasattr(value, 'tolist'):
    value = value.tolist()
  if isinstance(value, (list, tuple)):
    return [_plain(item) for item in value]
  return None if isinstance(value, float) and not math.isfinite(value) else value
