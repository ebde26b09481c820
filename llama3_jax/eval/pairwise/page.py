"""The page of a pairwise evaluation: who wins, by how much, do raters agree (5.3)."""

import collections
import itertools
import pathlib
import random
from collections.abc import Mapping
from collections.abc import Sequence

import plotly.graph_objects as go

from llama3_jax.eval.pairwise.rows import REASONS
from llama3_jax.eval.pairwise.rows import Rated
from llama3_jax.post import ratings
from llama3_jax.post import selection
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

SHOWN = 12  # prompts with their answers
LONG = 3000  # characters of a text
WINS = (
  'A win is "better" or "much better"; ties, which are all other ratings, are left out '
  'of the win rate. With ties: the share of all ratings, a tie is half a win. 95% '
  'intervals are of a bootstrap over prompts; where all prompts say the same, Wilson’s.'
)
UNIFORM = 'Sub-categories alike: the mean of the win rates of all sub-categories.'
STRENGTHS = (
  'Bradley and Terry: 400 points more is a win in 10 of 11; ties are half a win of '
  'each, the mean is 1000.'
)
RATERS = (
  'First preferred: how often the answer that was shown first is the better one, of '
  'all where one is. It is half where places do not count, if the order was drawn or '
  'both orders were shown.'
)
AGREEMENT = (
  'Kappa: agreement on win, tie and loss above chance (Cohen), with how often the '
  'outcome is the same in brackets. Alpha: of all raters, on the seven points in '
  'their order (Krippendorff). 1 is full agreement, 0 chance.'
)


def write(folder: pathlib.Path, results: Mapping) -> None:
  """Writes <folder>/report.html of a finished run of experiments/pairwise.py."""
  pages.write(folder / 'report.html', page(results))


def left(found: selection.Left) -> list[str]:
  """The first rows of each reason for which rows were left out, and how many follow."""
  said = []
  for reason, count in found.counts().items():
    named = found.named(reason)
    said += [f'{reason}: {place}' for place in named]
    if count > len(named):
      said.append(f'{reason}: {count - len(named):,} more')
  return said


def samples(rated: Sequence[Rated], seed: int = 0) -> list[dict]:
  """Answers that the page shows, those first on which raters differ most, then drawn:
  {'prompt', 'models', 'responses', 'ratings': {rater: point of the first}}."""
  found = collections.defaultdict(list)
  for one in rated:
    if one.row.get('responses'):
      found[one.item, one.models].append(one)
  every = list(found.values())
  random.Random(seed).shuffle(every)
  spread = lambda own: max(o.point for o in own) - min(o.point for o in own)
  every.sort(key=lambda own: -spread(own))
  differ = [own for own in every if spread(own)][: SHOWN // 2]
  drawn = [own for own in every if own not in differ][: SHOWN - len(differ)]
  return [_sample(own) for own in differ + drawn]


def _sample(own):
  one = own[0]
  said = [_said(r) for r in one.row['responses']]
  given = one.row.get('models') or [one.row['model_a'], one.row['model_b']]
  order = 1 if tuple(given) == one.models else -1
  return {
    'prompt': one.prompt[:LONG],
    'models': list(one.models),
    'responses': [text[:LONG] for text in said[::order]],
    'ratings': {o.rater: o.point for o in own},
  }


def _said(response):
  """The text of a response, which may be a message."""
  if isinstance(response, Mapping):
    response = response.get('content', '')
  return response if isinstance(response, str) else str(response)


def lines(results: Mapping) -> list[str]:
  """What the log says: a line a pair, a model, a rater, and the agreement."""
  found = [f'{results["ratings"]:,} ratings of {results["prompts"]:,} prompts']
  for pair in results['pairs']:
    rate = pair['rate']
    who = ' against '.join(pair['models'])
    found.append(
      f'{who}: wins {_percent(rate)} of {rate["n"]}, {pair["ties"]} ties; with ties '
      f'{_percent(pair["all"])}: {_told(pair)}'
    )
  if len(results['models']) > 2:
    for name, own in results['strengths']['models'].items():
      low, high = own['interval']
      found.append(f'  {name}: {own["strength"]:.0f} [{low:.0f}, {high:.0f}]')
  found += _bounds(results['strengths'])
  for name, own in results['raters'].items():
    shown = f', first preferred {_percent(own["first"])}' if own['first']['n'] else ''
    both = ''
    if own['in_both_orders']:
      both = f', {own["contradicted"]} of {own["in_both_orders"]} decided by the order'
    found.append(f'rater {name}: {own["ratings"]} ratings{shown}{both}')
  for pair in results['agreement']['pairs']:
    same = _percent(pair['outcome'])
    who = ' and '.join(pair['raters'])
    found.append(f'{who}: same outcome {same} of {pair["n"]}, kappa {_number(pair)}')
  alpha = results['agreement']['alpha']
  if alpha['n']:
    found.append(f'alpha of all raters: {_number(alpha)} of {alpha["n"]} pairs')
  return found


def _percent(share):
  if share['value'] is None:
    return '–'
  low, high = (100 * end for end in share['interval'] or (0, 1))
  return f'{100 * share["value"]:.1f}% [{low:.1f}, {high:.1f}]'


def _number(found):
  """A kappa or an alpha with its interval."""
  value = found.get('value', found.get('kappa'))
  if value is None:
    return '–'
  ends = found['interval']
  return f'{value:.2f}' + (f' [{ends[0]:.2f}, {ends[1]:.2f}]' if ends else '')


def _told(pair):
  return f'{pair["told"]} wins' if pair['told'] else 'not told apart'


def _bounds(found):
  """Sentences on strengths that have no finite value."""
  said = []
  if found['unbeaten'] or found['winless'] or found['virtual']:
    names = [f'{n} never lost' for n in found['unbeaten']]
    names += [f'{n} never won' for n in found['winless']]
    why = ', '.join(names) or 'some models never lost to the others'
    said.append(
      f'{why}: no strength is the likeliest, so each pair was given one virtual tie; '
      'the distance is a lower bound'
    )
  elif found['drawn_virtual']:
    share = 100 * found['drawn_virtual']
    said.append(
      f'in {share:.1f}% of the draws of intervals a model never lost, or never won: '
      'these have a virtual tie of each pair'
    )
  if found['few']:
    names = ', '.join(found['few'])
    said.append(f'too few prompts for the interval, which is too narrow: {names}')
  if len(found['groups']) > 1:
    parts = '; '.join(', '.join(group) for group in found['groups'])
    said.append(f'groups that were never compared, each with its own mean: {parts}')
  return said


def page(results: Mapping) -> Page:
  """The report of the results."""
  sections = [
    Section('Win rates', _wins(results['pairs']), name='wins'),
    Section('By category', _parts(results['pairs'], 'categories'), name='categories'),
    Section('By rater', _parts(results['pairs'], 'raters'), name='by-rater'),
    Section('Strengths', _strengths(results['strengths']), name='strengths'),
    Section('Raters', _raters(results['raters']), name='raters'),
    Section('Agreement', _agreement(results), name='agreement'),
    Section('Answers', _samples(results['samples']), name='answers'),
    Section('Left out', _left(results['left']), name='left'),
  ]
  tiles = [
    (f'{results["ratings"]:,}', f'ratings of {results["prompts"]:,} prompts'),
    (f'{len(results["models"])}', f'models, of {len(results["raters"])} raters'),
  ]
  return Page('Pairwise evaluation', sections, tiles=tiles, links=True)


def _cell(share):
  value, _, ends = _percent(share).partition(' ')
  return Interval(value.rstrip('%'), ends) if ends else value


def _wins(pairs):
  header = ('model', 'against', 'wins %', 'wins', 'ties', 'losses', 'with ties %')
  header += ('sub-categories alike %', 'prompts', '')
  rows = [
    (
      *pair['models'],
      _cell(pair['rate']),
      *(pair[name] for name in ('wins', 'ties', 'losses')),
      _cell(pair['all']),
      _cell(pair['uniform']) if pair['uniform'] else '–',
      pair['prompts'],
      _told(pair),
    )
    for pair in pairs
  ]
  points = [(' / '.join(pair['models']), *pair['points']) for pair in pairs]
  return [
    Note(f'{WINS} {UNIFORM}'),
    Card([Plot('wins', bars(pairs)), Table(header, rows, wide=True)]),
    Card([Table(('of the first', *ratings.SCALE), points, wide=True)], 'All ratings'),
  ]


def bars(pairs: Sequence[Mapping]) -> dict:
  """Figure of the win rate of each pair with its interval, and a line at a half."""
  shown = [p for p in pairs if p['rate']['value'] is not None]
  values = [100 * p['rate']['value'] for p in shown]
  given = [p['rate']['interval'] for p in shown]
  ends = [own and [100 * end for end in own] for own in given]
  drawn = go.Figure()
  drawn.add_bar(
    x=values,
    y=[drawing.plain(' / '.join(p['models'])) for p in shown],
    orientation='h',
    error_x=drawing.errors(values, ends),
    hovertemplate='%{y}: %{x:.1f} %<extra></extra>',
  )
  spec = drawing.figure(
    drawn,
    110 + 28 * len(shown),
    bargap=0.35,
    xaxis={'title': {'text': 'wins of the first, %'}, 'range': [0, 100]},
    yaxis={'autorange': 'reversed', 'type': 'category', 'gridcolor': 'rgba(0,0,0,0)'},
  )
  half = {'x0': 50, 'x1': 50, 'y0': 0, 'y1': 1, 'yref': 'paper', 'type': 'line'}
  line = {'color': 'soft:', 'dash': 'dot', 'width': 1.5}
  spec['layout']['shapes'] = [half | {'line': line}]
  spec['data'][0]['error_x']['color'] = 'ink:'
  return drawing.paint(spec, ['role:0'])


def _parts(pairs, name):
  """Tables of the win rates of each category or rater."""
  header = ('', 'wins %', 'wins', 'ties', 'losses', 'with ties %', 'prompts')
  cards = []
  for pair in pairs:
    rows = [
      (
        key or 'none',
        _cell(own['rate']),
        *(own[n] for n in ('wins', 'ties', 'losses')),
        _cell(own['all']),
        own['prompts'],
      )
      for key, own in pair[name].items()
    ]
    if rows:
      table = Table(header, rows, wide=True)
      cards.append(Card([table], ' against '.join(pair['models'])))
  return [Stack(cards)] if cards else []


def _strengths(found):
  names = list(found['models'])
  values = [own['strength'] for own in found['models'].values()]
  ends = [own['interval'] for own in found['models'].values()]
  drawn = go.Figure()
  drawn.add_scatter(
    x=values,
    y=[drawing.plain(name) for name in names],
    mode='markers',
    error_x=drawing.errors(values, ends),
    hovertemplate='%{y}: %{x:.0f}<extra></extra>',
  )
  spec = drawing.figure(
    drawn,
    110 + 28 * len(names),
    xaxis={'title': {'text': 'strength'}},
    yaxis={'autorange': 'reversed', 'type': 'category'},
  )
  spec['data'][0]['error_x']['color'] = 'ink:'
  rows = [
    (name, Interval(f'{v:.0f}', f'[{low:.0f}, {high:.0f}]'), own['prompts'])
    for (name, own), v, (low, high) in zip(found['models'].items(), values, ends)
  ]
  blocks = [Plot('strengths', drawing.paint(spec, ['role:0']))]
  blocks.append(Table(('model', 'strength', 'prompts'), rows))
  said = [Note(line) for line in _bounds(found)]
  return [Note(STRENGTHS), *said, Card(blocks)]


def _raters(found):
  header = ('rater', 'ratings', 'first preferred %', 'of', 'decided by the order')
  rows = []
  for name, own in found.items():
    both = f'{own["contradicted"]} of {own["in_both_orders"]}'
    both = both if own['in_both_orders'] else '–'
    first = own['first']
    rows.append((name, own['ratings'], _cell(first), first['n'], both))
  return [Note(RATERS), Card([Table(header, rows, wide=True)])]


def _agreement(results):
  found = results['agreement']
  names = list(results['raters'])
  if not found['pairs']:
    return []
  cells = {tuple(pair['raters']): pair for pair in found['pairs']}
  table = {name: [name, *['–'] * len(names)] for name in names}
  for one, other in itertools.permutations(names, 2):
    if pair := cells.get((one, other)) or cells.get((other, one)):
      same = f'({100 * pair["outcome"]["value"]:.0f}% of {pair["n"]})'
      table[one][1 + names.index(other)] = Interval(_number(pair), same)
  alpha = found['alpha']
  words = f'Alpha: {_number(alpha)} of {alpha["n"]} pairs of answers.'
  blocks = [Table(('kappa', *names), list(table.values()), wide=True), Note(words)]
  return [Note(AGREEMENT), Card(blocks)]


def _samples(found):
  """Prompts that open: both answers, and what each rater said of them."""
  every = []
  for one in found:
    points = one['ratings']
    said = [(name, f'{p}: {ratings.SCALE[p - 1]}') for name, p in points.items()]
    first = ' '.join(one['prompt'].split())[:90]
    turns = [
      Turn(text, name, 'assistant')
      for name, text in zip(one['models'], one['responses'])
    ]
    table = Table(('rater', f'{one["models"][0]} is'), said)
    blocks = [Turn(one['prompt'], 'prompt', 'user'), *turns, table]
    shown = ', '.join(map(str, points.values()))
    every.append(Details(f'{shown}: {first}', blocks))
  return [Stack([Card(every)])] if every else []


def _left(found):
  counts = [(reason, found[reason]) for reason in REASONS if found.get(reason)]
  if not counts:
    return []
  named = [(line,) for line in found['named']]
  table, header = Table(('rows left out', 'rows'), counts), ('the first of them',)
  return [Card([table, Table(header, named, sentences=header)])]
