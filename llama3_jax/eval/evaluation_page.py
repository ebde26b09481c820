"""The page of an evaluation: scores beside those of other runs, and the answers (5)."""

import pathlib
import random
from collections.abc import Mapping
from collections.abc import Sequence

from llama3_jax.eval import figures
from llama3_jax.eval import paired
from llama3_jax.eval import paired_report
from llama3_jax.eval import report
from llama3_jax.eval import table
from llama3_jax.report import page as pages
from llama3_jax.report.blocks import Card
from llama3_jax.report.blocks import Details
from llama3_jax.report.blocks import Note
from llama3_jax.report.blocks import Page
from llama3_jax.report.blocks import Plot
from llama3_jax.report.blocks import Row
from llama3_jax.report.blocks import Section
from llama3_jax.report.blocks import Stack
from llama3_jax.report.blocks import Table
from llama3_jax.report.blocks import Turn

SHOWN = 5  # answers of a kind and task
LONG = 2000  # characters of a text


def write(folder: pathlib.Path, results: Mapping) -> None:
  """Writes <folder>/report.html of a finished run of experiments/evaluate.py."""
  pages.write(folder / 'report.html', page(results, answers(folder)))


def answers(folder: pathlib.Path) -> dict[str, list[dict]]:
  """{task: rows of a run's answers}; {} of one that asked nothing."""
  return paired.read(folder) if (folder / paired.FILE).exists() else {}


def page(results: Mapping, said: Mapping[str, Sequence[Mapping]]) -> Page:
  """The report of an evaluation's results, and of its answers."""
  others = results.get('against', ())
  scores = {one['name']: table.shown(one['scores']) for one in others}
  scores |= {'this model': table.shown(results['tasks'])} if said else {}
  differences = [
    {'before': one['name'], 'after': 'this model', 'tasks': table.shown(one['paired'])}
    for one in others
  ]
  sections = [
    Section('Scores', report.by_task(scores), name='scores'),
    Section('Further scores', _further(results['tasks']), name='further'),
    Section('What was found, by length and depth', _heat(results), name='heat'),
    paired_report.section(differences),
    Section('Losses', _losses(results), name='losses'),
  ]
  for i, one in enumerate(others):
    changed = _changed(answers(pathlib.Path(one['folder'])), said)
    title = f'Answers that changed from {one["name"]}'
    sections.append(Section(title, changed, name=f'changed-{i}'))
  sections.append(Section('Answers', _answers(said), name='answers'))
  return Page('Evaluation', sections, links=True)


def _further(tasks):
  rows = [
    (name, further, 100 * value)
    for name, r in table.shown(tasks).items()
    for further, value in r.get('summary', {}).items()
  ]
  return [Card([Table(('task', 'score', '%'), rows)])] if rows else []


def _heat(results):
  """Heat maps of the tasks that have cells, and those of other runs beside them."""
  runs = {one['name']: one['scores'] for one in results.get('against', ())}
  runs |= {'this model': results['tasks']}
  rows = []
  for task in table.shown(results['tasks']):
    cards = []
    for i, (name, tasks) in enumerate(runs.items()):
      if grid := table.shown(tasks).get(task, {}).get('grid'):
        given = grid['recall'], grid['lengths'], grid['depths'], 'characters'
        plot = Plot(f'heat_{task}_{i}', figures.needle(*given))
        cards.append(Card([plot], f'{task}: {name}'))
    rows += [Row(cards)] if cards else []
  note = 'Share found of what stands at a depth (0%: the beginning) of a text.'
  return [Note(note), *rows] if rows else []


def _losses(results):
  rows = list(results.get('eval_loss', {}).items())
  if text := results.get('text'):
    rows.append(('your text', text['loss']))
  return [Card([Table(('held-out text', 'nats a token'), rows)])] if rows else []


def _changed(before, after):
  """What got better and what got worse on the same questions, by task."""
  groups = {}
  before = table.shown(before)
  for task, rows in table.shown(after).items():
    for old, new in zip(before[task], rows, strict=True):  # paired.same compared them
      if old['score'] != new['score']:
        kind = 'better' if new['score'] > old['score'] else 'worse'
        groups.setdefault((task, kind), []).append((old, new))
  cards = []
  for (task, kind), found in sorted(groups.items()):
    shown = [
      _one(new, [('before', old['response']), ('after', new['response'])])
      for old, new in found[:SHOWN]
    ]
    cards.append(Card(shown, f'{task}: {len(found)} {kind}'))
  return [Stack(cards)] if cards else []


def _answers(said):
  """Of each task the worst answers, and some at random."""
  cards = []
  for task, rows in table.shown(said).items():
    wrong = (row for row in rows if row['score'] < 1)
    worst = sorted(wrong, key=lambda row: row['score'])[:SHOWN]
    drawn = random.Random(task).sample(rows, min(SHOWN, len(rows)))
    blocks = []
    for kind, found in (('The worst', worst), ('At random', drawn)):
      blocks += [Note(kind)] if found else []
      blocks += [_one(row, [('answer', row['response'])]) for row in found]
    cards.append(Card(blocks, task))
  return [Stack(cards)] if cards else []


def _one(row, said):
  """A question that opens, with its answers and the right one."""
  turns = [Turn(row['prompt'][:LONG], 'question', 'user')]
  turns += [Turn(text[:LONG], head, 'assistant') for head, text in said]
  if row['answer']:
    turns.append(Turn(row['answer'][:LONG], 'right'))
  first = ' '.join(row['question'].split())[:90]
  return Details(f'{row["score"]:.2g}: {first}', turns)
