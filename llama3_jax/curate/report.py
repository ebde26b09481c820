"""The page of a curation run: funnel, rules, thresholds, languages, hosts (3.1.1)."""

import html

import plotly.graph_objects as go

from llama3_jax import page
from llama3_jax.curate import margins

TOP = 25  # languages and hosts in a table


def write(path, found):
  """Writes the page of build(); found: see build."""
  page.write(path, build(found))


def build(found):
  """A self-contained page.

  Args:
    found: dict: funnel (funnel.total), seconds {stage: CPU seconds}, lines (list of
      margins.Line), margins (margins.merge), sweeps [{rule, limits, over, alone}].
  """
  steps = found['funnel']['steps']
  drawn = {'funnel': _funnel(steps)}
  parts = [
    ('Funnel', page.place('funnel', drawn['funnel']) + _table(steps, found['seconds'])),
    ('Rules', _rules(steps)),
    ('Thresholds', _thresholds(found, drawn)),
    ('Thresholds tried again', _sweeps(found.get('sweeps', ()))),
    ('Languages', _languages(steps)),
    ('Hosts', _hosts(found['funnel'])),
    ('What could not be read', _problems(found['funnel']['problems'])),
  ]
  title = 'Curation'
  body = f'<header><h1>{title}</h1><p>{_summary(steps)}</p></header>' + _tiles(found)
  for head, content in parts:
    if content:
      body += f'<section><h2>{head}</h2><div class="card">{content}</div></section>'
  body += '<footer>Made by llama3_jax; every figure is computed from work/.</footer>'
  return page.document(title, body, drawn)


def _summary(steps):
  first, last = steps[0], steps[-1]
  share = last['documents'] / max(first['documents'], 1)
  return (
    f'{first["documents"]:,} documents came in, {last["documents"]:,} are left '
    f'({share:.1%}).'
  )


def _tiles(found):
  steps = found['funnel']['steps']
  spent = sum(found['seconds'].values())
  return page.tiles(
    [
      (f'{steps[-1]["documents"]:,}', 'documents left'),
      (f'{steps[-1]["bytes"] / 1e6:,.1f} MB', 'of text'),
      (f'{steps[-1]["tokens"] / 1e6:,.2f} M', 'tokens, estimated at 4 bytes each'),
      (
        f'{steps[0]["documents"] / max(spent, 1e-9):,.0f}',
        'documents/s/core, all steps',
      ),
      (f'{spent:,.0f} s', 'CPU time'),
    ]
  )


def _funnel(steps):
  counts = [step['documents'] for step in steps]
  figure = go.Figure(
    go.Bar(
      x=counts,
      y=[step['step'] for step in steps],
      orientation='h',
      text=[f'{count:,}' for count in counts],
      textposition='outside',
      cliponaxis=False,
      hovertemplate='%{x:,} documents<extra></extra>',
    )
  )
  spec = page.figure(
    figure,
    80 + 24 * len(steps),
    bargap=0.25,
    yaxis={'autorange': 'reversed', 'gridcolor': 'rgba(0,0,0,0)'},
    xaxis={
      'title': {'text': 'documents left'},
      'nticks': 5,
      'range': [0, 1.25 * max([1, *counts])],
    },
  )
  return page.paint(spec, ['role:0'])


def _table(steps, seconds):
  rows, before = [], steps[0]['documents']
  for step in steps:
    spent = seconds.get(step['step'], 0.0)
    rate = f'{before / spent:,.0f}' if spent else ''
    dropped = before - step['documents']
    rows.append(
      (
        step['step'],
        f'{before:,}',
        f'{step["documents"]:,}',
        f'{dropped / max(before, 1):.1%}' if dropped else '',
        f'{step["bytes"] / 1e6:,.1f}',
        f'{step["tokens"] / 1e6:,.2f}',
        rate,
      )
    )
    before = step['documents']
  head = ('step', 'in', 'out', 'dropped', 'MB', 'M tokens', 'documents/s/core')
  return page.table(head, rows)


def _rules(steps):
  rows = [
    (reason, f'{count["documents"]:,}', f'{count["bytes"] / 1e6:,.2f}')
    for step in steps
    for reason, count in step['dropped'].items()
  ]
  rows.sort(key=lambda row: -int(row[1].replace(',', '')))
  return page.table(('rule', 'documents dropped', 'MB'), rows) if rows else ''


def _thresholds(found, drawn):
  """A histogram and the nearest samples of every rule that was measured."""
  parts = []
  for number, line in enumerate(found['lines']):
    entry = found['margins'][line.key]
    count = entry['below'] + entry['above']
    if not count:
      continue
    name = f'rule{number}'
    drawn[name] = _histogram(entry['bins'], line)
    gone = entry['above'] if line.high else entry['below']
    side = 'above' if line.high else 'below'
    parts.append(
      f'<details><summary>{html.escape(line.reason)} ({line.group}): {side} '
      f'{line.limit:g}, {gone:,} of {count:,} documents</summary>'
      f'{page.place(name, drawn[name])}{_samples(entry["near"], line)}</details>'
    )
  note = (
    '<p class="note">Values of all documents that were measured, also of those that '
    'another rule dropped first. The line is the threshold.</p>'
  )
  return note + ''.join(parts) if parts else ''


def _histogram(bins, line):
  low, high = line.span
  width = (high - low) / margins.BINS
  x = [low + (i + 0.5) * width for i in range(margins.BINS)]
  bars = go.Bar(
    x=x, y=bins, width=width, hovertemplate='%{x:.3g}: %{y:,}<extra></extra>'
  )
  top = max([1, *bins])
  mark = go.Scatter(x=[line.limit] * 2, y=[1, top], mode='lines', hoverinfo='skip')
  spec = page.figure(
    go.Figure([bars, mark]),
    220,
    showlegend=False,
    xaxis={'title': {'text': line.column}, 'range': [low, high]},
    yaxis={'title': {'text': 'documents'}, 'type': 'log'},
  )
  return page.paint(spec, ['role:0', 'role:5'])


def _samples(near, line):
  rows = []
  for _, above, value, url, lang, _, text in near:
    verdict = 'dropped' if above == line.high else 'kept'
    shown = ' '.join(text.split())[:200]
    rows.append((verdict, f'{value:.4g}', lang or '', (url or '')[:60], shown))
  return page.table(('', 'value', 'language', 'url', 'text'), rows)


def _sweeps(sweeps):
  rows = []
  for entry in sweeps:
    for limit, (over, alone) in zip(entry['limits'], entry['counts']):
      rows.append((entry['rule'], f'{limit:g}', f'{over:,}', f'{alone:,}'))
  head = ('rule', 'limit', 'documents over it', 'of which no other rule drops')
  return page.table(head, rows) if rows else ''


def _languages(steps):
  """Documents of each language after every step in which they fell."""
  last = steps[-1]['languages']
  known = next((s['languages'] for s in steps if len(s['languages']) > 1), last)
  names = sorted(known, key=lambda name: -known[name])[:TOP]
  rows = [(n, f'{known[n]:,}', f'{last.get(n, 0):,}') for n in names]
  return page.table(('language', 'identified', 'left'), rows) if rows else ''


def _hosts(funnel):
  rows = list(funnel['hosts'].items())[:TOP]
  return page.table(('host', 'documents left'), [(h, f'{n:,}') for h, n in rows])


def _problems(problems):
  return page.table(('',), [(line,) for line in problems]) if problems else ''
