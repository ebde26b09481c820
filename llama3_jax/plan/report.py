"""A plan as text and as a page."""

from collections.abc import Iterable
from collections.abc import Mapping

from llama3_jax.plan import roofline
from llama3_jax.report import figures
from llama3_jax.report.blocks import Card
from llama3_jax.report.blocks import Note
from llama3_jax.report.blocks import Page
from llama3_jax.report.blocks import Plot
from llama3_jax.report.blocks import Section
from llama3_jax.report.blocks import Table

GIB = 2**30
KINDS = ('parameters', 'frozen', 'optimizer', 'batch', 'cache', 'temporaries')
KINDS += ('packing', 'code', 'reserved')
MEANING = {
  'packing': 'temporaries that do not fit together without gaps',
  'reserved': 'by the runtime',
  'code': 'the program itself',
}


def rate(n: float) -> str:
  """Short form of a count a second or a number of FLOPs."""
  for power, letter in ((15, 'P'), (12, 'T'), (9, 'G'), (6, 'M')):
    if n >= 10**power:
      return f'{n / 10**power:.3g} {letter}'
  return f'{n:.4g} '


def size(n: float) -> str:
  """Bytes as GiB, or MiB when they are few."""
  return f'{n / GIB:.2f} GiB' if n >= GIB / 10 else f'{n / 2**20:.2f} MiB'


def verdict(r: Mapping) -> str:
  """One line: whether the program fits, and if not the field to change."""
  m = r['memory']
  share = f'{size(m["used"])} of {size(m["limit"])} a device'
  if m['fits']:
    return f'fits: {share} ({m["used"] / m["limit"]:.0%})'
  return f'does not fit: {share}; change {m["knob"]}'


def title(r: Mapping) -> str:
  """One line that names model, step, target, mesh and batch."""
  mesh = ', '.join(f'{a}={n}' for a, n in r['mesh'].items() if n > 1)
  return (
    f'{r["model"]} {r["step"]} on {r["target"]}: {r["devices"]:,} devices ({mesh}), '
    f'{r["batch"]:,} x {r["length"]:,} tokens'
  )


def text(r: Mapping) -> str:
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
    f'{t["synchronous_s"]:.4g} + host {t["host_wait_s"]:.4g}, collectives '
    f'{t["collectives_s"]:.4g}); compute: '
    f'{t["estimate"]}',
    f'tokens/s/chip: {t["tokens_per_s_chip"]:.4g}   MFU bound: {t["mfu_bound"]:.1%}',
    roofline.FORMULA,
    *[f'note: {n}' for n in r['notes']],
    f'compiled in {r["seconds"]:.1f} s, {size(r["compiler_memory"])} of host memory',
  ]
  return '\n'.join(lines) + '\n'


def grouped(buffers: Iterable[Mapping]) -> list[tuple[int, Mapping]]:
  """[(number, buffer)]: buffers that differ in their place only are one row."""
  rows = {}
  for b in buffers:
    key = (b['array'], b['what'], made(b), b['held'])
    rows[key] = (rows.get(key, (0,))[0] + 1, b)
  return list(rows.values())


def made(b: Mapping) -> str:
  """Where a buffer is made: a source line, or the compiler's name of it."""
  return b['source'] or b['path'].rpartition('/')[2] or b['name']


def several(n: int, b: Mapping) -> str:
  """Size of a buffer, after its number where that is above 1."""
  return f'{n} x {size(b["bytes"])}' if n > 1 else size(b['bytes'])


def page(r: Mapping) -> Page:
  """The page of a plan."""
  t, m = r['time'], r['memory']
  tiles = (
    (size(m['used']), f'a device of {size(m["limit"])}'),
    (f'{t["step_s"]:.3g} s', 'step, roofline'),
    (f'{t["tokens_per_s_chip"]:,.0f}', 'tokens/s/chip'),
    (f'{t["mfu_bound"]:.1%}', 'MFU bound, causal'),
    (size(sum(c['bytes'] for c in r['collectives'])), 'collectives a step'),
  )
  plot = lambda name, figure: Card([Plot(name, figure)])
  speed = f'{roofline.FORMULA}. Compute: {t["estimate"]}.'
  sections = [
    Section('Memory', [plot('memory', _memory(r))]),
    Section('Temporaries at the fullest moment', [Card([_buffers(r)])]),
    Section('Time', [plot('time', _time(r))], speed),
    Section('Collectives', [plot('moved', _moved(r)), Card([_collectives(r)])]),
    Section('Notes', [Note(text) for text in r['notes']]),
  ]
  return Page(title(r), sections, [verdict(r)], tiles)


def _memory(r):
  m = r['memory']
  held = [(k, 'memory', m['kinds'][k] / GIB) for k in KINDS if m['kinds'].get(k)]
  return figures.shares(held, 'GiB', 210, (m['limit'] / GIB, 'limit'))


def _time(r):
  t = r['time']
  hidden = max(t['collectives_s'] - t['synchronous_s'], 0)
  spent = [
    ('compute', 'chip', t['compute_s']),
    ('waiting for collectives', 'chip', t['synchronous_s']),
    ('waiting for the host', 'chip', t['host_wait_s']),
    ('synchronous collectives', 'network', t['synchronous_s']),
    ('asynchronous collectives', 'network', hidden),
  ]
  return figures.shares(spent, 's', 250, (t['ideal_s'], 'model FLOPs at peak'))


def _moved(r):
  moved = [
    (
      f'{c["kind"]} {c["axes"]}{"" if c["asynchronous"] else " (sync)"}',
      c['where'],
      c['bytes'] / GIB,
    )
    for c in r['collectives'][:7]
    if c['bytes'] > 0.01 * r['collectives'][0]['bytes']
  ]
  return figures.shares(moved, 'GiB a step', 280)


def _buffers(r):
  header = ('bytes', 'array', 'what it is', 'shrinks by', 'made at', 'kept through')
  rows = [
    (several(n, b), b['array'], b['what'], b['knob'], made(b), b['held'])
    for n, b in grouped(r['buffers'])
  ]
  return Table(header, rows, sentences=header[2:])


def _collectives(r):
  header = ('kind', 'axes', 'where', 'overlap', 'instructions', 'runs', 'bytes')
  rows = [
    (
      *(c['kind'], c['axes'], c['where']),
      'async' if c['asynchronous'] else 'sync',
      *(c['count'], c['runs'], size(c['bytes']), f'{c["seconds"]:.4f}'),
    )
    for c in r['collectives']
  ]
  return Table((*header, 'seconds'), rows)
