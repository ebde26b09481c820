"""Reads the compiler's scheduled program (HLO text): loops and their trips, FLOPs.

XLA's own cost analysis counts the body of a loop once; a model that scans its layers
is almost all loop.
"""

import collections
import dataclasses
import functools
import math
import re
import types
from collections.abc import Iterable
from collections.abc import Mapping

BYTES = {
  **dict.fromkeys(('pred', 's8', 'u8', 'f8e4m3fn', 'f8e5m2', 's4', 'u4'), 1),
  **dict.fromkeys(('bf16', 'f16', 's16', 'u16'), 2),
  **dict.fromkeys(('s32', 'u32', 'f32'), 4),
  **dict.fromkeys(('s64', 'u64', 'f64', 'c64'), 8),
}
# Unit letters of sizes in the compiler's messages.
UNITS = {'': 1, 'K': 2**10, 'M': 2**20, 'G': 2**30, 'T': 2**40}
ARRAY = re.compile(r'\b([a-z]+\d*[a-z\d]*)\[([\d,]*)\](?:\{([^}]*)\})?')
HEAD = re.compile(r'^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$')
LINE = re.compile(r'^\s+(ROOT )?%?([\w.\-]+) = (.*)$')
CALLS = re.compile(
  r'(?:calls|to_apply|called_computations|branch_computations|true_computation|'
  r'false_computation)=(\{[^}]*\}|%[\w.\-]+)'
)
END = re.compile(r'\s*\}(, execution_thread="\w+")?\s*$')
NAME = re.compile(r'%([\w.\-]+)')
HOST = 5  # XLA's number of the host's memory space


@dataclasses.dataclass(frozen=True)
class Array:
  """One array of a shape: element type, dims, memory space (0: the device's own)."""

  dtype: str
  dims: tuple[int, ...]
  space: int = 0

  @property
  def size(self) -> int:
    """Number of elements."""
    return math.prod(self.dims)

  @property
  def bytes(self) -> int:
    return self.size * BYTES.get(self.dtype, 0)

  def __str__(self) -> str:
    return f'{self.dtype}[{",".join(map(str, self.dims))}]'


@dataclasses.dataclass(frozen=True)
class Op:
  """One instruction: name, shape, operation, names of operands, the rest as text."""

  name: str
  shape: str
  kind: str
  operands: tuple[str, ...]
  rest: str
  root: bool = False

  @functools.cached_property
  def arrays(self) -> tuple[Array, ...]:
    return arrays(self.shape)

  @property
  def bytes(self) -> int:
    return sum(a.bytes for a in self.arrays)

  @property
  def path(self) -> str:
    """Path in the program: jax's names of the calls, joined by /."""
    match = re.search(r'op_name="([^"]*)"', self.rest)
    return match.group(1) if match else ''

  def attribute(self, name: str) -> str:
    """Text of the attribute `name`, '' where it is absent."""
    match = re.search(rf'\b{name}=([^\s,]+)', self.rest)
    return match.group(1) if match else ''

  @property
  def called(self) -> list[str]:
    """Names of the computations that it runs, without those that combine two values."""
    if self.kind in REDUCERS:
      return []
    return [n for text in CALLS.findall(self.rest) for n in NAME.findall(text)]


# Their `to_apply` combines two values.
REDUCERS = ('all-reduce', 'all-reduce-start', 'reduce-scatter', 'reduce', 'scatter')
REDUCERS += ('reduce-window', 'select-and-scatter', 'sort', 'map')


def arrays(shape: str) -> tuple[Array, ...]:
  """The arrays of a shape's text, e.g. '(f32[2,3]{1,0:S(5)}, s32[])'."""
  parts = []
  for dtype, dims, layout in ARRAY.findall(shape):
    if dtype in BYTES:
      space = re.search(r'S\((\d+)\)', layout)
      size = tuple(int(d) for d in dims.split(',') if d)
      parts.append(Array(dtype, size, int(space.group(1)) if space else 0))
  return tuple(parts)


@dataclasses.dataclass(frozen=True)
class Module:
  """A program: its computations by name, the entry's name, and the source lines."""

  computations: dict[str, dict[str, Op]]
  entry: str
  frames: dict[int, tuple[str, int, int]]  # frame: (file, line, parent frame)

  def source(self, op: Op) -> str:
    """'model/llama.py:120' of the innermost frame in this package, or ''."""
    match = re.search(r'stack_frame_id=(\d+)', op.rest)
    frame = int(match.group(1)) if match else 0
    while frame in self.frames:
      file, line, parent = self.frames[frame]
      inside = file.rpartition('llama3_jax/')[2]
      if inside != file and 'site-packages' not in file:
        return f'{inside}:{line}'
      if parent == frame:
        break
      frame = parent
    return ''


def _closing(text, start=0):
  """Index after the parenthesis that closes the one at `start`."""
  depth = 0
  for i in range(start, len(text)):
    depth += (text[i] == '(') - (text[i] == ')')
    if depth == 0:
      return i + 1
  return len(text)


def parse(text: str) -> Module:
  """Module of a program's text."""
  computations, entry, current = {}, '', None
  for line in _joined(text):
    if current is None:
      head = HEAD.match(line)
      if head and ' -> ' in line:
        current = computations.setdefault(head.group(2), {})
        entry = head.group(2) if head.group(1) else entry
      continue
    if END.match(line):
      current = None
      continue
    match = LINE.match(line)
    if match:
      op = _op(*match.groups())
      current[op.name] = op
  return Module(computations, entry, _frames(text))


def _joined(text):
  """Lines of `text`; an instruction that runs over several lines is one."""
  open_line = ''
  for line in text.splitlines():
    if LINE.match(line) or HEAD.match(line) or END.match(line) or not line.strip():
      if open_line:
        yield open_line
      open_line = line
    elif open_line and LINE.match(open_line):
      open_line += ' ' + line
    else:
      if open_line:
        yield open_line
      open_line = line
  yield open_line


def _op(root, name, text):
  cut = _closing(text) if text.startswith('(') else text.index(' ')
  shape, text = text[:cut], text[cut:].lstrip()
  kind, _, _ = text.partition('(')
  end = _closing(text, len(kind))
  inside = text[len(kind) + 1 : end - 1]
  operands = tuple(NAME.findall(inside))
  rest = inside + text[end:] if kind == 'constant' else text[end:]
  if kind == 'parameter':
    rest = f'number={inside}{rest}'
  return Op(name, shape, kind, operands, rest, bool(root))


def _frames(text):
  """Stack frames of the header: {id: (file, line, parent)}."""
  part, files, locations, frames = '', {}, {}, {}
  for line in text.splitlines()[:20_000]:
    if line in ('FileNames', 'FunctionNames', 'FileLocations', 'StackFrames'):
      part = line
    elif line.startswith(('%', 'ENTRY')):
      break
    elif part and (match := re.match(r'(\d+) (.*)', line)):
      number, value = int(match.group(1)), match.group(2)
      if part == 'FileNames':
        files[number] = value.strip('"')
      elif part == 'FileLocations':
        file, at = re.search(r'file_name_id=(\d+).* line=(\d+)', value).groups()
        locations[number] = (files.get(int(file), ''), int(at))
      elif part == 'StackFrames':
        location, parent = re.search(
          r'file_location_id=(\d+) parent_frame_id=(\d+)', value
        ).groups()
        frames[number] = (*locations.get(int(location), ('', 0)), int(parent))
  return frames


def trips(module: Module, loop: Op) -> int | None:
  """How often the body of the `while` op runs; None when it is not stated."""
  known = re.search(r'known_trip_count\W+n\W+(\d+)', loop.rest)
  if known:
    return int(known.group(1))
  condition = module.computations[loop.attribute('condition').lstrip('%')]
  root = next(op for op in condition.values() if op.root)
  compares = [op for op in condition.values() if op.kind == 'compare']
  near = [root, *compares]
  for op in near:
    for name in op.operands:
      bound = condition.get(name)
      if bound is not None and bound.kind == 'constant':
        if number := re.match(r'(\d+)\b', bound.rest):
          return int(number.group(1))
  return None


@dataclasses.dataclass(frozen=True)
class Visit:
  """A computation as it is reached from the entry: how often it runs in a step, inside
  which loops (names of `while` ops, outermost first), and whether asynchronously."""

  computation: str
  times: int
  loops: tuple[str, ...]
  asynchronous: bool = False
  fused: bool = False  # inside a fusion: its values never reach memory


@dataclasses.dataclass(frozen=True)
class Loop:
  """A `while` op: trips (None: unknown), the loops around it, path, source, body."""

  name: str
  trips: int | None
  inside: tuple[str, ...]
  path: str
  source: str
  body: str


def visits(
  module: Module, known: Mapping[str, int] = types.MappingProxyType({})
) -> tuple[list[Visit], dict[str, Loop]]:
  """(every Visit from the entry on, {name of a `while` op: Loop}).

  known: {name: trips} of loops in a named scope whose trips the program decides.
  """
  order, loops = [], {}

  def walk(name, times, inside, asynchronous, fused):
    order.append(Visit(name, times, inside, asynchronous, fused))
    for op in module.computations.get(name, {}).values():
      if op.kind == 'while':
        n = trips(module, op)
        if n is None:
          n = next((m for x, m in known.items() if op.path.endswith(f'/{x}/while')), n)
        body = op.attribute('body').lstrip('%')
        source = module.source(op)
        loops[op.name] = Loop(op.name, n, inside, op.path, source, body)
        more = times * (1 if n is None else n)
        walk(body, more, (*inside, op.name), asynchronous, fused)
        continue
      for called in op.called:
        later = asynchronous or op.kind in ('async-start', 'call-start')
        later = later or called.startswith(('async_collective', 'async-collective'))
        walk(called, times, inside, later, fused or op.kind == 'fusion')

  walk(module.entry, 1, (), False, False)
  return order, loops


def layer_loops(module: Module, loops: Mapping[str, Loop], n_layers: int) -> set[str]:
  """Names of the loops over the layers: the outermost ones whose body has attention.

  A compiler that peels or unrolls a loop changes its trips, so trips decide only where
  they equal `n_layers`.
  """

  def near(loop):
    body = module.computations.get(loop.body, {})
    return any('/attention/' in op.path for op in body.values())

  known = {n for n, x in loops.items() if x.trips == n_layers and near(x)}
  chosen = known or {n for n, x in loops.items() if near(x)}
  return {n for n in chosen if not set(loops[n].inside) & chosen}


def _numbers(text):
  return [int(x) for x in re.findall(r'\d+', text)]


def _dot(op, operands):
  left = operands[0]
  contracted = _numbers(re.search(r'lhs_contracting_dims=\{([\d,]*)\}', op.rest)[1])
  depth = math.prod(left.dims[d] for d in contracted)
  return 2 * op.arrays[0].size * depth


def _window(op, n):
  """Per spatial dim: size, stride, low padding, dilations of input and window."""
  match = re.search(r'window=\{([^}]*)\}', op.rest)
  fields = dict(part.split('=') for part in match[1].split()) if match else {}

  def read(name):
    values = fields[name].split('x') if name in fields else ['1'] * n
    return [int(v) for v in values]

  low = (
    [int(p.split('_')[0]) for p in fields['pad'].split('x')] if 'pad' in fields else []
  )
  low = low or [0] * n
  return list(
    zip(read('size'), read('stride'), low, read('lhs_dilate'), read('rhs_dilate'))
  )


def _convolution(op, operands):
  """FLOPs of a convolution. TPU programs express matrix products as convolutions: batch
  dims become spatial ones whose window covers a real element exactly once."""
  left, right = operands[:2]
  a, b, c = re.search(r'dim_labels=(\w+)_(\w+)->(\w+)', op.rest).groups()
  spatial = [ch for ch in a if ch.isdigit()]
  total = 2
  for ch, (size, stride, low, base, window) in zip(
    sorted(spatial), _window(op, len(spatial))
  ):
    n, out = left.dims[a.index(ch)], op.arrays[0].dims[c.index(ch)]
    total *= _meetings(n, out, size, stride, low, base, window)
  groups = int(op.attribute('batch_group_count') or 1)
  rows = left.dims[a.index('b')] // groups
  return total * rows * right.dims[b.index('i')] * op.arrays[0].dims[c.index('f')]


@functools.lru_cache(maxsize=4096)
def _meetings(n, out, size, stride, low, base, window):
  """Number of pairs of output and window index that fall on an input element."""
  count = 0
  last = (n - 1) * base
  for o in range(out):
    for k in range(size):
      at = o * stride + k * window - low
      count += 0 <= at <= last and at % base == 0
  return count


def product(op: Op, ops: Mapping[str, Op]) -> int:
  """FLOPs of one matrix product; `ops`: the computation that contains it."""
  operands = [ops[n].arrays[0] for n in op.operands[:2]]
  return (_dot if op.kind == 'dot' else _convolution)(op, operands)


def flops(module: Module, found: Iterable[Visit]) -> collections.Counter[str]:
  """{computation: FLOPs of one run of its own matrix products}."""
  count = collections.Counter()
  for name in {v.computation for v in found}:
    ops = module.computations.get(name, {})
    for op in ops.values():
      if op.kind in ('dot', 'convolution'):
        count[name] += product(op, ops)
  return count


def cycles(op: Op) -> int:
  """The compiler's static estimate of cycles for one run of a fusion, or 0."""
  match = re.search(r'"estimated_cycles":"?(\d+)', op.rest)
  return int(match.group(1)) if match else 0
