"""Curves of a run's metrics over its steps, one figure a kind."""

import html
import math
from collections.abc import Mapping
from collections.abc import Sequence

import plotly.graph_objects as go

from llama3_jax.report import figures

POINTS = 600  # of a curve; more are averaged
SOURCES = 5  # held-out curves beside that of the mix
WIDE = 10  # a loss that falls by this factor is drawn on a log scale

# {title: {metric: name of its curve}}
CURVES = {
  'loss': {'loss': 'training', 'eval_loss': 'held out'},
  'accuracy': {'accuracy': 'training', 'eval/accuracy': 'held out'},
  'learning rate': {'lr': 'learning rate'},
  'gradient norm': {'grad_norm': 'gradient norm'},
  'tokens a second': {'tokens_per_s': 'tokens a second'},
  'reward': {'reward': 'answers of a step', 'eval/reward': 'held out'},
  'nats a token from the start': {'kl': 'nats a token'},
}
FIRST = ('loss', 'accuracy', 'reward')  # two curves, in the first colours


def draw(title: str, rows: Sequence[Mapping]) -> dict | None:
  """The figure of one of CURVES, of rows of metrics.jsonl; None without such rows."""
  named = {m: n for m, n in CURVES[title].items() if any(m in row for row in rows)}
  if title == 'loss' and named:
    named |= _sources(rows)
  lines = {name: points(rows, metric) for metric, name in named.items()}
  lines = {name: found for name, found in lines.items() if found}
  if not lines:
    return None
  drawn = go.Figure()
  for name, found in lines.items():
    seldom = name != next(iter(lines)) or len(found) < 3
    drawn.add_scatter(
      x=[x for x, _ in found],
      y=[y for _, y in found],
      mode='lines+markers' if seldom else 'lines',
      name=html.escape(name),
      line={'width': 1.2 if seldom else 1.8, 'dash': 'dot' if seldom else 'solid'},
      marker={'size': 6},
      showlegend=len(lines) > 1,
    )
  axis = {'title': {'text': _unit(title, rows)}, 'nticks': 6}
  if title == 'loss' and _wide([y for found in lines.values() for _, y in found]):
    axis |= {'type': 'log', 'dtick': 'D2'}
  if title == 'learning rate':
    axis['tickformat'] = '.1e'
  height = 380 if title == 'loss' else 280
  spec = figures.figure(
    drawn, height, xaxis={'title': {'text': 'step'}, 'nticks': 6}, yaxis=axis
  )
  if height < 380:  # the legend is below the title of the axis
    spec['layout']['legend'] = {**figures.BASE['legend'], 'y': -0.36}
  first = 0 if title in FIRST else list(CURVES).index(title)
  return figures.paint(spec, [f'role:{first + i}' for i in range(len(lines))])


def points(rows: Sequence[Mapping], metric: str) -> list[tuple[float, float]]:
  """[(step, value)] of a metric where it is finite; at most POINTS, means of neighbours
  above that, the last one itself."""
  found = [(r['step'], r[metric]) for r in rows if _finite(r.get(metric))]
  size = -(-len(found) // POINTS)
  if size <= 1:
    return found
  groups = [found[i : i + size] for i in range(0, len(found), size)]
  mean = lambda group, i: sum(pair[i] for pair in group) / len(group)
  return [*((mean(g, 0), mean(g, 1)) for g in groups), found[-1]]


def _sources(rows):
  """{metric: name} of the held-out losses of single sources, where they are few."""
  last = next((row for row in reversed(rows) if 'eval_loss' in row), {})
  if 'loss' in last or any('margin' in row for row in rows):
    return {}
  names = [n for n in last if n.startswith('eval/') and n != 'eval/accuracy']
  few = 1 < len(names) <= SOURCES  # one alone is the mix
  return {n: n.removeprefix('eval/') for n in names} if few else {}


def _unit(title, rows):
  preference = any('margin' in row for row in rows)
  return 'loss, nats a token' if title == 'loss' and not preference else title


def _wide(values):
  return min(values) > 0 and max(values) >= WIDE * min(values)


def _finite(value):
  return isinstance(value, (int, float)) and math.isfinite(value)
