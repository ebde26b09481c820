"""The page of rounds of post-training."""

import os
from collections.abc import Mapping

from llama3_jax.eval import figures as curves
from llama3_jax.eval import paired_report
from llama3_jax.eval import report
from llama3_jax.eval import summary
from llama3_jax.report import page
from llama3_jax.report.blocks import Card
from llama3_jax.report.blocks import Interval
from llama3_jax.report.blocks import Note
from llama3_jax.report.blocks import Page
from llama3_jax.report.blocks import Plot
from llama3_jax.report.blocks import Row
from llama3_jax.report.blocks import Section
from llama3_jax.report.blocks import Stack
from llama3_jax.report.blocks import Table
from llama3_jax.report.blocks import Turn


def write(results: Mapping, path: str | os.PathLike) -> None:
  """Writes the page of the results of eval/rounds.py, whole or not at all."""
  page.write(path, content(results))


def content(results: Mapping) -> Page:
  """The page: what changed, by whom it was judged, and the dialogs themselves."""
  found = results['figures']
  stages = [s | _cost(results['costs'][s['name']]) for s in found['stages']]
  whole = {'stages': stages, 'evaluation': found['evaluation']}
  sections = [
    Section('Evaluation', report.evaluation(whole), name='evaluation'),
    paired_report.section(found['paired']),
    Section('Judges', _judges(found), name='judges'),
    Section('Reward models on pairs of people', _people(found), name='people'),
    Section('Rejection sampling', _sampling(found), name='sampling'),
    Section('Training', report.training(whole), name='training'),
    Section('The same questions before and after', _dialogs(found), name='dialogs'),
    Section('Time and memory', report.cost(whole), name='cost'),
  ]
  tiles = [
    (f'{results["seconds"] / 60:.0f} min', 'whole run'),
    (f'{results["memory_bytes"] / 1e9:.2f} GB', 'peak memory'),
  ]
  title = 'Rounds of post-training'
  return Page(title, sections, results['findings'][:1], tiles, links=True)


def _cost(cost):
  return {k: cost[k] for k in summary.COSTS if k in cost}


def _share(value, interval):
  return Interval(f'{value:.1%}', '[{:.1%}, {:.1%}]'.format(*interval))


def _judges(found):
  header = (
    'judge',
    'last model better',
    'of',
    'no verdict',
    'agrees with people',
    'of',
  )
  rows = []
  for name, won in found['wins'].items():
    known = found['judges'][name]
    shown = _share(won['share'], won['interval']), won['judged'], won['skipped']
    people = _share(known['accuracy'], known['interval']), known['judged']
    rows.append((name, *shown, *people))
  note = (
    'The first and the last model answer the same held-out prompts of people, and a '
    'judge that does not know which is which says whose answer is better (Wilson '
    'intervals). The reward model has chosen the answers that the last model was '
    'trained on, so its share is too high; how often a judge agrees with people on '
    'their own held-out pairs says what it is worth.'
  )
  return [Note(note), Card([Table(header, rows, wide=True)])] if rows else []


def _people(found):
  sets = list(dict.fromkeys(s for r in found['people'].values() for s in r))
  cell = lambda part: _share(part['accuracy'], part['interval'])
  rows = [
    (f'round {number}', *(cell(r[s]) if s in r else '–' for s in sets))
    for number, r in found['people'].items()
  ]
  counts = next(iter(found['people'].values()), {})
  header = (
    'reward model',
    *(f'{s}, {counts[s]["n"]} pairs' for s in sets if s in counts),
  )
  return [Card([Table(header, rows, wide=True)])] if rows else []


def _sampling(found):
  names = ('prompts', 'answers', 'kept', 'annotated')
  rows = [
    (f'round {number}', *(r[n] for n in names), f'{r["cut"]:.0%}')
    for number, r in found['answers'].items()
  ]
  table = Table(('', *names, 'cut off'), rows, wide=True)
  blocks = [Card([table])]
  if figure := curves.best_of_k(found['best_of_k']):
    blocks.append(Card([Plot('best', figure)], 'Best of K, last round'))
  return [Stack(blocks)]


def _dialogs(found):
  heads = ('question', 'before', 'after')
  cards = [
    Card(
      [
        Turn(turn['content'], head, turn['role'])
        for head, turn in zip(heads, one['turns'], strict=True)
      ],
      one['title'],
    )
    for one in found['dialogs']
  ]
  return [Row(cards)] if cards else []
