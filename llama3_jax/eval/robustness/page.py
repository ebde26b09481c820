"""The page of robustness: scores of each variant, and the questions that flip (5.1)."""

import pathlib
from collections.abc import Mapping
from collections.abc import Sequence

import plotly.graph_objects as go

from llama3_jax.base import files
from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError
from llama3_jax.eval import paired
from llama3_jax.eval import table
from llama3_jax.eval.robustness import spread
from llama3_jax.report import figures as drawing
from llama3_jax.report import page as pages
from llama3_jax.report.blocks import Card
from llama3_jax.report.blocks import Details
from llama3_jax.report.blocks import Interval
from llama3_jax.report.blocks import Note
from llama3_jax.report.blocks import Page
from llama3_jax.report.blocks import Plot
from llama3_jax.report.blocks import Section
from llama3_jax.report.blocks import Stack
from llama3_jax.report.blocks import Table
from llama3_jax.report.blocks import Turn

FILE = 'choices.jsonl'
THIS = 'this model'
SHOWN = 10  # questions that flip most
LONG = 2000  # characters of a text
TITLES = {
  'bias': 'Right labels of the solved examples',
  'labels': 'Labels of the choices',
  'order': 'Order of the choices',
  'format': 'Form of the prompt',
}
NOTE = (
  'All variants ask the same questions after the same solved examples. Spread: the '
  'best score less the worst, in points, and beside it what chance alone stays below '
  'in 95% of draws, where each question deals its scores to the variants anew. '
  'Variants are told apart where fewer than 5% of draws spread as far. Consistency: '
  'the share of questions with one choice, by its text, in all variants; independent '
  'guesses reach what stands beside it. One place: the share whose choices stand at '
  'one place of the list, which is high where a model follows places, not texts.'
)
AGAINST = (
  'Above the first: points above the first variant on the same questions (95%, '
  'bootstrap over questions). Same choice: the share of questions with the choice of '
  'the first.'
)
PAIRS = (
  'The score on adversarial questions less that on ordinary ones, in points, with a '
  '95% interval of independent samples.'
)


def write(folder: pathlib.Path, results: Mapping) -> None:
  """Writes <folder>/report.html of a finished run of experiments/robustness.py."""
  rows = _read(folder) if 'kinds' in results else []
  pages.write(folder / 'report.html', page(results, rows))


def _read(folder):
  return [row for _, row in jsonl.read(folder / FILE, 'against')]


def finished(workdir: str) -> dict:
  """Results of a run that is compared with, with its 'name' and 'folder'."""
  folder = pathlib.Path(workdir).resolve()
  path = folder / 'results.json'
  results = files.read_json(path) if path.exists() else {}
  if not {'kinds', 'pairs'} & set(results):
    raise UserError(
      f'against={workdir}: no finished run of robustness: name the workdir of one'
    )
  kept = {k: v for k, v in results.items() if k != 'against'}
  return kept | {'name': folder.name, 'folder': str(folder)}


def same(before: Sequence[Mapping], rows: Sequence[Mapping]) -> None:
  """Raises UserError where another run asked other questions than these rows have."""
  asked = lambda every: [(r['question'], r['choices'], r['answer']) for r in every]
  for one in before:
    if 'kinds' in one and asked(_read(pathlib.Path(one['folder']))) != asked(rows):
      raise UserError(
        f'against={one["folder"]}: it asked other questions: run both with the same '
        'task, examples and seed'
      )


def _models(results):
  """{name: results} of the other runs and of this one, in the order of the page."""
  found = {}
  for one in results.get('against', ()):
    found[one['folder'] if one['name'] in found else one['name']] = one
  return found | {THIS: results}


def lines(results: Mapping) -> list[str]:
  """What the log says: a table of variants, a line a kind, a line a pair."""
  found = []
  for kind, r in results.get('kinds', {}).items():
    placed = f', one place for {r["same_place"]:.1%}' if kind == 'order' else ''
    found.append(f'{TITLES[kind]}: {sentence(r)}{placed}')
    for name, own in r['variants'].items():
      low, high = (100 * end for end in own['interval'])
      shown = f'{100 * own["score"]:5.1f} % [{low:.1f}, {high:.1f}] of {own["n"]}'
      found.append(f'  {name:<16} {shown}, same choice {own["same"]:.1%}')
  for pair in results.get('pairs', ()):
    a, b = _short(pair)
    found.append(f'{a} → {b}: {_points(pair).value} {_points(pair).shown} points')
  return found


def sentence(found: Mapping) -> str:
  """What a kind of variants says, in a line."""
  return (
    f'spread {100 * found["spread"]:.1f} points, by chance up to '
    f'{100 * found["by_chance"]:.1f} (p {found["p"]:.3f}): {_told(found)}; '
    f'one choice in all {len(found["variants"])} for {found["consistency"]:.1%} of the '
    f'questions, guesses {found["guessing"]:.1%}'
  )


def _told(found):
  return 'told apart' if found['told'] else 'not told apart'


def _points(found):
  low, high = 100 * found['low'], 100 * found['high']
  return Interval(f'{100 * found["difference"]:+.1f}', f'[{low:+.1f}, {high:+.1f}]')


def _short(pair):
  """Names of a pair, as they are shown."""
  return list(table.shorts([pair['ordinary'], pair['adversarial']]).values())


def page(results: Mapping, rows: Sequence[Mapping]) -> Page:
  """The report of results, beside those of other models, and of their questions."""
  every = _models(results)
  kinds = [k for k in TITLES if any(k in r.get('kinds', {}) for r in every.values())]
  summary = [Note(NOTE), Card([_summary(every, kinds)])] if kinds else []
  sections = [Section('In short', summary, name='short')]
  for kind in kinds:
    sections.append(Section(TITLES[kind], _kind(every, kind), name=kind))
  sections.append(Section('Adversarial questions', _pairs(every), name='pairs'))
  flipped = _flipped(rows) if rows else []
  sections.append(Section('Questions that flip most', flipped, name='flips'))
  tiles = []
  if 'kinds' in results:
    label = f'as usually asked, of {results["n"]:,} questions'
    tiles.append((f'{results["score"]:.1%}', label))
  return Page('Robustness', sections, tiles=tiles, links=True)


def _summary(every, kinds):
  header = (
    *('what varies', 'model', 'mean %', 'spread', 'standard deviation', 'variants are'),
    *('consistency %', 'one place %'),
  )
  rows = []
  for kind in kinds:
    for name, results in every.items():
      if not (r := results.get('kinds', {}).get(kind)):
        continue
      chance = Interval(
        f'{100 * r["spread"]:.1f}', f'chance {100 * r["by_chance"]:.1f}'
      )
      guess = f'guesses {100 * r["guessing"]:.1f}'
      alike = Interval(f'{100 * r["consistency"]:.1f}', guess)
      middle = f'{100 * r["mean"]:.1f}', chance, f'{100 * r["deviation"]:.1f}'
      last = _told(r), alike, f'{100 * r["same_place"]:.1f}'
      rows.append((TITLES[kind], name, *middle, *last))
  return Table(header, rows, wide=True)


def _kind(every, kind):
  """Figure and table of the variants of a kind, a column a model."""
  found = {
    name: r['kinds'][kind] for name, r in every.items() if kind in r.get('kinds', {})
  }
  names = list(dict.fromkeys(v for r in found.values() for v in r['variants']))
  header = ['variant']
  for name in found:
    header += [name, 'above the first', 'same choice %']
  rows = []
  for variant in names:
    cells = []
    for r in found.values():
      cells += _cells(r['variants'].get(variant))
    rows.append((variant, *cells))
  blocks = [Plot(f'kind-{kind}', figure(found, names)), Table(header, rows, wide=True)]
  return [Card([*blocks, Note(AGAINST)])]


def _cells(own):
  if own is None:
    return ['–'] * 3
  low, high = (100 * end for end in own['interval'])
  score = Interval(f'{100 * own["score"]:.1f}', f'[{low:.1f}, {high:.1f}]')
  return [score, _points(own['paired']), f'{100 * own["same"]:.1f}']


def figure(found: Mapping[str, Mapping], names: Sequence[str]) -> dict:
  """Bars of the score of each variant with its interval, a colour a model.

  found: {model: of spread.kind}; names: of the variants, from above.
  """
  drawn, roles = go.Figure(), []
  for name, r in found.items():
    own = [(v, r['variants'][v]) for v in names if v in r['variants']]
    scores = [100 * x['score'] for _, x in own]
    ends = [[100 * end for end in x['interval']] for _, x in own]
    drawn.add_bar(
      x=scores,
      y=[drawing.plain(v) for v, _ in own],
      orientation='h',
      name=drawing.plain(name),
      error_x=drawing.errors(scores, ends),
      hovertemplate='%{y}: %{x:.1f} %<extra></extra>',
    )
    roles.append(f'role:{len(roles)}')
  spec = drawing.figure(
    drawn,
    110 + (14 + 16 * len(found)) * len(names),
    bargap=0.3,
    xaxis={'title': {'text': 'right answers, %'}, 'range': [0, 100]},
    yaxis={'autorange': 'reversed', 'type': 'category', 'gridcolor': 'rgba(0,0,0,0)'},
    showlegend=len(found) > 1,
  )
  for trace in spec['data']:
    trace['error_x']['color'] = 'ink:'
  return drawing.paint(spec, roles)


def _pairs(every):
  header = ('model', 'ordinary', 'adversarial', 'ordinary %', 'adversarial %', 'points')
  rows = []
  for name, results in every.items():
    for pair in results.get('pairs', ()):
      scores = [results['tasks'][pair[side]] for side in header[1:3]]
      shown = [f'{100 * r["score"]:.1f} of {r["n"]}' for r in scores]
      told = paired.told(pair)
      rows.append((name, *_short(pair), *shown, _points(pair), told))
  return [Note(PAIRS), Card([Table((*header, ''), rows)])] if rows else []


def _flipped(rows):
  """The questions with most variants whose choice is not that of most variants."""
  counted = [(spread.flips(row['chosen']), row) for row in rows]
  ranked = sorted(counted, key=lambda pair: -pair[0])[:SHOWN]
  return [Stack([Card([_one(n, row) for n, row in ranked if n])])]


def _one(flips, row):
  """A question that opens: how often each choice was taken, and in which variants."""
  taken = [
    (number, f'{kind}: {name}')
    for kind, own in row['chosen'].items()
    for name, number in own.items()
  ]
  table = []
  for i, text in enumerate(row['choices']):
    where = [name for number, name in taken if number == i]
    mark = 'right' if i == row['answer'] else ''
    table.append((text[:LONG], mark, len(where), ', '.join(where)))
  header = ('choice', '', 'times', 'in')
  first = ' '.join(row['question'].split())[:90]
  blocks = [
    Turn(row['question'][:LONG], 'question', 'user'),
    Table(header, table, sentences=('choice', 'in')),
  ]
  return Details(f'{flips} of {len(taken)} differ: {first}', blocks)
