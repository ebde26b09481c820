"""The page of a curation run: funnel, rules, thresholds, languages, hosts (3.1.1)."""

import os
from collections.abc import Mapping

import plotly.graph_objects as go

from llama3_jax.curate.reporting import margins
from llama3_jax.curate.reporting import verdicts as verdict_files
from llama3_jax.report import figures
from llama3_jax.report import page
from llama3_jax.report.blocks import Card
from llama3_jax.report.blocks import Details
from llama3_jax.report.blocks import Note
from llama3_jax.report.blocks import Page
from llama3_jax.report.blocks import Plot
from llama3_jax.report.blocks import Section
from llama3_jax.report.blocks import Table
from llama3_jax.report.blocks import Turn

TOP = 25  # languages and hosts in a table
SHOWN = 50  # problems


def write(path: str | os.PathLike, found: Mapping[str, object]) -> None:
  """Writes the page of content().

  Args:
    path: of the HTML file.
    found: see content.
  """
  page.write(path, content(found))


def content(found: Mapping[str, object]) -> Page:
  """The page of a curation run.

  Args:
    found: dict: funnel (funnel.total), seconds {stage: CPU seconds}, lines (list of
      margins.Line), margins (margins.merge), sweeps [{rule, limits, counts}], personal
      (funnel.personal), models (funnel.models); verdicts (verdicts.count) if any.
  """
  steps = found['funnel']['steps']
  names, counts = zip(*((step['step'], step['documents']) for step in steps))
  funnel = Plot('funnel', figures.funnel(names, counts))
  parts = [
    ('Funnel', [funnel, _steps(steps, found['seconds'])]),
    ('Rules', _rules(steps)),
    ('Precision of the reasons', _precision(found.get('verdicts', {}))),
    ('Thresholds', _thresholds(found)),
    ('Thresholds tried again', _sweeps(found['sweeps'])),
    ('Classifiers', _models(found['models'])),
    ('Languages', _languages(steps)),
    ('Hosts', _hosts(found['funnel'])),
    ('Hosts with personal data', _personal(found['personal'])),
    ('What could not be read', _problems(found['funnel']['problems'])),
  ]
  sections = [Section(title, [Card(inside)]) for title, inside in parts if inside]
  return Page('Curation', sections, [_summary(steps)], _tiles(found))


def _table(header, rows):
  return [Table(header, rows)] if rows else []


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
  rate = steps[0]['documents'] / max(spent, 1e-9)
  return [
    (f'{steps[-1]["documents"]:,}', 'documents left'),
    (f'{steps[-1]["bytes"] / 1e6:,.1f} MB', 'of text'),
    (f'{steps[-1]["tokens"] / 1e6:,.2f} M', 'tokens, estimated at 4 bytes each'),
    (f'{rate:,.0f}', 'documents/s/core, all steps'),
    (f'{spent:,.0f} s', 'CPU time'),
  ]


def _steps(steps, seconds):
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
  return Table(head, rows)


def _rules(steps):
  rows = [
    (reason, f'{count["documents"]:,}', f'{count["bytes"] / 1e6:,.2f}')
    for step in steps
    for reason, count in step['dropped'].items()
  ]
  rows.sort(key=lambda row: -int(row[1].replace(',', '')))
  return _table(('dropped by', 'documents', 'MB'), rows)


def _precision(verdicts):
  """Of the documents with a verdict: how many that a reason drops are junk."""
  rows = []
  most = sorted(verdicts.items(), key=lambda pair: -sum(pair[1].values()))
  for reason, count in most:
    good, junk = count.get('good', 0), count.get('junk', 0)
    dropped = reason not in ('', verdict_files.ABSENT)
    share = f'{junk / max(good + junk, 1):.3f}' if dropped else ''
    rows.append((reason or 'left', f'{good:,}', f'{junk:,}', share))
  return _table(('dropped by', 'good', 'junk', 'precision'), rows)


def _thresholds(found):
  """A histogram and the nearest samples of every rule that was measured."""
  parts = []
  for number, line in enumerate(found['lines']):
    entry = found['margins'][line.key]
    count = entry['below'] + entry['above']
    if not count:
      continue
    gone = entry['above'] if line.high else entry['below']
    side = 'above' if line.high else 'below'
    title = (
      f'{line.reason} ({line.name}): {side} {line.limit:g}, {gone:,} of {count:,} '
      'documents'
    )
    histogram = Plot(f'rule{number}', _histogram(entry['bins'], line))
    parts.append(Details(title, [histogram, *_samples(entry['near'], line)]))
  note = Note(
    'Values of all documents that were measured, also of those that another rule '
    'dropped first. The line is the threshold.'
  )
  return [note, *parts] if parts else []


def _histogram(bins, line):
  low, high = line.span
  width = (high - low) / margins.BINS
  x = [low + (i + 0.5) * width for i in range(margins.BINS)]
  bars = go.Bar(
    x=x, y=bins, width=width, hovertemplate='%{x:.3g}: %{y:,}<extra></extra>'
  )
  top = max([1, *bins])
  mark = go.Scatter(x=[line.limit] * 2, y=[1, top], mode='lines', hoverinfo='skip')
  spec = figures.figure(
    go.Figure([bars, mark]),
    220,
    showlegend=False,
    xaxis={'title': {'text': line.column}, 'range': [low, high]},
    yaxis={'title': {'text': 'documents'}, 'type': 'log'},
  )
  return figures.paint(spec, ['role:0', 'role:5'])


def _samples(near, line):
  """The documents on both sides of a threshold, the dropped ones first."""
  parts = []
  for _, above, value, url, lang, _, text in sorted(
    near, key=lambda sample: (sample[1] != line.high, sample[0], sample[5])
  ):
    verdict = 'over the limit' if above == line.high else 'within it'
    head = ' · '.join(x for x in (verdict, f'{value:.4g}', lang, url) if x)
    parts.append(Turn(' '.join(text.split())[:300], head))
  return parts


def _sweeps(sweeps):
  rows = []
  for entry in sweeps:
    for limit, (over, alone) in zip(entry['limits'], entry['counts']):
      rows.append((entry['rule'], f'{limit:g}', f'{over:,}', f'{alone:,}'))
  head = ('rule', 'limit', 'documents over it', 'of which no other rule drops')
  return _table(head, rows)


def _models(models):
  """Labels and accuracy of the classifiers, on labels that were held out."""
  rows = [
    (name, f'{labels:,.0f}', f'{held:,.0f}', f'{accuracy:.3f}', _auc(area))
    if labels
    else (name, 'too few labels', '', '', '')
    for name, labels, held, accuracy, area in models
  ]
  head = ('classifier', 'labels', 'held out', 'accuracy', 'AUC')
  return _table(head, rows)


def _auc(area):
  return '' if area is None or area != area else f'{area:.3f}'


def _languages(steps):
  """Documents of each language: identified, after every step that drops some, left."""
  known = next((s['languages'] for s in steps if len(s['languages']) > 1), None)
  known = known or steps[-1]['languages']
  indices = [i for i, s in enumerate(steps) if s['dropped'] and s['languages']]
  indices = [i for i in indices if steps[i]['languages'].keys() <= known.keys()]
  names = sorted(known, key=lambda name: (-known[name], name))[:TOP]
  rows = [
    (name, known[name], *(steps[i]['languages'].get(name, 0) for i in indices))
    for name in names
  ]
  rows = [
    (name, *(f'{n:,}' for n in counts), f'{counts[-1] / max(counts[0], 1):.0%}')
    for name, *counts in rows
  ]
  head = ('language', 'found', *(steps[i]['step'] for i in indices), 'left')
  return _table(head, rows)


def _hosts(funnel):
  rows = [(h, f'{n:,}') for h, n in list(funnel['hosts'].items())[:TOP]]
  return _table(('host', 'left'), rows)


def _personal(hosts):
  """Addresses, phone numbers and the like, by host."""
  rows = [
    (host, f'{total:,}', f'{hits:,}', f'{flagged:,}', 'yes' if gone else '')
    for host, total, flagged, hits, gone in hosts
  ]
  head = ('host', 'documents', 'hits', 'too much', 'host dropped')
  return _table(head, rows)


def _problems(problems):
  """The first of them; funnel.json has more."""
  more = len(problems) - SHOWN
  notes = [Note(f'{more:,} more in funnel.json')] if more > 0 else []
  return [Turn(line) for line in problems[:SHOWN]] + notes
