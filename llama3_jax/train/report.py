"""The page of a finished run of training: report.html in its workdir."""

import json
import os
import pathlib
import platform
import shlex
from collections.abc import Mapping
from collections.abc import Sequence

import jax

import llama3_jax
from llama3_jax import show
from llama3_jax import workdir as workdirs
from llama3_jax.base import fields
from llama3_jax.model import llama
from llama3_jax.reliable import goodput
from llama3_jax.report import page
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
from llama3_jax.train import curves
from llama3_jax.train import metrics
from llama3_jax.train import models

NAME = 'report.html'
LISTED = 40  # values of results that are shown
# Seconds of goodput.json, by what a reader calls them.
SPENT = {
  'step_s': 'steps',
  'start_s': 'start: imports, data, weights',
  'compile_s': 'first steps, with compilation',
  'evaluate_s': 'evaluation',
  'save_s': 'saves',
  'replay_s': 'steps that were run twice, to compare',
  'lost_s': 'steps that were undone',
  'down_s': 'not running',
  'other_s': 'other',
}
# Results that have a place of their own in the page.
PLACED = ('parameters', 'tokens', 'eval_loss', 'read', 'dropped', 'goodput', 'margins')
PLACED += ('text',)  # of experiments/own.py, whose own sections show it
PLACED += ('ranking', 'files', 'filtered')  # of experiments/reward.py, likewise
CHATS = ('sft', 'dpo', 'ppo', 'grpo')
QUESTIONS = '--files=qa.jsonl'


def write(
  folder: str | os.PathLike, results: Mapping, sections: Sequence[Section] = ()
) -> None:
  """Writes <folder>/report.html of a run, whole or not at all.

  Args:
    folder: workdir of the run, with config.json and metrics.jsonl.
    results: what its recipe returns, see the recipe; 'read' is a list of dicts with the
      same keys, one for each file or source.
    sections: further sections of the recipe, after the curves.
  """
  page.write(pathlib.Path(folder) / NAME, content(folder, results, sections))


def content(
  folder: str | os.PathLike, results: Mapping, sections: Sequence[Section] = ()
) -> Page:
  """The page that `write` writes."""
  folder = pathlib.Path(folder)
  record = workdirs.read(folder / workdirs.NAME)
  rows, config = metrics.read(folder), record['config']
  spent = goodput.report(folder)
  parts = [
    Section('Training', _training(rows)),
    Section('Held out', _held_out(rows), _HELD),
    *sections,
    Section('What was read', _read(results)),
    Section('Results', _results(results)),
    Section('Time', _time(spent)),
    Section('How to go on', _next(folder, config)),
    Section('Config', [Card([_config(config), *_versions(record)])]),
  ]
  name = config.get('experiment', 'training')
  own = folder.resolve().name
  title = name if own == name else f'{name}: {own}'
  tiles = _tiles(folder, rows, results, spent)
  return Page(title, parts, _lines(config, spent), tiles, links=True)


_HELD = (
  'Of documents or rows that training does not see. Lowest and highest are over all '
  'evaluations.'
)


def _lines(config, spent):
  start = config.get('init_from') or 'random parameters'
  again = f', in {spent["starts"]} starts' if spent.get('starts', 1) > 1 else ''
  return [f'From {start}{again}.']


def _tiles(folder, rows, results, spent):
  """[(value, label)] of what a reader asks first; what is not known is left out."""
  trained = [r for r in rows if 'loss' in r]
  tiles = []
  if count := _parameters(folder, results):
    tiles.append((show.size(count), 'parameters'))
  if trained:
    last = trained[-1]
    tiles.append((f'{last["step"]:,}', 'steps'))
    tiles.append((show.size(last.get('tokens', 0)), 'tokens'))
    tiles.append((f'{last["loss"]:.3g}', 'training loss, last row'))
  measured = [r['eval_loss'] for r in rows if 'eval_loss' in r]
  if measured:
    change = f'{measured[0]:.3g} → {measured[-1]:.3g}'
    tiles.append((change, 'held-out loss, first to last'))
  name, value = workdirs.measured(results)
  if name and name != 'eval_loss':
    tiles.append((f'{value:.3g}', f'{workdirs.MEASURES[name]}, held out'))
  if spent.get('elapsed_s'):
    tiles.append((metrics.clock(spent['elapsed_s']), 'all starts together'))
  if speed := _speed(trained):
    tiles.append((f'{metrics.short(speed)}/s', 'tokens, in steps alone'))
  return tiles


def _parameters(folder, results):
  """Parameters of the final model; None where it is not there."""
  if 'parameters' in results or not models.own(folder):
    return results.get('parameters')
  return llama.count(models.config(folder))


def _speed(rows):
  """Tokens/s over all rows with a rate, None without one."""
  timed = [r for r in rows if 'tokens_per_s' in r and 'seconds' in r]
  seconds = sum(r['seconds'] for r in timed)
  tokens = sum(r['tokens_per_s'] * r['seconds'] for r in timed)
  return tokens / seconds if seconds else None


def _training(rows):
  drawn = {name: curves.draw(name, rows) for name in curves.CURVES}
  cards = {
    name: Card([Plot(name.replace(' ', '-'), spec)], name.capitalize())
    for name, spec in drawn.items()
    if spec
  }
  if not cards:
    return []
  first = [cards.pop('loss')] if 'loss' in cards else []
  return [Stack([*first, Row(list(cards.values()))])]


def _held_out(rows):
  """Table of every held-out measure: first, lowest, highest, last."""
  found = {}
  for row in rows:
    for name, value in row.items():
      measure = name == 'eval_loss' or name.startswith('eval/')
      if measure and isinstance(value, (int, float)):
        found.setdefault(name.removeprefix('eval/'), []).append((row['step'], value))
  if not found:
    return []
  cells = []
  for name, pairs in found.items():
    low, high = (f(pairs, key=lambda pair: pair[1]) for f in (min, max))
    cells.append(
      (
        'held-out loss' if name == 'eval_loss' else name,
        float(pairs[0][1]),
        float(pairs[-1][1]),
        f'{low[1]:.4g} (step {low[0]:,})',
        f'{high[1]:.4g} (step {high[0]:,})',
      )
    )
  cells.sort(key=lambda row: row[0] != 'held-out loss')
  return [Card([Table(('measure', 'first', 'last', 'lowest', 'highest'), cells, True)])]


def _read(results):
  rows = results.get('read') or []
  blocks = []
  if rows:
    cells = [[_cell(name, value) for name, value in row.items()] for row in rows]
    blocks.append(Table(list(rows[0]), cells, True))
  if results.get('dropped'):
    text = f'{results["dropped"]:,} were longer than train.length and dropped.'
    blocks.append(Note(text))
  return [Card(blocks)] if blocks else []


def _cell(name, value):
  if isinstance(value, float):
    return f'{value:.1%}' if name == 'share' else value
  return f'{value:,}' if isinstance(value, int) else str(value)


def _results(results):
  """What the recipe returned beside what the page shows elsewhere."""
  other = [n for n in results if n not in PLACED and not n.startswith('eval/')]
  flat = _flat({name: results[name] for name in other})
  more = len(flat) - LISTED
  blocks = [Table(('result', 'value'), flat[:LISTED])] if flat else []
  blocks += [Note(f'{more} more are in results.json.')] if more > 0 else []
  return [Card(blocks)] if blocks else []


def _flat(value, prefix=''):
  """[(path, text or number)] of the single values in nested dicts."""
  found = []
  for name, inside in value.items():
    if isinstance(inside, Mapping):
      found += _flat(inside, f'{prefix}{name}.')
    elif isinstance(inside, (str, int, float)):
      found.append((prefix + name, inside))
  return found


def _time(spent):
  rows = [
    (name, f'{spent[kind]:.1f} s', f'{spent[kind] / spent["elapsed_s"]:.0%}')
    for kind, name in SPENT.items()
    if spent.get(kind, 0) >= 0.05
  ]
  return [Card([Table(('spent on', 'time', 'share'), rows)])] if rows else []


def _next(folder, config):
  """Commands that use what the run made."""
  name, here = config.get('experiment'), shlex.quote(str(folder))
  beside = lambda suffix: shlex.quote(f'{folder}_{suffix}')

  def command(recipe, suffix, *more):
    words = [f'--config={recipe}', *more]
    words += [f'--workdir={beside(suffix)}'] if suffix else []
    return ' '.join(['python -m experiment', *words])

  begin = f'--init_from={here}'
  asks = {}
  if name == 'reward':
    asks['Rank answers by it'] = command('reject', 'reject', f'--reward_from={here}')
  elif name in CHATS:
    asks['Talk to it'] = command('chat', '', begin)
    asks['Ask it your questions'] = command('evaluate', 'evaluate', begin, QUESTIONS)
  else:
    asks['Let it write'] = command('generate', '', begin, "--prompt='Once upon'")
    asks['Measure it on your text'] = command(
      'evaluate', 'evaluate', begin, '--text=FOLDER'
    )
    asks['Finetune it'] = command('sft', 'sft', begin, '--files=rows.jsonl')
  if name != 'reward':
    target = f'--config.source={here} --config.target={beside("hf")}'
    asks['Give it to others'] = command('convert:run_to_hf', 'convert', target)
  asks['Look at every metric (extra board)'] = f'tensorboard --logdir={here}'
  return [Card([Turn(text, what) for what, text in asks.items()])]


def _config(config):
  rows = []
  for path, value in config.items():
    field = fields.find(path)
    rows.append((path, json.dumps(value), field.text if field else ''))
  table = Table(('field', 'value', 'meaning'), rows, sentences=('value', 'meaning'))
  return Details(f'{len(rows)} fields', [table])


def _versions(record):
  device = jax.devices()[0]
  versions = {'llama3_jax': llama3_jax.__version__, 'Python': platform.python_version()}
  versions |= record.get('versions', {})
  versions['devices'] = f'{jax.device_count()} x {device.device_kind}'
  found = [Details('Versions', [Table(('what', 'version'), list(versions.items()))])]
  if record['made_from']:
    rows = list(record['made_from'].items())
    table = Table(('input', 'fingerprint'), rows, sentences=('fingerprint',))
    found.append(Details('Fingerprints of its inputs', [table]))
  return found
