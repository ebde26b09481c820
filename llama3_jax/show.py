"""Tables of a parameter tree for a log or a notebook."""

import math

import jax


def size(n: float, unit: str = '') -> str:
  """A number with three digits: 1234567 -> '1.23M'."""
  for power, letter in ((12, 'T'), (9, 'G'), (6, 'M'), (3, 'K')):
    if abs(n) >= 10**power:
      return f'{n / 10**power:.3g}{letter}{unit}'
  return f'{n:g}{unit}'


def parameters(tree: object) -> str:
  """Text table: name, shape, dtype, layout, count; works on abstract trees too.

  The layout is the mesh axes that cut each dim; without one there is no such column.
  """
  rows = [('parameter', 'shape', 'dtype', 'layout', 'count')]
  for path, x in jax.tree_util.tree_flatten_with_path(tree)[0]:
    name = jax.tree_util.keystr(path, simple=True, separator='.')
    shape = ' '.join(map(str, x.shape))
    rows.append((name, shape, str(x.dtype), _layout(x), size(math.prod(x.shape))))
  total = sum(math.prod(x.shape) for x in jax.tree.leaves(tree))
  rows.append(('total', '', '', '', f'{total:,}'))
  if not any(row[3] for row in rows[1:]):
    rows = [(*row[:3], row[4]) for row in rows]
  widths = [max(map(len, column)) for column in zip(*rows)]
  lines = []
  for *left, last in rows:
    cells = [v.ljust(w) for v, w in zip(left, widths)]
    lines.append('  '.join([*cells, last.rjust(widths[-1])]))
  return '\n'.join(lines)


def _layout(x):
  """'- fsdp+context tensor': the axes of more than one device that cut each dim of an
  array; '' where none does."""
  sharding = getattr(x, 'sharding', None)
  spec, mesh = getattr(sharding, 'spec', ()), getattr(sharding, 'mesh', None)
  if mesh is None:
    return ''
  parts = []
  for entry in spec:
    axes = entry if isinstance(entry, tuple) else (entry,)
    parts.append('+'.join(a for a in axes if a and mesh.shape[a] > 1))
  return ' '.join(part or '-' for part in parts) if any(parts) else ''
