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
  """Text table: name, shape, dtype, layout, count; works on abstract trees too."""
  rows = [('parameter', 'shape', 'dtype', 'layout', 'count')]
  for path, x in jax.tree_util.tree_flatten_with_path(tree)[0]:
    name = jax.tree_util.keystr(path, simple=True, separator='.')
    layout = getattr(getattr(x, 'sharding', None), 'spec', '')
    count = size(math.prod(x.shape))
    rows.append((name, str(x.shape), str(x.dtype), str(layout), count))
  total = sum(math.prod(x.shape) for x in jax.tree.leaves(tree))
  rows.append(('total', '', '', '', f'{total:,}'))
  widths = [max(len(r[i]) for r in rows) for i in range(5)]
  lines = []
  for r in rows:
    lines.append('  '.join(v.ljust(w) for v, w in zip(r, widths)).rstrip())
  return '\n'.join(lines)
