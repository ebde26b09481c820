"""The paper's three figures of the scaling laws (section 3.2)."""

import math
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from llama3_jax.report import figures as drawing
from llama3_jax.scaling import isoflop
from llama3_jax.scaling import predict

BAND = 'rgba(120,140,170,0.22)'


LABELS = ('NLL a character, nats', 'accuracy')


def _finish(figure, height, roles):
  """The JSON of a figure; roles: colour of each trace (None: unchanged)."""
  spec = drawing.figure(figure, height)
  legend = {**drawing.BASE['legend'], **spec['layout']['legend']}
  spec['layout']['legend'] = {**legend, 'traceorder': 'normal'}
  for letter in 'xy':
    axis = spec['layout'][f'{letter}axis']
    if axis.get('type') == 'log':
      values = [v for trace in spec['data'] for v in trace[letter]]
      axis.update(_ticks(min(values), max(values)))
  for trace, role in zip(spec['data'], roles, strict=True):
    if role:
      for part in ('line', 'marker'):
        trace[part] = {**trace.get(part, {}), 'color': role}
      if 'error_y' in trace:
        trace['error_y'] = {**trace['error_y'], 'color': role}
  return spec


def _ticks(low, high):
  """Few round labels of a logarithmic axis: a phone has room for six."""
  first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
  span = math.log10(high / low)
  digits = (1,) if span > 2 else (1, 2, 5) if span > 1.2 else (1, 2, 3, 5)
  every = max(1, (last - first) // 6)
  ticks = [(m, e) for e in range(first, last + 1, every) for m in digits]
  ticks = [(m, e) for m, e in ticks if low / 1.3 <= m * 10.0**e <= high * 1.3]
  text = [('' if m == 1 else f'{m}·') + f'10<sup>{e}</sup>' for m, e in ticks]
  return {'tickvals': [m * 10.0**e for m, e in ticks], 'ticktext': text}


def _band(figure, x, low, high):
  """A band between two lines; adds two traces."""
  line = {'width': 0, 'color': BAND}
  common = dict(mode='lines', line=line, showlegend=False, hoverinfo='skip')
  figure.add_scatter(x=x, y=low, **common)
  figure.add_scatter(x=x, y=high, fill='tonexty', fillcolor=BAND, **common)


def curves(rows: Sequence[Mapping], found: isoflop.Study) -> dict:
  """Figure 2 of the paper: loss against tokens, a parabola a budget.

  Runs far above every parabola are outside the frame.
  """
  figure, roles, seen = go.Figure(), [], []
  budgets = sorted({r['budget'] for r in rows})
  fits = dict(zip(found.budgets, found.parabolas))
  for i, budget in enumerate(budgets):
    own = [r for r in rows if r['budget'] == budget]
    tokens, loss = [r['tokens'] for r in own], [r['loss'] for r in own]
    fit = fits.get(budget) or isoflop.parabola(tokens, loss)
    outside = budget not in fits
    name = f'{budget:.3g}' + (', held out' if outside else '')
    figure.add_scatter(
      x=tokens,
      y=loss,
      mode='markers',
      name=name,
      legendgroup=name,
      marker={'size': 7, 'symbol': 'circle-open' if outside else 'circle'},
    )
    used = np.array(tokens)[list(fit.used)]
    seen += [loss[k] for k in fit.used]
    x = np.geomspace(used.min(), used.max(), 60)
    figure.add_scatter(
      x=x.tolist(),
      y=fit(x).tolist(),
      mode='lines',
      legendgroup=name,
      showlegend=False,
      hoverinfo='skip',
      line={'width': 1.6, 'dash': 'dot' if outside else 'solid'},
    )
    roles += [f'role:{i % 7}'] * 2
    if not fit.problem:
      figure.add_scatter(
        x=[fit.tokens],
        y=[fit.loss],
        mode='markers',
        legendgroup=name,
        showlegend=False,
        marker={'size': 10, 'symbol': 'diamond-open' if outside else 'diamond'},
        hovertemplate='optimum %{x:.3g} tokens, loss %{y:.3f}<extra></extra>',
      )
      roles.append(f'role:{i % 7}')
  figure.update_xaxes(type='log', title_text='training tokens')
  pad = 0.06 * (max(seen) - min(seen))
  frame = [min(seen) - pad, max(seen) + pad]
  figure.update_yaxes(title_text='held-out loss, nats a token', range=frame)
  figure.update_layout(legend_title_text='FLOPs')
  return _finish(figure, 460, roles)


def optimum(
  found: isoflop.Study, extrapolated: Mapping, held_out: Sequence[Mapping] = ()
) -> dict:
  """Figure 3: compute-optimal tokens against FLOPs, the law and its extrapolation."""
  figure, roles = go.Figure(), []
  kept = [
    (c, p.tokens, i)
    for c, p, i in zip(found.budgets, found.parabolas, found.tokens_interval)
    if not p.problem
  ]
  target = extrapolated['flops']
  x = np.geomspace(min(found.budgets) / 1.5, max(target, max(found.budgets)) * 1.5, 80)
  law = found.samples['law']
  lines = law[:, 1:] * x[None] ** law[:, :1]
  _band(figure, x.tolist(), *np.quantile(lines, (0.025, 0.975), axis=0).tolist())
  alpha, a = found.law
  figure.add_scatter(
    x=x.tolist(),
    y=(a * x**alpha).tolist(),
    mode='lines',
    name=f'N* = {a:.3g} C^{alpha:.3f}',
  )
  figure.add_scatter(
    x=[c for c, *_ in kept],
    y=[t for _, t, _ in kept],
    error_y={
      'type': 'data',
      'array': [i[1] - t for _, t, i in kept],
      'arrayminus': [t - i[0] for _, t, i in kept],
      'thickness': 1,
    },
    mode='markers',
    name='optima',
    marker={'size': 8, 'symbol': 'diamond'},
  )
  figure.add_scatter(
    x=[target],
    y=[extrapolated['tokens'][0]],
    mode='markers',
    name=f'{extrapolated["tokens"][0]:.3g} tokens at {target:.3g} FLOPs',
    marker={'size': 13, 'symbol': 'star'},
  )
  roles += [None, None, 'role:0', 'role:0', 'role:1']
  inside = [h for h in held_out if not h['vertex']['problem']]
  if inside:
    figure.add_scatter(
      x=[h['budget'] for h in inside],
      y=[h['vertex']['tokens'] for h in inside],
      mode='markers',
      name='held out',
      marker={'size': 10, 'symbol': 'diamond-open'},
    )
    roles.append('role:2')
  figure.update_xaxes(type='log', title_text='FLOPs')
  figure.update_yaxes(type='log', title_text='compute-optimal tokens')
  return _finish(figure, 420, roles)


def two_steps(
  found: predict.Forecast,
  models: Mapping[str, np.ndarray],
  points: Mapping[str, np.ndarray],
  others: Sequence[tuple] = (),
  labels: tuple[str, str] = LABELS,
) -> tuple[dict, dict]:
  """Figure 4: (NLL of the right answer against FLOPs, accuracy against NLL).

  models: arrays params, tokens, nll of the first step; points: nll, accuracy of the
  second; others: [(name, flops, nll, accuracy)]: measured and not fitted, or predicted.
  """
  left, right = go.Figure(), go.Figure()
  flops = 6 * models['params'] * models['tokens']
  _dots(left, flops, models['nll'], 7, 'fitted')
  if found.curve.kind != 'chinchilla':  # which is no function of FLOPs alone
    far = max([flops.max(), *(o[1] for o in others)])
    x = np.geomspace(flops.min() / 1.3, far * 1.3, 60)
    _fit(left, x, lambda c: c(x / 6, np.ones_like(x)), found.curve, found.curves)
  else:
    order = np.argsort(flops)
    x, y = flops[order], found.curve(models['params'], models['tokens'])[order]
    _fit(left, x, lambda c: y, found.curve, [found.curve])
  low = min([points['nll'].min(), *(o[2] for o in others)])
  x = np.linspace(low * 0.97, points['nll'].max() * 1.01, 80)
  small = 4 if len(points['nll']) > 60 else 7
  _dots(right, points['nll'], points['accuracy'], small, 'fitted')
  _fit(right, x, lambda s: s(x), found.sigmoid, found.sigmoids)
  roles = ['role:0', None, None, 'role:0']
  for i, (name, c, nll, accuracy) in enumerate(others):
    _dots(left, [c], [nll], 11, name, 'star')
    _dots(right, [nll], [accuracy], 11, name, 'star')
    roles.append(f'role:{1 + i}')
  return _panels(left, right, labels, roles, roles)


def candidates(
  found: Mapping[str, predict.Forecast],
  models: Mapping[str, Mapping],
  points: Mapping[str, Mapping],
  held: Sequence[tuple],
  guesses: Mapping[str, tuple[float, Mapping]],
) -> tuple[dict, dict]:
  """One benchmark for several mixes: (NLL against FLOPs, accuracy against NLL).

  found: mix -> Forecast; models, points: mix -> arrays of the first and second step;
  held: [(mix, flops, nll, accuracy)] measured, not fitted; guesses: mix -> (flops,
  prediction).
  """
  left, right, names = go.Figure(), go.Figure(), list(found)
  one, two = [], []  # colours of the traces of each
  for i, name in enumerate(names):
    flops = 6 * models[name]['params'] * models[name]['tokens']
    x = np.geomspace(flops.min() / 1.2, guesses[name][0] * 1.2, 60)
    if found[name].curve.kind != 'chinchilla':
      _line(left, x, found[name].curve(x / 6, np.ones_like(x)))
      one.append(f'role:{i}')
    _dots(left, flops, models[name]['nll'], 6, name)
    _dots(right, points[name]['nll'], points[name]['accuracy'], 6, name)
    one, two = [*one, f'role:{i}'], [*two, f'role:{i}']
  marks = [(*h, 'circle-open') for h in held]
  marks += [
    (n, c, v['nll'][0], v['accuracy'][0], 'star') for n, (c, v) in guesses.items()
  ]
  for name, c, nll, accuracy, symbol in marks:
    _dots(left, [c], [nll], 11, name, symbol, False)
    _dots(right, [nll], [accuracy], 11, name, symbol, False)
    role = f'role:{names.index(name)}'
    one, two = [*one, role], [*two, role]
  seen = [v for p in points.values() for v in p['nll']] + [m[2] for m in marks]
  x = np.linspace(min(seen), max(seen), 80)
  common = found[names[0]]  # all have the same sigmoid
  _fit(right, x, lambda s: s(x), common.sigmoid, common.sigmoids)
  return _panels(left, right, LABELS, one, [*two, None, None, 'role:5'])


def _dots(figure, x, y, size, name, symbol='circle', legend=True):
  x, y = (np.asarray(v, float).tolist() for v in (x, y))
  marker = {'size': size, 'symbol': symbol}
  figure.add_scatter(
    x=x, y=y, mode='markers', name=name, marker=marker, showlegend=legend
  )


def _line(figure, x, y):
  line = dict(mode='lines', showlegend=False, hoverinfo='skip')
  figure.add_scatter(x=x.tolist(), y=np.asarray(y).tolist(), **line)


def _fit(figure, x, at, law, samples):
  """A law's line and the band of its samples; adds three traces."""
  lines = [at(s) for s in samples]
  _band(figure, x.tolist(), *np.quantile(lines, (0.025, 0.975), axis=0).tolist())
  _line(figure, x, at(law))


def _panels(left, right, labels, *roles):
  left.update_xaxes(type='log', title_text='FLOPs')
  left.update_yaxes(title_text=labels[0])
  right.update_xaxes(title_text=labels[0], autorange='reversed')
  right.update_yaxes(title_text=labels[1], tickformat='.0%')
  return _finish(left, 380, roles[0]), _finish(right, 380, roles[1])
