"""The part of a report that compares models on the same questions."""

from collections.abc import Mapping
from collections.abc import Sequence

from llama3_jax.eval import paired
from llama3_jax.report.blocks import Card
from llama3_jax.report.blocks import Interval
from llama3_jax.report.blocks import Note
from llama3_jax.report.blocks import Section
from llama3_jax.report.blocks import Table

NOTE = (
  'Points of exact match that the later model scores above the earlier one on the same '
  'questions, with 95% intervals (bootstrap over questions, within each task). Where 0 '
  'is inside an interval, these questions do not tell the two models apart.'
)


def section(found: Sequence[Mapping]) -> Section:
  """The table of [{'before', 'after', 'tasks': {task or 'all': paired.difference}}]."""
  if not found:
    return Section('Paired differences', [])
  tasks = list(dict.fromkeys(task for one in found for task in one['tasks']))
  rows = [
    (
      f'{one["before"]} → {one["after"]}',
      paired.told(one['tasks']['all']),
      *(_cell(one['tasks'].get(task)) for task in tasks),
    )
    for one in found
  ]
  table = Table(('models', 'all tasks say', *tasks), rows, wide=True)
  blocks = [Note(NOTE), Card([table])]
  return Section('Paired differences', blocks, name='paired')


def _cell(one):
  if one is None:
    return '–'
  low, high = 100 * one['low'], 100 * one['high']
  return Interval(f'{100 * one["difference"]:+.1f}', f'[{low:+.1f}, {high:+.1f}]')


def sentence(one: Mapping) -> str:
  """What a comparison says, in a line."""
  return (
    f'{one["after"]} against {one["before"]}: {paired.sentence(one["tasks"]["all"])}'
  )
