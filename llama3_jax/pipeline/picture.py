"""Pictures of a pipeline schedule, as figure 6 of the paper: text, SVG, a page."""

import html

import numpy as np

from llama3_jax.base import files
from llama3_jax.pipeline import schedule as schedules

CELL = 24  # pixels
LEFT = 66
STYLE = """
svg, body { font: 12px system-ui, sans-serif; }
body { background: #fff; color: #1d1f23; margin: 24px; max-width: 100%; }
.scroll { overflow-x: auto; }
text { fill: #1d1f23; text-anchor: middle; dominant-baseline: central; }
text.stage { text-anchor: start; }
rect { stroke: #fff; stroke-width: 1.5; }
.idle { fill: #eceae5; }
.forward { fill: #8fb4e3; }
.backward { fill: #e9b08c; }
table { border-collapse: collapse; margin: 8px 0 20px; }
td, th { padding: 3px 14px 3px 0; text-align: left; font-weight: normal; }
td { font-variant-numeric: tabular-nums; }
@media (prefers-color-scheme: dark) {
  body { background: #16181c; color: #e6e7e9; }
  text.stage { fill: #e6e7e9; }
  rect { stroke: #16181c; }
  .idle { fill: #2a2d33; }
}
"""


def text(schedule):
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


def facts(schedule):
  """[(name, value)] of what the picture shows."""
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


def svg(schedule):
  """The schedule as an SVG element: time to the right, a row a stage.

  Blue is forward, orange backward; later chunks of a stage are darker.
  """
  width = LEFT + CELL * schedule.ticks
  parts = []
  for s in range(schedule.stages):
    y = CELL * s
    parts.append(f'<text class="stage" x="0" y="{y + CELL / 2}">stage {s}</text>')
    for t in range(schedule.ticks):
      parts.append(_cell(schedule, t, s, LEFT + CELL * t, y))
  return (
    f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" '
    f'height="{CELL * schedule.stages}">{"".join(parts)}</svg>'
  )


def _cell(schedule, t, s, x, y):
  op = schedule.op[t, s]
  place = f'x="{x}" y="{y}" width="{CELL}" height="{CELL}"'
  if op == schedules.IDLE:
    return f'<rect class="idle" {place}/>'
  c, m = int(schedule.chunk[t, s]), int(schedule.microbatch[t, s])
  name = 'forward' if op == schedules.FORWARD else 'backward'
  shade = 1 - 0.55 * (schedule.chunks - 1 - c // schedule.stages) / schedule.chunks
  return (
    f'<rect class="{name}" fill-opacity="{shade:.2f}" {place}>'
    f'<title>tick {t}: {name} of chunk {c}, microbatch {m}</title></rect>'
    f'<text x="{x + CELL / 2}" y="{y + CELL / 2}">{m}</text>'
  )


def page(named):
  """HTML page of {title: schedule}."""
  parts = []
  for title, schedule in named.items():
    rows = ''.join(
      f'<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>'
      for name, value in facts(schedule)
    )
    parts.append(
      f'<h2>{html.escape(title)}</h2><div class="scroll">{svg(schedule)}</div>'
      f'<table>{rows}</table>'
    )
  return (
    '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    f'<title>Pipeline schedule</title><style>{STYLE}</style></head>'
    f'<body><h1>Pipeline schedule</h1>{"".join(parts)}</body></html>\n'
  )


def write(path, named):
  """Write the page of {title: schedule} to `path`, atomically."""
  files.write_text(path, page(named))
