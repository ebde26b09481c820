"""Pictures of a pipeline schedule, like figure 6 of the paper: text and a page."""

import os
from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go

from llama3_jax.pipeline import schedule as schedules
from llama3_jax.report import figures
from llama3_jax.report import page as pages
from llama3_jax.report.blocks import Card
from llama3_jax.report.blocks import Page
from llama3_jax.report.blocks import Plot
from llama3_jax.report.blocks import Section
from llama3_jax.report.blocks import Table

CELL = 26  # pixels, both ways
MARGIN = 120


def text(schedule: schedules.Schedule) -> str:
  """One line a stage: a3 is the forward of microbatch 3 in the stage's first chunk
  (b: its second, ...), A3 the backward, a dot an idle tick."""
  cells = np.full(schedule.op.shape, '.', dtype=object)
  for t, s in np.argwhere(schedule.op != schedules.IDLE):
    v = int(schedule.chunk[t, s]) // schedule.stages
    letter = _letter(v)
    if schedule.op[t, s] == schedules.BACKWARD:
      letter = letter.upper()
    cells[t, s] = f'{letter}{schedule.microbatch[t, s]}'
  width = max(len(c) for c in cells.flat)
  rows = []
  for s in range(schedule.stages):
    rows.append(f'stage {s:<2} ' + ' '.join(c.ljust(width) for c in cells[:, s]))
  return '\n'.join(row.rstrip() for row in rows)


def _letter(v):
  """a, b, ..., z, aa, ab, ..."""
  letters = ''
  while v >= 0:
    letters, v = chr(ord('a') + v % 26) + letters, v // 26 - 1
  return letters


def facts(schedule: schedules.Schedule) -> list[tuple[str, str]]:
  """[(name, value)]: properties of the schedule, as text."""
  s = schedule
  ideal = (s.stages - 1) / (s.chunks * s.microbatches)
  kept = schedules.live(s)
  return [
    ('stages, chunks a stage', f'{s.stages}, {s.chunks}'),
    ('microbatches, consecutive', f'{s.microbatches}, {s.group}'),
    ('form', s.form),
    ('ticks', str(s.ticks)),
    ('bubble', f'{schedules.bubble(s):.4f}, ideal {ideal:.4f}'),
    ('bubble in step, backward 3 forwards', f'{schedules.lockstep(s):.4f}'),
    ('chunk inputs alive, by stage', ' '.join(str(n) for n in kept)),
  ]


def figure(schedule: schedules.Schedule) -> dict:
  """The schedule as a figure: time to the right, a row a stage.

  Blue is forward, orange backward; later chunks of a stage are darker.
  """
  shape = schedule.op.shape
  shade, number = np.zeros(shape), np.full(shape, '', dtype=object)
  labels = np.full(shape, 'idle', dtype=object)
  for t, s in np.argwhere(schedule.op != schedules.IDLE):
    c, m = int(schedule.chunk[t, s]), int(schedule.microbatch[t, s])
    forward = schedule.op[t, s] == schedules.FORWARD
    depth = (1 + c // schedule.stages) / schedule.chunks
    shade[t, s] = depth if forward else -depth
    number[t, s] = str(m)
    name = 'forward' if forward else 'backward'
    labels[t, s] = f'{name} of chunk {c}, microbatch {m}'
  cells = go.Heatmap(
    z=shade.T.tolist(),
    text=number.T.tolist(),
    customdata=labels.T.tolist(),
    y=[f'stage {s}' for s in range(schedule.stages)],
    texttemplate='%{text}',
    hovertemplate='tick %{x}: %{customdata}<extra></extra>',
    showscale=False,
    zmin=-1,
    zmax=1,
    xgap=1,
    ygap=1,
  )
  spec = figures.figure(
    go.Figure(cells),
    MARGIN + CELL * schedule.stages,
    width=MARGIN + CELL * schedule.ticks,
    xaxis={'title': {'text': 'tick'}, 'showgrid': False},
    yaxis={'autorange': 'reversed', 'showgrid': False},
  )
  spec['data'][0]['colorscale'] = [[0, 'role:1'], [0.5, 'line:'], [1, 'role:0']]
  return spec


def page(named: Mapping[str, schedules.Schedule]) -> Page:
  """The page of {title: schedule}."""
  sections = []
  for number, (title, schedule) in enumerate(named.items()):
    plot = Plot(f'schedule{number}', figure(schedule))
    table = Table(('', 'value'), facts(schedule))
    sections.append(Section(title, [Card([plot]), Card([table])]))
  return Page('Pipeline schedule', sections)


def write(path: str | os.PathLike, named: Mapping[str, schedules.Schedule]) -> None:
  """Writes the page of {title: schedule} to `path`, whole or not at all."""
  pages.write(path, page(named))
