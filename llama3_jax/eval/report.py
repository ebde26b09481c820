"""The report of a run: the page of its results.json."""

import os
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence

from llama3_jax.eval import figures
from llama3_jax.eval import paired_report
from llama3_jax.report import figures as drawing
from llama3_jax.report import page
from llama3_jax.report.blocks import Best
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

MINUTE, MEGABYTE = 60, 1e6


def write(results: Mapping, path: str | os.PathLike) -> None:
  """Writes the page of a run's results to `path`, whole or not at all."""
  page.write(path, content(results))


def content(results: Mapping) -> Page:
  """The page of a run's results; a part that is absent is left out.

  results: dict (as in results.json) with any of
    'title', 'summary': str.
    'notes': [str], shown below the title (e.g. that real text was replaced).
    'seconds': float; 'memory_bytes': int, peak, of the whole run.
    'stages': [{'name', 'seconds', 'memory_bytes', 'user_s'? and the other fields of
      eval/stages.py's `spent`, 'goodput'?: of reliable/goodput.py,
      'objective'?: 'next token' | 'reward' | 'dpo' (else derived from the name),
      'metrics': [{'step', 'tokens', 'loss', 'lr'?, 'grad_norm'?, 'eval_loss'?}]}], in
      order; tokens from the stage's start.
    'curation': [{'name', 'documents', 'tokens'?}], documents left after each rule.
    'needle': {'lengths': [int], 'depths': [0..1], 'before'?, 'after'?: recall
      `[depths][lengths]`}.
    'reward': {'accuracy', 'n', 'margins': [float], 'real_accuracy'?, 'real_n'?}.
    'best_of_k': [{'k', 'reward', 'ci'?, 'exact'?}].
    'evaluation': {stage: {task: {'score', 'n', 'ci', 'interval'?}}}; a task may
    be 'macro'.
    'paired': [{'before', 'after', 'tasks': {task or 'all': of eval/paired.py}}].
    'dialogs': [{'title'?, 'messages': [{'role', 'content'}]}].
    'checks': [{'name', 'value', 'bar', 'pass': bool}].
  """
  sections = [
    Section('Checks', _checks(results), name='checks'),
    Section('Curation', _curation(results), name='data'),
    Section('Training', training(results), name='training'),
    Section('Needle in a haystack', _needle(results), name='needle'),
    Section('Reward model and rejection sampling', _reward(results), name='reward'),
    Section('Evaluation', evaluation(results), name='evaluation'),
    paired_report.section(results.get('paired', ())),
    Section('Sample dialogs', dialogs(results), name='dialogs'),
    Section('Time and memory', cost(results), name='cost'),
  ]
  title = results.get('title', 'llama3_jax report')
  lines = [t for t in (results.get('summary', ''), *results.get('notes', ())) if t]
  return Page(title, sections, lines, _headline(results), links=True)


def _figure(name: str, spec: dict | None, title: str) -> list:
  """A card with a figure; [] without a figure."""
  return [Card([Plot(name, spec)], title)] if spec else []


def _time(seconds: float) -> str:
  if seconds < 100:
    return f'{seconds:.0f} s'
  return f'{seconds / MINUTE:.1f} min'


def _held_out(stages: Sequence[Mapping]) -> list[float]:
  return [
    metric['eval_loss']
    for stage in stages
    if not figures.is_preference(stage) and 'sft' not in stage['name']
    for metric in stage.get('metrics', ())
    if metric.get('eval_loss') is not None
  ]


def _macro(tasks: Mapping) -> float:
  """Macro average: the mean of the tasks' scores."""
  scores = [task['score'] for name, task in tasks.items() if name != 'macro']
  return sum(scores) / max(len(scores), 1)


def _headline(results: Mapping) -> list[tuple[str, str]]:
  tiles = []
  if losses := _held_out(results.get('stages', ())):
    label = 'held-out loss of the base model, first to last'
    tiles.append((f'{losses[0]:.2f} → {losses[-1]:.2f}', label))
  if after := results.get('needle', {}).get('after'):
    cells = [cell for row in after for cell in row]
    tiles.append((f'{sum(cells) / len(cells):.0%}', 'needle recall, all cells'))
  reward = results.get('reward', {})
  if 'accuracy' in reward:
    label = f'reward model accuracy, {reward.get("n", 0):,} pairs'
    tiles.append((f'{reward["accuracy"]:.1%}', label))
  if evaluation := results.get('evaluation'):
    name = list(evaluation)[-1]
    label = f'exact match after {name}, macro average'
    tiles.append((f'{_macro(evaluation[name]):.1%}', label))
  if checks := results.get('checks'):
    passed = sum(bool(check['pass']) for check in checks)
    tiles.append((f'{passed} of {len(checks)}', 'checks pass'))
  if results.get('seconds') is not None:
    tiles.append((_time(results['seconds']), 'whole run'))
  if results.get('memory_bytes') is not None:
    tiles.append((f'{results["memory_bytes"] / 1e9:.2f} GB', 'peak memory'))
  return tiles


def _checks(results: Mapping) -> list:
  rows = [
    (check['name'], check['value'], check['bar'], bool(check['pass']))
    for check in results.get('checks', ())
  ]
  header = ('what must hold', 'measured', 'bar', '')
  return [Card([Table(header, rows, sentences=header[:1])])] if rows else []


def _curation(results: Mapping) -> list:
  steps = results.get('curation', ())
  if not steps:
    return []
  names = [step['name'] for step in steps]
  counts = [step['documents'] for step in steps]
  return [
    Note('Documents left after each rule, in the order in which the rules run.'),
    *_figure('funnel', drawing.funnel(names, counts), ''),
  ]


def training(results: Mapping) -> list:
  """Blocks of the losses and learning rates of all stages."""
  stages = results.get('stages', ())
  loss = _figure('loss', figures.loss(stages), 'Next-token loss')
  lower = _figure('preference', figures.preference_loss(stages), 'Preference losses')
  paired = bool(lower)
  lower += _figure('rate', figures.rate(stages), 'Learning rate')
  if not loss + lower:
    return []
  note = (
    'Stages run from left to right; a dotted line marks where one ends. Solid: '
    'training loss. Open circles: loss on held-out documents.'
  )
  return [Note(note), Stack([*loss, *([Row(lower)] if paired else lower)])]


def _needle(results: Mapping) -> list:
  needle = results.get('needle')
  if not needle:
    return []
  draw = lambda when: figures.needle(needle[when], needle['lengths'], needle['depths'])
  name = lambda when: f'{when.capitalize()} the long-context stage'
  cards = []
  for when in ('before', 'after'):
    if needle.get(when):
      cards += _figure(f'needle_{when}', draw(when), name(when))
  note = (
    'Share of answers that repeat a fact placed at a depth of a text of a length '
    '(depth 0% = the beginning).'
  )
  return [Note(note), Row(cards)]


def _reward(results: Mapping) -> list:
  reward = results.get('reward', {})
  margins = figures.margins(reward.get('margins', ()))
  best = figures.best_of_k(results.get('best_of_k', ()))
  cards = _figure('margins', margins, 'Reward margins on held-out pairs')
  cards += _figure('best', best, 'Best of K')
  lines = []
  if 'accuracy' in reward:
    lines.append(
      f'Accuracy {reward["accuracy"]:.1%} on {reward.get("n", 0):,} held-out '
      'pairs of the tasks.'
    )
  if reward.get('real_accuracy') is not None:
    lines.append(
      f'On {reward.get("real_n", 0):,} pairs written by people: '
      f'{reward["real_accuracy"]:.1%}.'
    )
  notes = [Note(' '.join(lines))] if lines else []
  return [*notes, Row(cards)] if cards else notes


def evaluation(results: Mapping) -> list:
  """Blocks of the table of models and tasks, a row a model."""
  evaluation = results.get('evaluation', {})
  if not evaluation:
    return []
  tasks, cell = scores(evaluation)
  rows = [
    (stage, f'{_macro(found):.1%}', *(cell(stage, task) for task in tasks))
    for stage, found in evaluation.items()
  ]
  note = (
    'Exact match in %, with 95% confidence intervals 1.96·√(S(1−S)/N), in brackets '
    'those that also hold near 0 and 100%. '
    'Shaded: best of a task. Held-out examples; greedy decoding.'
  )
  table = Table(('model', 'macro average', *tasks), rows, wide=True)
  return [Note(note), Card([table])]


def by_task(evaluation: Mapping[str, Mapping]) -> list:
  """As `evaluation`, a row a task and a column a model: for many tasks."""
  if not evaluation:
    return []
  tasks, cell = scores(evaluation)
  asked = lambda task: max(
    s[task].get('n', 0) for s in evaluation.values() if task in s
  )
  rows = [(t, f'{asked(t):,}', *(cell(m, t) for m in evaluation)) for t in tasks]
  averages = [f'{_macro(found):.1%}' for found in evaluation.values()]
  rows.append(('macro average', '', *averages))
  note = (
    'Scores in %, with 95% confidence intervals: of the paper after ±, in brackets '
    'those that also hold near 0 and 100%. Shaded: best of a task.'
  )
  table = Table(('task', 'questions', *evaluation), rows, wide=True)
  return [Note(note), Card([table])]


def scores(evaluation: Mapping[str, Mapping]) -> tuple[list[str], Callable]:
  """The tasks of {model: {task: score}}, and the cell of a model and a task."""
  named = (task for found in evaluation.values() for task in found)
  tasks = [task for task in dict.fromkeys(named) if task != 'macro']
  best = {
    task: max(found[task]['score'] for found in evaluation.values() if task in found)
    for task in tasks
  }

  def cell(model, task):
    found = evaluation[model]
    if task not in found:
      return '–'
    score, ci = found[task]['score'], found[task].get('ci')
    text = f'{100 * score:.1f}'
    if ci is not None:
      ends = [f'{100 * end:.1f}' for end in found[task].get('interval', ())]
      range_ = f' [{", ".join(ends)}]' if ends else ''
      text = Interval(text, f'±{100 * ci:.1f}{range_}')
    several = len(evaluation) > 1
    return Best(text) if several and score == best[task] and score > 0 else text

  return tasks, cell


def dialogs(results: Mapping) -> list:
  """Cards of the sample dialogs."""
  turn = lambda message: Turn(message['content'], message['role'], message['role'])
  cards = [
    Card([turn(message) for message in dialog['messages']], dialog.get('title', ''))
    for dialog in results.get('dialogs', ())
  ]
  return [Row(cards)] if cards else []


def cost(results: Mapping) -> list:
  """Blocks of time, memory and goodput of the stages."""
  stages = results.get('stages', ())
  seconds = figures.cost(stages, 'seconds', MINUTE, 'minutes')
  memory = figures.cost(stages, 'memory_bytes', MEGABYTE, 'MB')
  cards = _figure('seconds', seconds, 'Time')
  cards += _figure('memory', memory, 'Peak memory')
  blocks = [Row(cards)] if cards else []
  return blocks + _processor(stages) + _goodput(stages)


def _processor(stages: Sequence[Mapping]) -> list:
  """What the stages took of the processor, where that was measured."""
  rows = [
    (
      stage['name'],
      *(f'{stage[k]:.1f} s' for k in ('user_s', 'system_s', 'compile_s')),
      *(f'{stage[k]:,}' for k in ('compiled', 'recalled')),
    )
    for stage in stages
    if 'user_s' in stage
  ]
  if not rows:
    return []
  total = [sum(s.get(k, 0) for s in stages) / MINUTE for k in ('user_s', 'system_s')]
  note = Note(
    f'CPU-minutes of all stages: {total[0]:.1f} and {total[1]:.1f} of system.'
  )
  header = (
    'recipe stage',
    'CPU',
    'system',
    'in the compiler',
    'compiled',
    'from the cache',
  )
  return [Card([Table(header, rows, wide=True), note], 'Processor')]


# Labels of the seconds of goodput.json; columns that are about 0 are left out.
SPENT = {
  'step_s': 'steps',
  'start_s': 'start',
  'compile_s': 'compilation',
  'evaluate_s': 'evaluation',
  'save_s': 'saves',
  'replay_s': 'replays',
  'lost_s': 'undone steps',
  'down_s': 'down',
  'other_s': 'other',
}


def _goodput(stages: Sequence[Mapping]) -> list:
  pairs = [(stage['name'], stage['goodput']) for stage in stages if 'goodput' in stage]
  kinds = [k for k in SPENT if any(spent.get(k, 0) >= 0.05 for _, spent in pairs)]
  rows = [
    (
      name,
      f'{spent["goodput"]:.0%}',
      spent['starts'],
      *(f'{spent.get(k, 0):.1f} s' for k in kinds),
    )
    for name, spent in pairs
  ]
  if not rows:
    return []
  header = ('recipe stage', 'goodput', 'starts', *map(SPENT.get, kinds))
  note = 'Goodput: seconds of steps that count, over all since the first start.'
  table = Table(header, rows, wide=True)
  return [Card([table, Note(note)], 'Effective training time')]
