"""The page of a run of rejection sampling: what K answers are worth, and some."""

import pathlib
from collections.abc import Mapping

import plotly.graph_objects as go

from llama3_jax.base import jsonl
from llama3_jax.report import figures
from llama3_jax.report import page as pages
from llama3_jax.report.blocks import Card
from llama3_jax.report.blocks import Note
from llama3_jax.report.blocks import Page
from llama3_jax.report.blocks import Plot
from llama3_jax.report.blocks import Section
from llama3_jax.report.blocks import Table

SHOWN = 8  # prompts with their best and worst answer
LONG = 400  # characters of a text that is shown
WAYS = {
  'reward': 'the reward',
  'minimum': 'the lower of two rewards',
  'length': 'the reward less its part in the length',
  'votes': 'the reward and the votes of equal answers',
}


def write(folder: pathlib.Path, results: Mapping) -> None:
  """Writes report.html of a finished run."""
  pages.write(folder / 'report.html', page(results, shown(folder)))


def shown(folder: pathlib.Path) -> list[tuple[str, str, str, str, str]]:
  """(prompt, kept answer, those of the highest and the lowest reward, these rewards) of
  the first prompts that have any."""
  rows, kept = [], jsonl.read(folder / 'sft.jsonl', '--workdir', empty=True)
  taken = lambda: next((row['messages'] for _, row in kept), ())
  dialog = taken()
  for _, row in jsonl.read(folder / 'candidates.jsonl', '--workdir'):
    scored = [
      (r, m['content'])
      for r, m in zip(row['rewards'], row['responses'])
      if r is not None
    ]
    if scored:
      answer = 'none: no answer is right'
      if list(dialog[:-1]) == row['prompt']:
        answer, dialog = dialog[-1]['content'], taken()
      (low, worst), (high, best) = min(scored), max(scored)
      texts = (row['prompt'][-1]['content'], answer, best, worst)
      rows.append((*(t[:LONG] for t in texts), f'{high:.2f}, {low:.2f}'))
    if len(rows) == SHOWN:
      break
  return rows


def page(results: Mapping, answers: list[tuple]) -> Page:
  """The report: curves for each way to choose, where they are highest, some answers."""
  tiles = [
    (f'{results["prompts"]:,}', 'prompts'),
    (f'{results["answers"]:,}', 'answers'),
    (f'{results["kept"]:,}', 'kept'),
    (f'{results["cut"]:.1%}', 'cut off or in another language'),
  ]
  values = [n for n in results['best_of_k'][0] if n != 'k' and not n.endswith('ci')]
  plots = [
    Card(
      [Plot(f'best_{name}', curves(results['choices'], name))], f'{name} of the best'
    )
    for name in values
  ]
  rows = [
    (WAYS[how], name, f'{k}', *_at(results['choices'][how], name, k))
    for how, peaks in results['peaks'].items()
    for name, k in peaks.items()
  ]
  sections = [Section('Best of K', plots)]
  if rows:
    text = (
      'A value that is highest before the largest K, while the reward goes on rising, '
      'is over-optimised: the reward model is exploited.'
    )
    header = ('chosen by', 'value', 'highest at K', 'there', 'at 1', 'at the largest K')
    sections.append(Section('Over-optimisation', [Card([Table(header, rows)])], text))
  header = ('prompt', 'kept', 'highest reward', 'lowest', 'rewards')
  table = Table(header, answers, sentences=header[:4])
  sections.append(Section('Answers', [Card([table]) if answers else Note('none')]))
  return Page('Rejection sampling', sections, tiles=tiles)


def _at(points, name, k):
  """(at k, at 1, at the largest k), each with its interval."""
  ci = lambda p: p.get(f'{name}_ci', 0.0)
  at = next(p for p in points if p['k'] == k)
  return [f'{p[name]:.4g} ± {ci(p):.2g}' for p in (at, points[0], points[-1])]


def curves(choices: Mapping[str, list], name: str) -> dict:
  """Figure of a value of the best of k, for each way to choose."""
  drawn = go.Figure()
  for (how, points), dash in zip(choices.items(), ('solid', 'dash', 'dot', 'dashdot')):
    x, y = [p['k'] for p in points], [p[name] for p in points]
    error = [p['ci' if name == 'reward' else f'{name}_ci'] for p in points]
    bars = {'type': 'data', 'array': error, 'thickness': 1}
    drawn.add_scatter(x=x, y=y, name=WAYS[how], line_dash=dash, error_y=bars)
  axis = {'title': {'text': 'K'}, 'type': 'log', 'dtick': 0.30103}
  spec = figures.figure(drawn, 300, xaxis=axis, yaxis={'title': {'text': name}})
  return figures.paint(spec, [f'role:{i}' for i in range(len(choices))])
