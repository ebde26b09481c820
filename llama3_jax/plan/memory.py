"""Memory of one device by kind; the largest buffers and what shrinks each."""

import dataclasses
import math
import re
from collections.abc import Mapping
from collections.abc import Sequence

from llama3_jax import axes
from llama3_jax.config import ModelConfig
from llama3_jax.model import remat as policies
from llama3_jax.plan import hlo
from llama3_jax.plan.chips import Chip
from llama3_jax.plan.compile import Compiled

GIB = 2**30
VALUE = re.compile(
  r'value: <\d+ ([\w.\-]+(?:\{[\d,]*\})?)(?: \(phi\))? @\d+> '
  r'\(size=(\d+),offset=(\d+)\): (\S+)'
)


@dataclasses.dataclass(frozen=True)
class Buffer:
  """A temporary: bytes, array, where it is made, its meaning, the field to change."""

  bytes: int
  name: str
  array: str
  path: str
  source: str
  what: str
  knob: str
  held: str  # the loops through which it is kept


@dataclasses.dataclass(frozen=True)
class Sizes:
  """Sizes of each dim on one device: the numbers by which buffers are recognised."""

  layers: int
  width: int  # D
  hidden: int  # F
  heads: int  # N x H
  kv: int  # K x H
  vocabulary: int  # V
  tokens: int  # B x T of one microbatch
  chunk: int  # tokens of a chunk of the loss
  kernel: int  # D of a weight while it is cut


def sizes(
  model: ModelConfig,
  mesh: Mapping[str, int],
  batch: int,
  length: int,
  microbatches: int = 1,
  chunk: int = 0,
) -> Sizes:
  """Sizes of a ModelConfig on a mesh {axis: size}; batch: rows; chunk 0: no chunks."""
  parts = lambda dims: axes.parts(dims, mesh)
  rows = parts('B') * microbatches
  tokens = max(batch // rows, 1) * max(length // parts('T'), 1)
  return Sizes(
    layers=model.n_layers,
    width=model.d_model,
    hidden=model.d_ff // parts('F'),
    heads=model.n_heads * model.d_head // parts('N'),
    kv=model.n_kv_heads * model.d_head // parts('K'),
    vocabulary=model.vocab_size // parts('V'),
    tokens=tokens,
    chunk=min(chunk or tokens, tokens),
    kernel=model.d_model // parts('D'),
  )


def kind(path: str) -> str:
  """Kind of an argument, by its name: 'parameters', 'frozen', 'optimizer', 'batch' or
  'cache'."""
  if re.search(r'\bfrozen\b', path):
    return 'frozen'
  if re.search(r'\bopt\b', path):
    return 'optimizer'
  if re.search(r'\bparams\b', path):
    return 'parameters'
  return 'cache' if re.search(r'\bmemory\b', path) else 'batch'


def arguments(module: hlo.Module, buffers: str = '') -> tuple[dict[str, int], int]:
  """({kind: device bytes}, host bytes) of the program's inputs; padded sizes where the
  buffer assignment has them."""
  padded = {}
  for size, color, number in re.findall(
    r'^allocation \d+: size (\d+),(?: color (\d+),)? parameter (\d+)', buffers, re.M
  ):
    padded[int(number)] = (int(size), int(color or 0))
  kinds, host = {}, 0
  for op in module.computations[module.entry].values():
    if op.kind != 'parameter':
      continue
    number = int(re.match(r'number=(\d+)', op.rest)[1])
    space = max((a.space for a in op.arrays), default=0)
    size, color = padded.get(number, (op.bytes, space))
    if color == hlo.HOST or space == hlo.HOST:
      host += size
    else:
      name = kind(op.path)
      kinds[name] = kinds.get(name, 0) + size
  return kinds, host


def total(report: str) -> dict[int, int]:
  """{number of a memory space: bytes} of the compiler's memory-usage report; its names
  of the spaces are those of another chip."""
  totals = re.findall(
    r'Memory Space: [\w ]+? \(color=(\d+)\)\s*Total bytes: (\d+)', report
  )
  return {int(color): int(n) for color, n in totals}


def by_kind(
  module: hlo.Module, compiled: Compiled, peak: int, chip: Chip
) -> tuple[dict[str, int], int, int]:
  """{'parameters', 'optimizer', 'batch', 'temporaries', 'reserved', ...} in bytes of
  one device, the total charge, and bytes of host memory.

  peak: bytes of temporaries at the fullest moment; more than that is lost to packing.
  """
  kinds, host = arguments(module, compiled.buffers)
  spaces = total(compiled.memory)
  stats = compiled.stats
  used = spaces.get(0, 0)
  if not used:  # GPUs: no report, but the compiled program has the sizes
    used = sum(kinds.values()) + stats.get('temp_size_in_bytes', 0)
    used += stats.get('output_size_in_bytes', 0) - stats.get('alias_size_in_bytes', 0)
  rest = max(used - sum(kinds.values()), 0)
  lost = max(rest - peak, 0) if peak else 0
  kinds |= {'temporaries': rest - lost, 'packing': lost, 'reserved': chip.reserved}
  exact = re.search(r'Total hbm usage >= ([\d.]+)([KMGT])', compiled.log)
  if compiled.full and exact:  # the code itself is on the device too
    charged = float(exact[1]) * hlo.UNITS[exact[2]]
    kinds['code'] = max(int(charged) - sum(kinds.values()), 0)
  spilled = spaces.get(hlo.HOST, 0) - host
  return kinds, sum(kinds.values()), host + max(spilled, 0)


def fullest(
  module: hlo.Module,
  compiled: Compiled,
  loops: Mapping[str, hlo.Loop],
  s: Sizes,
  count: int = 16,
) -> tuple[list[Buffer], int]:
  """(list of Buffer, bytes): the largest temporaries alive at the fullest moment
  of the step, largest first, and the size of all that are alive."""
  ops = {n: op for c in module.computations.values() for n, op in c.items()}
  ranges, spans = _ranges(compiled.live), _spans(module, compiled.live, loops)
  places = _values(compiled.buffers)
  alive = sorted(_fullest(places, ranges), reverse=True)
  buffers = []
  for size, offset in alive[:count]:
    if size >= 2**16:
      values = places[size, offset]
      buffers.append(_buffer(module, ops, size, values, ranges, spans, s))
  return buffers, sum(size for size, _ in alive)


def _fullest(places, ranges):
  """The places (size, offset) in use at the moment when they take the most memory."""
  changes = {}
  for place, values in places.items():
    for name, _ in values:
      if name in ranges:
        begin, end = ranges[name]
        changes.setdefault(begin, []).append((place, 1))
        changes.setdefault(end + 1, []).append((place, -1))
  users, total, most, best = dict.fromkeys(places, 0), 0, 0, []
  for moment in sorted(changes):
    for place, change in changes[moment]:
      before = users[place] > 0
      users[place] += change
      total += place[0] * ((users[place] > 0) - before)
    if total > most:
      most, best = total, [place for place, n in users.items() if n]
  return best


def _buffer(module, ops, size, values, ranges, spans, s):
  """Buffer of the `values` (name, shape) that occupy one place one after another."""

  def life(value):
    begin, end = ranges.get(value[0], (0, 0))
    return end - begin

  name, shape = max(values, key=life)
  makers = [ops[n.partition('{')[0]] for n, _ in values if n.partition('{')[0] in ops]
  named = [op for op in makers if module.source(op)] or makers
  own = ops.get(name.partition('{')[0])
  op = own if own is not None and module.source(own) else named[0] if named else None
  array = hlo.arrays(shape)
  what, field = explain(array[0], op.path if op else '', s) if array else ('', '')
  kept = []
  for label, begin, end in spans:
    if any(
      a < begin and b > end for a, b in (ranges.get(n, (0, 0)) for n, _ in values)
    ):
      kept.append(label)
  return Buffer(
    bytes=size,
    name=name,
    array=str(array[0]) if array else shape,
    path=op.path if op else '',
    source=module.source(op) if op else '',
    what=what,
    knob=field,
    held=', '.join(dict.fromkeys(kept)),
  )


def _values(text):
  """{(size, offset): [(name, shape)]} of the device's temporary heap."""
  heap, inside = {}, False
  for line in text.splitlines():
    if line.startswith('allocation'):
      inside = 'preallocated-temp' in line and 'color' not in line
    elif inside and (value := VALUE.search(line)):
      name, size, offset, shape = value.groups()
      heap.setdefault((int(size), int(offset)), []).append((name, shape))
  return heap


def _ranges(text):
  """{value: (first, last)}: live ranges, as positions in the schedule."""
  text = text.partition('BufferLiveRange')[2].partition('Live ranges at')[0]
  ranges = {}
  for name, begin, end in re.findall(r'^\s+(\S+?):(\d+)-(\d+)$', text, re.M):
    ranges[name.removesuffix('{}')] = (int(begin), int(end))
  return ranges


def _spans(module, text, loops):
  """[(label, first, last)] of the outermost loops, as positions in the schedule."""
  text = text.partition('BufferLiveRange')[0]
  at = {n: int(i) for i, n in re.findall(r'^\s+(\d+):(\S+)$', text, re.M)}
  spans = []
  for loop in loops.values():
    inside = [at[n] for n in module.computations.get(loop.body, {}) if n in at]
    if inside and not loop.inside:
      way = 'backward' if 'transpose(' in loop.path else 'forward'
      spans.append((f'{loop.source} ({way}, {loop.trips})', min(inside), max(inside)))
  return spans


LESS_ROWS = 'train.batch (fewer rows a chip) or mesh.context'
INPUTS = f'model.remat (offload the layer input), {LESS_ROWS}'
MORE = 'mesh.tensor and mesh.stage (more chips)'
TABLE = 'mesh.tensor, model.tie_embeddings'


def explain(array: hlo.Array, path: str, s: Sizes) -> tuple[str, str]:
  """(meaning of a buffer, field that shrinks it), by its number of elements."""
  n, tokens, gradient = array.size, s.tokens, array.dtype == 'f32'
  if s.vocabulary in array.dims or n % s.vocabulary == 0:
    if n % (s.vocabulary * s.width) == 0 and gradient:
      return 'whole gradient of the embedding or head (V x D)', (
        'model.reduce_dtype=bfloat16, mesh.tensor'
      )
    if n % (s.vocabulary * s.width) == 0:
      return 'embedding or head, gathered (V x D)', TABLE
    if n == s.vocabulary * s.kernel:
      return "this chip's part of the embedding or head", 'mesh.fsdp'
    return 'logits of a chunk', 'train.loss_chunk (smaller) or mesh.tensor'
  for elements, what, knob in (
    (s.width, 'layer inputs', INPUTS),
    (s.heads, 'queries or attention outputs', 'model.remat (save fewer names)'),
    (s.kv, 'keys or values', 'model.remat (save fewer names)'),
    (s.hidden, 'feed-forward activations', 'model.remat (save fewer names)'),
  ):
    if array.dims[:1] == (s.layers,) and n == s.layers * tokens * elements:
      return f'{what} of all layers', knob
  sides = (s.hidden, s.heads, s.kv)
  if array.dims[:1] == (s.layers,) and n in {s.layers * s.kernel * x for x in sides}:
    return "this chip's part of a stacked weight", ('mesh.fsdp (more chips)')
  if n in {s.width * x for x in sides} and not _activation(array, s):
    if gradient:
      return 'whole gradient of one weight', 'model.reduce_dtype=bfloat16, mesh.tensor'
    return 'one weight, gathered', 'mesh.tensor'
  rows = [
    (s.hidden, 'feed-forward activations', f'mesh.tensor, {LESS_ROWS}'),
    (s.width, 'residual stream', LESS_ROWS),
    (s.heads, 'queries, attention outputs or gradients', f'mesh.tensor, {LESS_ROWS}'),
    (s.kv, 'keys or values', LESS_ROWS),
  ]
  if 'attention' in path:
    rows.sort(key=lambda row: 'residual' in row[1] or 'feed' in row[1])
  for elements, what, field in rows:
    if n == tokens * elements:
      return what, field
  if 'attention' in path and n % (tokens * s.heads) == 0:
    return f'attention, {n // (tokens * s.heads)} copies of the queries', (
      'model.block (larger: fewer copies of dq), mesh.context'
    )
  if 'attention' in path:
    return 'inside attention', 'model.attention, model.block, mesh.context'
  return '', LESS_ROWS if n % tokens == 0 else ''


def _activation(array, s):
  """Whether an array that has the size of a weight is one of activations."""
  return s.tokens in array.dims and s.width not in array.dims


def knob(
  kinds: Mapping[str, int], buffers: Sequence[Buffer], trains: bool = True
) -> str:
  """The field to change first when memory is short, by the largest kind or buffer."""
  if not trains:
    pages = kinds.get('cache', 0) > kinds.get('parameters', 0)
    first = 'train.batch, train.length' if pages else 'plan.weights'
    return f'{first} or {MORE}'
  stateful = sum(kinds.get(k, 0) for k in ('parameters', 'frozen', 'optimizer'))
  temporary = kinds.get('temporaries', 0) + kinds.get('packing', 0)
  if stateful > temporary:
    return 'mesh.fsdp (more chips), or optim.mu_dtype and nu_dtype (bfloat16, int8)'
  named = [b for b in buffers if b.knob]
  if not named:
    return LESS_ROWS
  first = named[0]
  return f'{first.knob}: {first.bytes / GIB:.2f} GiB of {first.what} {first.array}'


def estimate(
  model: ModelConfig,
  mesh: Mapping[str, int],
  batch: int,
  length: int,
  remat: str = 'full',
  microbatches: int = 1,
  state: int = 12,
) -> int:
  """Lower bound of the device bytes of a training step, in closed form.

  The sum of `state` bytes a parameter sharded over all axes but replica, the arrays
  that remat keeps, one layer's gathered weights and the whole head twice. A search
  skips candidates whose bound is above the limit.
  """
  s = sizes(model, mesh, batch, length, microbatches)
  cut = axes.parts('DFC', mesh)
  count = 2 * model.vocab_size * model.d_model + model.n_layers * model.d_model * (
    (2 * model.n_heads + 2 * model.n_kv_heads) * model.d_head + 3 * model.d_ff
  )
  saved = {'q': s.heads, 'k': s.kv, 'v': s.kv, 'attention': s.heads, 'out': s.width}
  saved |= {'gate': s.hidden, 'up': s.hidden}
  device, host = policies.names(remat)
  kept = 0 if 'input' in host else s.width
  if remat == 'none':
    kept += sum(saved.values()) + s.hidden
  kept += sum(saved.get(n, 0) for n in device)
  layers = 2 * s.layers * s.tokens * kept
  weights = 2 * s.width * (3 * s.hidden + 2 * s.heads + 2 * s.kv)
  head = 2 * s.vocabulary * s.width
  return math.ceil(count * state / cut) + layers + min(weights, head) + head
