"""The report of a run: one self-contained page with figures and tables."""

import html
import os
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence

from llama3_jax import page
from llama3_jax.base import files
from llama3_jax.eval.report import figures

MINUTE, MEGABYTE = 60, 1e6


def write(results: Mapping, path: str | os.PathLike) -> None:
  """Writes `build(results)` to `path`, atomically."""
  files.write_text(path, build(results))


def build(results: Mapping) -> str:
  """Returns the page of a run's results; a part that is absent is left out.

  results: dict (as in results.json) with any of
    'title', 'summary': str.
    'notes': [str], said under the title (e.g. generated text stood in for real text).
    'seconds': float; 'memory_bytes': int, peak, of the whole run.
    'stages': [{'name', 'seconds', 'memory_bytes', 'goodput'?: of reliable/goodput.py,
      'objective'?: 'next token' |
      'reward' | 'dpo' (else told from the name), 'metrics': [{'step', 'tokens', 'loss',
      'lr'?, 'grad_norm'?, 'eval_loss'?}]}], in order; tokens from the stage's start.
    'curation': [{'name', 'documents', 'tokens'?}], documents left after each rule.
    'needle': {'lengths': [int], 'depths': [0..1], 'before'?, 'after'?: recall
      [depths][lengths]}.
    'reward': {'accuracy', 'n', 'margins': [float], 'real_accuracy'?, 'real_n'?}.
    'best_of_k': [{'k', 'reward', 'ci'?, 'exact'?}].
    'evaluation': {stage: {task: {'score', 'n', 'ci'}}}; 'macro' may be a task.
    'dialogs': [{'title'?, 'messages': [{'role', 'content'}]}].
    'checks': [{'name', 'value', 'bar', 'pass': bool}].
  """
  drawn: dict[str, dict] = {}

  def plot(name: str, spec: dict | None) -> str:
    if spec is None:
      return ''
    drawn[name] = spec
    return page.place(name, spec)

  parts = [
    ('checks', 'Checks', _checks(results)),
    ('data', 'Curation', _curation(results, plot)),
    ('training', 'Training', _training(results, plot)),
    ('needle', 'Needle in a haystack', _needle(results, plot)),
    ('reward', 'Reward model and rejection sampling', _reward(results, plot)),
    ('evaluation', 'Evaluation', _evaluation(results)),
    ('dialogs', 'Sample dialogs', _dialogs(results)),
    ('cost', 'Time and memory', _cost(results, plot)),
  ]
  parts = [part for part in parts if part[2]]
  links = ''.join(f'<a href="#{name}">{title}</a>' for name, title, _ in parts)
  title = results.get('title', 'llama3_jax report')
  body = [
    f'<header><h1>{html.escape(title)}</h1>',
    *(
      f'<p>{html.escape(text)}</p>'
      for text in [results.get('summary', ''), *results.get('notes', ())]
      if text
    ),
    f'<nav>{links}</nav></header>',
    _headline(results),
    *(
      f'<section id="{name}"><h2>{head}</h2>{content}</section>'
      for name, head, content in parts
    ),
    '<footer>Made by llama3_jax; every figure is computed from results.json.</footer>',
  ]
  return page.document(title, ''.join(body), drawn)


def _note(text: str) -> str:
  return f'<p class="note">{text}</p>'


def _card(content: str, title: str = '') -> str:
  head = f'<h3>{html.escape(title)}</h3>' if title else ''
  return f'<div class="card">{head}{content}</div>' if content else ''


def _time(seconds: float) -> str:
  if seconds < 100:
    return f'{seconds:.0f} s'
  return f'{seconds / MINUTE:.1f} min'


def _value(value) -> str:
  if isinstance(value, bool) or not isinstance(value, float):
    return html.escape(str(value))
  return f'{value:.4g}'


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


def _headline(results: Mapping) -> str:
  tiles = []
  losses = _held_out(results.get('stages', ()))
  if losses:
    tiles.append(
      (
        f'{losses[0]:.2f} → {losses[-1]:.2f}',
        'held-out loss of the base model, first to last',
      )
    )
  if after := results.get('needle', {}).get('after'):
    cells = [cell for row in after for cell in row]
    tiles.append((f'{sum(cells) / len(cells):.0%}', 'needle recall, all cells'))
  if 'accuracy' in results.get('reward', {}):
    reward = results['reward']
    tiles.append(
      (
        f'{reward["accuracy"]:.1%}',
        f'reward model accuracy, {reward.get("n", 0):,} pairs',
      )
    )
  if evaluation := results.get('evaluation'):
    name = list(evaluation)[-1]
    tiles.append(
      (
        f'{_macro(evaluation[name]):.1%}',
        f'exact match after {html.escape(name)}, macro average',
      )
    )
  if checks := results.get('checks'):
    passed = sum(bool(check['pass']) for check in checks)
    tiles.append((f'{passed} of {len(checks)}', 'checks pass'))
  if results.get('seconds') is not None:
    tiles.append((_time(results['seconds']), 'whole run'))
  if results.get('memory_bytes') is not None:
    tiles.append((f'{results["memory_bytes"] / 1e9:.2f} GB', 'peak memory'))
  cells = ''.join(
    f'<div class="card tile"><b>{value}</b><span>{label}</span></div>'
    for value, label in tiles
  )
  return f'<div class="tiles">{cells}</div>' if tiles else ''


def _checks(results: Mapping) -> str:
  rows = ''.join(
    f'<tr><td>{html.escape(check["name"])}</td><td>{_value(check["value"])}</td>'
    f'<td>{_value(check["bar"])}</td><td>'
    + (
      '<span class="pass">✓<span> pass</span></span>'
      if check['pass']
      else '<span class="fail">✗<span> fail</span></span>'
    )
    + '</td></tr>'
    for check in results.get('checks', ())
  )
  if not rows:
    return ''
  return _card(
    '<div class="scroll"><table class="checks"><thead><tr><th>what must hold</th>'
    f'<th>measured</th><th>bar</th><th></th></tr></thead><tbody>{rows}</tbody></table>'
    '</div>'
  )


def _curation(results: Mapping, plot: Callable) -> str:
  steps = results.get('curation', ())
  if not steps:
    return ''
  note = 'Documents left after each rule, in the order in which the rules run.'
  names = [step['name'] for step in steps]
  counts = [step['documents'] for step in steps]
  return _note(note) + _card(plot('funnel', page.funnel(names, counts)))


def _training(results: Mapping, plot: Callable) -> str:
  stages = results.get('stages', ())
  cards = [
    _card(plot('loss', figures.loss(stages)), 'Next-token loss'),
    _card(plot('preference', figures.preference_loss(stages)), 'Preference losses'),
    _card(plot('rate', figures.rate(stages)), 'Learning rate'),
  ]
  if not any(cards):
    return ''
  note = (
    'Stages run from left to right; a dotted line marks where one ends. Solid: '
    'training loss. Open circles: loss on held-out documents.'
  )
  lower = f'<div class="pair">{cards[1]}{cards[2]}</div>' if cards[1] else cards[2]
  return _note(note) + f'<div class="stack">{cards[0]}{lower}</div>'


def _needle(results: Mapping, plot: Callable) -> str:
  needle = results.get('needle')
  if not needle:
    return ''
  cards = ''.join(
    _card(
      plot(
        f'needle_{when}',
        figures.needle(needle[when], needle['lengths'], needle['depths']),
      ),
      f'{when.capitalize()} the long-context stage',
    )
    for when in ('before', 'after')
    if needle.get(when)
  )
  note = (
    'Share of answers that repeat a fact placed at a depth of a text of a length '
    '(depth 0% = the beginning).'
  )
  return _note(note) + f'<div class="pair">{cards}</div>'


def _reward(results: Mapping, plot: Callable) -> str:
  reward = results.get('reward', {})
  cards = [
    _card(
      plot('margins', figures.margins(reward.get('margins', ()))),
      'Reward margins on held-out pairs',
    ),
    _card(plot('best', figures.best_of_k(results.get('best_of_k', ()))), 'Best of K'),
  ]
  said = []
  if 'accuracy' in reward:
    said.append(
      f'Accuracy {reward["accuracy"]:.1%} on {reward.get("n", 0):,} held-out '
      'pairs of the tasks.'
    )
  if reward.get('real_accuracy') is not None:
    said.append(
      f'On {reward.get("real_n", 0):,} pairs written by people: '
      f'{reward["real_accuracy"]:.1%}.'
    )
  if not any(cards) and not said:
    return ''
  return _note(' '.join(said)) + f'<div class="pair">{"".join(cards)}</div>'


def _evaluation(results: Mapping) -> str:
  evaluation = results.get('evaluation', {})
  if not evaluation:
    return ''
  tasks = list(
    dict.fromkeys(
      task for scores in evaluation.values() for task in scores if task != 'macro'
    )
  )
  best = {
    task: max(scores[task]['score'] for scores in evaluation.values() if task in scores)
    for task in tasks
  }
  rows = []
  for stage, scores in evaluation.items():
    cells = [f'<td><b>{_macro(scores):.1%}</b></td>']
    for task in tasks:
      if task not in scores:
        cells.append('<td>–</td>')
        continue
      score, ci = scores[task]['score'], scores[task].get('ci')
      mark = ' class="best"' if score == best[task] and score > 0 else ''
      interval = '' if ci is None else f' <small>±{100 * ci:.1f}</small>'
      cells.append(f'<td{mark}>{100 * score:.1f}{interval}</td>')
    rows.append(f'<tr><th>{html.escape(stage)}</th>{"".join(cells)}</tr>')
  head = ''.join(f'<th>{html.escape(task)}</th>' for task in tasks)
  note = (
    'Exact match in %, with 95% confidence intervals 1.96·√(S(1−S)/N). '
    'Shaded: best of a task. Held-out examples; greedy decoding.'
  )
  return _note(note) + _card(
    '<div class="scroll"><table class="wide"><thead><tr><th>stage</th>'
    f'<th>macro average</th>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    '</div>'
  )


def _dialogs(results: Mapping) -> str:
  cards = []
  for dialog in results.get('dialogs', ()):
    turns = ''.join(
      f'<div class="turn {html.escape(message["role"])}">'
      f'<i>{html.escape(message["role"])}</i>{html.escape(message["content"])}</div>'
      for message in dialog['messages']
    )
    cards.append(_card(turns, dialog.get('title', '')))
  return f'<div class="dialogs">{"".join(cards)}</div>' if cards else ''


def _cost(results: Mapping, plot: Callable) -> str:
  stages = results.get('stages', ())
  cards = [
    _card(plot('seconds', figures.cost(stages, 'seconds', MINUTE, 'minutes')), 'Time'),
    _card(
      plot('memory', figures.cost(stages, 'memory_bytes', MEGABYTE, 'MB')),
      'Peak memory',
    ),
  ]
  pair = f'<div class="pair">{"".join(cards)}</div>' if any(cards) else ''
  return pair + _card(_goodput(stages), 'Effective training time')


# What the seconds of goodput.json are called here; the rest is left out where it is 0.
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


def _goodput(stages: Sequence[Mapping]) -> str:
  shown = [(stage['name'], stage['goodput']) for stage in stages if 'goodput' in stage]
  kinds = [k for k in SPENT if any(found.get(k, 0) >= 0.05 for _, found in shown)]
  rows = ''.join(
    f'<tr><td>{html.escape(name)}</td><td>{found["goodput"]:.0%}</td>'
    f'<td>{found["starts"]}</td>'
    + ''.join(f'<td>{found.get(k, 0):.1f} s</td>' for k in kinds)
    + '</tr>'
    for name, found in shown
  )
  if not rows:
    return ''
  head = ''.join(f'<th>{name}</th>' for name in map(SPENT.get, kinds))
  return (
    '<div class="scroll"><table class="wide"><thead><tr><th>stage</th>'
    '<th>goodput</th><th>starts</th>'
    f'{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    + _note('Goodput: seconds of steps that count, over all since the first start.')
  )
