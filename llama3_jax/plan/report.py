"""A plan as text and as a page."""

import html

from llama3_jax import page as pages
from llama3_jax.plan import roofline

GIB = 2**30
KINDS = ('parameters', 'frozen', 'optimizer', 'batch', 'cache', 'temporaries')
KINDS += ('packing', 'code', 'reserved')
HEIGHT = {'memory': 210, 'time': 250, 'moved': 280}  # pixels
MEANING = {
  'packing': 'temporaries that do not fit together without gaps',
  'reserved': 'by the runtime',
  'code': 'the program itself',
}


def rate(n):
  """Short form of a count a second or a number of FLOPs."""
  for power, letter in ((15, 'P'), (12, 'T'), (9, 'G'), (6, 'M')):
    if n >= 10**power:
      return f'{n / 10**power:.3g} {letter}'
  return f'{n:.4g} '


def size(n):
  """Bytes as GiB, or MiB when they are few."""
  return f'{n / GIB:.2f} GiB' if n >= GIB / 10 else f'{n / 2**20:.2f} MiB'


def verdict(r):
  """One line: whether it fits, and if not the field to change."""
  m = r['memory']
  share = f'{size(m["used"])} of {size(m["limit"])} a device'
  if m['fits']:
    return f'fits: {share} ({m["used"] / m["limit"]:.0%})'
  return f'does not fit: {share}; change {m["knob"]}'


def title(r):
  mesh = ', '.join(f'{a}={n}' for a, n in r['mesh'].items() if n > 1)
  return (
    f'{r["model"]} {r["step"]} on {r["target"]}: {r["devices"]:,} devices ({mesh}), '
    f'{r["batch"]:,} x {r["length"]:,} tokens'
  )


def text(r):
  """The plan as plain text for a terminal."""
  t = r['time']
  lines = [title(r), verdict(r), '', 'memory of a device']
  for kind in KINDS:
    if r['memory']['kinds'].get(kind):
      note = MEANING.get(kind, '')
      lines.append(
        f'  {kind:<12} {size(r["memory"]["kinds"][kind]):>12}  {note}'.rstrip()
      )
  if r['memory']['host'] > 2**20:
    lines.append(f'  {"host memory":<12} {size(r["memory"]["host"]):>12}')
  lines += ['', 'temporaries at the fullest moment']
  for n, b in grouped(r['buffers']):
    kept = f', kept through {b["held"]}' if b['held'] else ''
    lines.append(f'  {several(n, b):>13}  {b["array"]:<28} {b["what"]}')
    lines.append(f'  {"":>13}  {made(b)}{kept}')
    if b['knob']:
      lines.append(f'  {"":>13}  -> {b["knob"]}')
  lines += ['', 'collectives of a step']
  lines.append(f'  {"kind":<26} {"axes":<16} {"where":<7} {"":<6} runs   bytes')
  for c in r['collectives']:
    how = 'async' if c['asynchronous'] else 'sync'
    lines.append(
      f'  {c["kind"]:<26} {c["axes"]:<16} {c["where"]:<7} {how:<6} {c["runs"]:>5} '
      f'{size(c["bytes"]):>11} {c["seconds"]:>9.4f} s'
    )
  lines += [
    '',
    f'FLOPs a device: {rate(t["flops"])}FLOP run, {rate(t["flops_needed"])}FLOP needed',
    f'step: {t["step_s"]:.4g} s = max(compute {t["compute_s"]:.4g} + synchronous '
    f'{t["synchronous_s"]:.4g}, collectives {t["collectives_s"]:.4g}); compute: '
    f'{t["estimate"]}',
    f'tokens/s/chip: {t["tokens_per_s_chip"]:.4g}   MFU bound: {t["mfu_bound"]:.1%}',
    roofline.FORMULA,
    *[f'note: {n}' for n in r['notes']],
    f'compiled in {r["seconds"]:.1f} s, {size(r["compiler_memory"])} of host memory',
  ]
  return '\n'.join(lines) + '\n'


def grouped(buffers):
  """[(how many, buffer)]: those that differ in nothing but their place are one row."""
  rows = {}
  for b in buffers:
    key = (b['array'], b['what'], made(b), b['held'])
    rows[key] = (rows.get(key, (0,))[0] + 1, b)
  return list(rows.values())


def made(b):
  """Where a buffer is made: a source line, or what the compiler calls it."""
  return b['source'] or b['path'].rpartition('/')[2] or b['name']


def several(n, b):
  return f'{n} x {size(b["bytes"])}' if n > 1 else size(b['bytes'])


def table(header, rows, wrapped=()):
  """A table of text; columns named in `wrapped` are sentences."""
  mark = {h: ' class="wrap" style="text-align:left"' for h in wrapped}
  head = ''.join(f'<th{mark.get(h, "")}>{html.escape(h)}</th>' for h in header)
  body = ''
  for row in rows:
    cells = zip(header, row)
    body += '<tr>' + ''.join(
      f'<td{mark.get(h, "")}>{html.escape(str(x))}</td>' for h, x in cells
    )
    body += '</tr>'
  return (
    f'<div class="card scroll"><table><thead><tr>{head}</tr></thead>'
    f'<tbody>{body}</tbody></table></div>'
  )


def bars(rows, unit, height, line=None):
  """A stacked horizontal bar: rows of (name, bar, value); `line`: (value, label)."""
  data = [
    {
      'type': 'bar',
      'orientation': 'h',
      'name': name,
      'x': [value],
      'y': [bar],
      'marker': {'color': f'role:{i}'},
      'hovertemplate': f'{name}: %{{x:.3g}} {unit}<extra></extra>',
    }
    for i, (name, bar, value) in enumerate(rows)
  ]
  axis = {'gridcolor': 'line:', 'zeroline': False, 'fixedrange': True}
  layout = {
    'barmode': 'stack',
    'height': height,
    'margin': {'l': 90, 'r': 16, 't': 20, 'b': 90},
    'paper_bgcolor': 'rgba(0,0,0,0)',
    'plot_bgcolor': 'rgba(0,0,0,0)',
    'font': {'family': 'system-ui, sans-serif', 'size': 12.5, 'color': 'ink:'},
    'legend': {
      'orientation': 'h',
      'traceorder': 'normal',
      'x': 0,
      'y': 0,
      'yref': 'container',
      'yanchor': 'bottom',
    },
    'xaxis': {**axis, 'title': {'text': unit}, 'rangemode': 'tozero'},
    'yaxis': {**axis, 'automargin': True},
  }
  if line:
    value, label = line
    layout['shapes'] = [
      {
        'type': 'line',
        'x0': value,
        'x1': value,
        'y0': 0,
        'y1': 1,
        'yref': 'paper',
        'line': {'color': 'soft:', 'dash': 'dot', 'width': 1.5},
      }
    ]
    layout['annotations'] = [
      {
        'x': value,
        'y': 1.06,
        'yref': 'paper',
        'text': label,
        'showarrow': False,
        'xanchor': 'right',
        'font': {'color': 'soft:'},
      }
    ]
  return {'data': data, 'layout': layout}


def figures(r):
  """{element id: plotly figure} of a plan."""
  t, m = r['time'], r['memory']
  held = [(k, 'memory', m['kinds'][k] / GIB) for k in KINDS if m['kinds'].get(k)]
  hidden = max(t['collectives_s'] - t['synchronous_s'], 0)
  spent = [
    ('compute', 'chip', t['compute_s']),
    ('waiting for collectives', 'chip', t['synchronous_s']),
    ('synchronous collectives', 'network', t['synchronous_s']),
    ('asynchronous collectives', 'network', hidden),
  ]
  moved = [
    (
      f'{c["kind"]} {c["axes"]}{"" if c["asynchronous"] else " (sync)"}',
      c['where'],
      c['bytes'] / GIB,
    )
    for c in r['collectives'][:7]
    if c['bytes'] > 0.01 * r['collectives'][0]['bytes']
  ]
  return {
    'memory': bars(held, 'GiB', HEIGHT['memory'], line=(m['limit'] / GIB, 'limit')),
    'time': bars(
      spent, 's', HEIGHT['time'], line=(t['ideal_s'], 'model FLOPs at peak')
    ),
    'moved': bars(moved, 'GiB a step', HEIGHT['moved']),
  }


def page(r):
  """A self-contained page."""
  t = r['time']
  tiles = (
    (size(r['memory']['used']), f'a device of {size(r["memory"]["limit"])}'),
    (f'{t["step_s"]:.3g} s', 'step, roofline'),
    (f'{t["tokens_per_s_chip"]:,.0f}', 'tokens/s/chip'),
    (f'{t["mfu_bound"]:.1%}', 'MFU bound, causal'),
    (size(sum(c['bytes'] for c in r['collectives'])), 'collectives a step'),
  )
  shown = ''.join(
    f'<div class="card tile"><b>{html.escape(v)}</b><span>{html.escape(n)}</span></div>'
    for v, n in tiles
  )

  def plot(name):
    style = f'height:{HEIGHT[name]}px'
    return (
      f'<div class="card"><div class="plot" id="{name}" style="{style}"></div></div>'
    )

  drawn = figures(r)
  notes = ''.join(f'<p class="note">{html.escape(n)}</p>' for n in r['notes'])
  body = (
    f'<header><h1>{html.escape(title(r))}</h1><p>{html.escape(verdict(r))}</p></header>'
    f'<div class="tiles">{shown}</div>'
    f'<section><h2>Memory</h2>{plot("memory")}</section>'
    f'<section><h2>Temporaries at the fullest moment</h2>{_buffers(r)}</section>'
    f'<section><h2>Time</h2><p class="note">{html.escape(roofline.FORMULA)}. Compute: '
    f'{html.escape(t["estimate"])}.</p>{plot("time")}</section>'
    f'<section><h2>Collectives</h2>{plot("moved")}{_moved(r)}</section>'
    f'<section><h2>Notes</h2>{notes}</section>'
    '<footer>Made by llama3_jax; every figure is computed from results.json.</footer>'
  )
  return pages.document(title(r), body, drawn)


def _buffers(r):
  header = ('bytes', 'array', 'what it is', 'shrinks by', 'made at', 'kept through')
  rows = [
    (several(n, b), b['array'], b['what'], b['knob'], made(b), b['held'])
    for n, b in grouped(r['buffers'])
  ]
  return table(header, rows, header[2:])


def _moved(r):
  return table(
    ('kind', 'axes', 'where', 'overlap', 'instructions', 'runs', 'bytes', 'seconds'),
    [
      (
        c['kind'],
        c['axes'],
        c['where'],
        'async' if c['asynchronous'] else 'sync',
        c['count'],
        c['runs'],
        size(c['bytes']),
        f'{c["seconds"]:.4f}',
      )
      for c in r['collectives']
    ],
  )
