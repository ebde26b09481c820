"""Plotly figures of the report, one function a figure."""

import math
from collections.abc import Sequence

import plotly.graph_objects as go
from plotly import subplots

from llama3_jax.report import figures as drawing

POST = ('reward', 'dpo', 'ppo')  # their losses are not next-token losses


def is_preference(stage: dict) -> bool:
  """Whether a stage's loss compares responses, by `objective` or else its name."""
  objective = stage.get('objective', stage['name'])
  return any(word in objective for word in POST)


def _x(stages: Sequence[dict]) -> tuple[str, list[list[float]], list[float]]:
  """Places stages end to end: axis title, x of every metric, end of every stage."""
  unit = (
    'tokens' if all('tokens' in m for s in stages for m in s['metrics']) else 'step'
  )
  end, xs, ends = 0.0, [], []
  for stage in stages:
    values = [end + metric[unit] for metric in stage['metrics']]
    end = values[-1] if values else end
    xs.append(values)
    ends.append(end)
  title = (
    'tokens, stages end to end' if unit == 'tokens' else 'steps, stages end to end'
  )
  return title, xs, ends


def _boundaries(spec: dict, ends: Sequence[float]) -> dict:
  """Draws a dotted line where a stage ends and the next begins."""
  spec['layout']['shapes'] = [
    {
      'type': 'line',
      'x0': end,
      'x1': end,
      'y0': 0,
      'y1': 1,
      'yref': 'paper',
      'line': {'color': 'soft:', 'width': 1, 'dash': 'dot'},
    }
    for end in ends[:-1]
  ]
  return spec


def loss(stages: Sequence[dict]) -> dict | None:
  """Next-token loss of all stages end to end; held-out loss as markers."""
  stages = [s for s in stages if s.get('metrics') and not is_preference(s)]
  if not stages:
    return None
  title, xs, ends = _x(stages)
  figure, roles = go.Figure(), []
  for i, (stage, x) in enumerate(zip(stages, xs)):
    for field, mode in (('loss', 'lines'), ('eval_loss', 'lines+markers')):
      kept = [
        (a, m[field]) for a, m in zip(x, stage['metrics']) if m.get(field) is not None
      ]
      if not kept:
        continue
      held_out = field == 'eval_loss'
      figure.add_scatter(
        x=[a for a, _ in kept],
        y=[b for _, b in kept],
        mode=mode,
        name=f'{stage["name"]}, held out' if held_out else stage['name'],
        legendgroup=stage['name'],
        showlegend=not held_out,
        line={'width': 1 if held_out else 1.8, 'dash': 'dot' if held_out else 'solid'},
        marker={'size': 7, 'symbol': 'circle-open'} if held_out else None,
      )
      roles.append(f'role:{i}')
  spec = drawing.paint(
    drawing.figure(
      figure,
      380,
      xaxis={'title': {'text': title}},
      yaxis={'title': {'text': 'loss, nats a token'}},
    ),
    roles,
  )
  return _boundaries(spec, ends)


def preference_loss(stages: Sequence[dict]) -> dict | None:
  """Losses of the reward model and DPO over their own steps: a panel a kind of stage,
  a line a round (`dpo/2` is round 2 of `dpo`)."""
  stages = [s for s in stages if s.get('metrics') and is_preference(s)]
  if not stages:
    return None
  kinds = list(dict.fromkeys(stage['name'].split('/')[0] for stage in stages))
  figure = subplots.make_subplots(
    cols=len(kinds), subplot_titles=kinds, horizontal_spacing=0.28 / len(kinds)
  )
  roles, seen = [], []
  for stage in stages:
    kind, _, turn = stage['name'].partition('/')
    turn = turn or '1'
    kept = [m for m in stage['metrics'] if m.get('loss') is not None]
    figure.add_scatter(
      x=[m['step'] for m in kept],
      y=[m['loss'] for m in kept],
      mode='lines',
      line={'width': 1.8},
      name=f'round {turn}',
      legendgroup=turn,
      showlegend=turn not in seen,
      row=1,
      col=kinds.index(kind) + 1,
    )
    seen.append(turn)
    roles.append(f'role:{list(dict.fromkeys(seen)).index(turn)}')
  figure.update_xaxes(title_text='step', nticks=4)
  figure.update_yaxes(nticks=5)
  spec = drawing.figure(figure, 300)
  spec['layout']['legend'] = {**drawing.BASE['legend'], 'y': -0.32}
  return drawing.paint(spec, roles)


def rate(stages: Sequence[dict]) -> dict | None:
  """Learning rate of all stages end to end, log scale."""
  stages = [s for s in stages if any(m.get('lr') for m in s.get('metrics', ()))]
  if not stages:
    return None
  title, xs, ends = _x(stages)
  figure = go.Figure()
  for stage, x in zip(stages, xs):
    kept = [(a, m['lr']) for a, m in zip(x, stage['metrics']) if m.get('lr')]
    figure.add_scatter(
      x=[a for a, _ in kept],
      y=[b for _, b in kept],
      mode='lines',
      name=stage['name'],
      line={'width': 1.8},
      showlegend=False,
    )
  spec = drawing.figure(
    figure,
    300,
    xaxis={'title': {'text': title}, 'nticks': 5},
    yaxis={
      'title': {'text': 'learning rate'},
      'type': 'log',
      'dtick': 'D2',
      'tickformat': '.0e',
    },
  )
  drawing.paint(spec, [f'role:{i}' for i in range(len(stages))])
  return _boundaries(spec, ends)


def needle(
  grid: Sequence[Sequence[float | None]],
  lengths: Sequence[int],
  depths: Sequence[float],
  unit: str = 'tokens',
) -> dict:
  """Recall of the needle: a row a depth, a column a length in `unit`; None: no question
  was asked."""
  figure = go.Figure(
    go.Heatmap(
      z=[list(row) for row in grid],
      x=[f'{n:,}' for n in lengths],
      y=[f'{depth:.0%}' for depth in depths],
      zmin=0,
      zmax=1,
      xgap=2,
      ygap=2,
      texttemplate='%{z:.2f}',
      hovertemplate='length %{x}, depth %{y}: recall %{z:.2f}<extra></extra>',
      colorbar={'thickness': 10, 'tickformat': '.0%', 'outlinewidth': 0, 'nticks': 3},
    )
  )
  spec = drawing.figure(
    figure,
    320,
    xaxis={
      'title': {'text': f'length, {unit}'},
      'type': 'category',
      'gridcolor': 'rgba(0,0,0,0)',
    },
    yaxis={
      'title': {'text': 'depth'},
      'type': 'category',
      'autorange': 'reversed',
      'gridcolor': 'rgba(0,0,0,0)',
    },
  )
  spec['data'][0]['colorscale'] = 'scale:'
  return spec


def margins(values: Sequence[float]) -> dict | None:
  """Histogram of r(better) - r(worse) on held-out pairs."""
  if not len(values):
    return None
  figure = go.Figure(
    go.Histogram(
      x=list(values),
      nbinsx=max(10, round(2 * math.sqrt(len(values)))),
      hovertemplate='margin %{x}: %{y} pairs<extra></extra>',
    )
  )
  spec = drawing.figure(
    figure,
    300,
    bargap=0.06,
    xaxis={'title': {'text': 'r(better) − r(worse)'}},
    yaxis={'title': {'text': 'pairs'}, 'nticks': 6},
  )
  spec['layout']['shapes'] = [
    {
      'type': 'line',
      'x0': 0,
      'x1': 0,
      'y0': 0,
      'y1': 1,
      'yref': 'paper',
      'line': {'color': 'soft:', 'width': 1.5, 'dash': 'dot'},
    }
  ]
  return drawing.paint(spec, ['role:2'])


def best_of_k(points: Sequence[dict]) -> dict | None:
  """Mean reward (and exact match, right axis) of the best of K samples."""
  if not points:
    return None
  ks = [point['k'] for point in points]
  figure, roles = go.Figure(), ['role:0']
  figure.add_scatter(
    x=ks,
    y=[point['reward'] for point in points],
    mode='lines+markers',
    name='mean reward',
    line={'width': 2},
    marker={'size': 7},
    error_y={
      'type': 'data',
      'array': [point.get('ci', 0) for point in points],
      'thickness': 1,
      'width': 3,
    },
  )
  layout = {}
  if all('exact' in point for point in points):
    figure.add_scatter(
      x=ks,
      y=[point['exact'] for point in points],
      mode='lines+markers',
      name='exact match',
      yaxis='y2',
      line={'width': 2, 'dash': 'dot'},
      marker={'size': 7, 'symbol': 'square-open'},
    )
    roles.append('role:1')
    layout['yaxis2'] = {
      'title': {'text': 'exact match'},
      'overlaying': 'y',
      'side': 'right',
      'tickformat': '.0%',
      'gridcolor': 'rgba(0,0,0,0)',
      'rangemode': 'tozero',
      'tickmode': 'auto',
      'nticks': 6,
    }
  spec = drawing.figure(
    figure,
    300,
    xaxis={
      'title': {'text': 'K'},
      'type': 'log',
      'tickvals': ks,
      'ticktext': [str(k) for k in ks],
    },
    yaxis={'title': {'text': 'mean reward'}, 'nticks': 6},
    **layout,
  )
  spec['data'][0]['error_y']['color'] = 'role:0'
  spec['layout']['legend'] = {**drawing.BASE['legend'], 'y': -0.28}
  return drawing.paint(spec, roles)


def cost(stages: Sequence[dict], field: str, scale: float, unit: str) -> dict | None:
  """Horizontal bars of one cost (`seconds`, `memory_bytes`) by stage."""
  kept = [stage for stage in stages if stage.get(field) is not None]
  if not kept:
    return None
  values = [stage[field] / scale for stage in kept]
  figure = go.Figure(
    go.Bar(
      x=values,
      y=[stage['name'] for stage in kept],
      orientation='h',
      text=[f'{value:.1f}' for value in values],
      textposition='outside',
      hovertemplate='%{y}: %{x:.2f} ' + unit + '<extra></extra>',
      cliponaxis=False,
    )
  )
  spec = drawing.figure(
    figure,
    70 + 28 * len(kept),
    bargap=0.3,
    yaxis={'autorange': 'reversed', 'gridcolor': 'rgba(0,0,0,0)'},
    xaxis={'title': {'text': unit}, 'nticks': 5, 'range': [0, 1.2 * max(values)]},
  )
  return drawing.paint(spec, ['role:5' if field == 'memory_bytes' else 'role:4'])
