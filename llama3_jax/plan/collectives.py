"""Every collective of a program: kind, bytes, mesh axes, overlap, time on the links.

Bytes are those of the whole array: the result of a gather, the input of a reduction.
"""

import dataclasses
import re
from collections.abc import Iterable
from collections.abc import Sequence

import numpy as np

from llama3_jax.plan import hlo
from llama3_jax.plan.chips import Chip

KINDS = ('all-gather', 'all-reduce', 'reduce-scatter', 'all-to-all')
KINDS += ('collective-permute', 'ragged-all-to-all', 'collective-broadcast')
RINGS = ('v5e', 'v5p', 'v6e')  # without cores of their own for reduce-scatters


@dataclasses.dataclass
class Collective:
  """One collective instruction of the program."""

  kind: str
  axes: tuple[str, ...]  # of the mesh, those along which its members differ
  members: int
  times: int  # runs a step
  bytes: int  # of one run
  wire: float  # bytes one device sends in one run, ring algorithms
  seconds: float  # of one run, at full link speed
  asynchronous: bool
  where: str  # 'layers', 'loop' (another one) or 'once'
  shape: str
  path: str
  source: str
  disguised: bool  # a gather, written as a sum of zero-padded parts


@dataclasses.dataclass(frozen=True)
class Network:
  """The mesh on its torus: axis sizes, int places [devices, slice + coords], chip."""

  axes: dict[str, int]
  places: np.ndarray
  chip: Chip
  dims: tuple[int, ...]
  wrap: tuple[bool, ...]

  def spanned(self, group: np.ndarray) -> tuple[str, ...]:
    """Mesh axes along which the devices of `group` (int indices) differ."""
    shape = tuple(self.axes.values())
    index = np.stack(np.unravel_index(group, shape))
    return tuple(
      name for name, row in zip(self.axes, index) if len(set(row.tolist())) > 1
    )

  def speed(self, group: np.ndarray, kind: str = '') -> float:
    """Bytes/s that a device can send to the other devices of `group` (int indices).

    kind: of the collective. A reduce-scatter runs along a single ring, both ways, where
    its group is not a square of two whole dims, whereas an all-reduce over a slice uses
    the links of all dims at once: so it is in code generated for v5p and v6e.
    """
    chip, places = self.chip, self.places[group]
    if len(set(places[:, 0].tolist())) > 1:
      return chip.network
    vary = [len(set(column.tolist())) for column in places[:, 1:].T]
    if chip.dims == 1:
      return chip.network if vary[0] > 1 else chip.link
    whole = [n for n, size in zip(vary, self.dims) if n == size > 1]
    square = len(group) == np.prod(whole) and len(whole) == 2 and len(set(whole)) == 1
    if kind == 'reduce-scatter' and chip.name in RINGS and not square:
      return 2 * chip.link / chip.devices
    total = 0.0
    for n, size, ring in zip(vary, self.dims, self.wrap):
      if n > 1:  # both ways round a ring, or one way along a line
        total += chip.link * (2 if ring and n == size else 1)
    return (total or chip.link) / chip.devices


def group(op: hlo.Op, n: int) -> np.ndarray:
  """Indices in the flat mesh of one group of a collective over `n` devices, int [m]."""
  rest = op.rest
  if match := re.search(r'replica_groups=mesh\[([^\]]*)\]\s*\{([^}]*)\}', rest):
    return _of_mesh(*match.groups(), rest)
  if match := re.search(
    r'replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?', rest
  ):
    out, base, order = (
      [int(x) for x in (g or '').split(',') if x] for g in match.groups()
    )
    ids = np.arange(np.prod(base)).reshape(base)
    ids = ids.transpose(order) if order else ids
    return ids.reshape(out)[0].reshape(-1)
  if match := re.search(r'replica_groups=\{\{([\d,]+)\}', rest):
    return np.array([int(x) for x in match.group(1).split(',')])
  if match := re.search(r'source_target_pairs=\{\{(\d+),(\d+)\}', rest):
    return np.array([int(match.group(1)), int(match.group(2))])
  return np.arange(n)


def _of_mesh(sizes, used, rest):
  """Group of "'a'=2,'b'=4" over "'b'", or over "'b':(2)2", a part of an axis."""
  names = re.findall(r"'(\w+)'=(\d+)", sizes)
  shape = [int(n) for _, n in names]
  ids = np.arange(np.prod(shape))
  if match := re.search(r'device_ids=\(?\[([\d,]+)\](?:T\(([\d,]+)\))?', rest):
    base, order = ([int(x) for x in (g or '').split(',') if x] for g in match.groups())
    ids = ids.reshape(base).transpose(order or range(len(base)))
  ids = ids.reshape(shape)
  parts = dict(
    (a, (int(p or 1), int(s or 0)))
    for a, p, s in re.findall(r"'(\w+)'(?::\((\d+)\)(\d+))?", used)
  )
  index = []
  for name, size in ((a, int(s)) for a, s in names):
    before, part = parts.get(name, (0, 0))
    step = size // (before * part) if part else 1
    index.append(slice(0, (part or size) * step, step) if before else slice(0, 1))
  return ids[tuple(index)].reshape(-1)


def _measure(op, kind, members):
  """(bytes, wire bytes) of one run."""
  arrays = op.arrays
  if op.kind.endswith('-start') and kind in ('all-gather', 'reduce-scatter'):
    arrays = arrays[len(arrays) // 2 :]
  if op.kind == 'collective-permute-start':
    arrays = arrays[1:2]
  size = sum(a.bytes for a in arrays)
  if kind == 'reduce-scatter':
    size *= members
  if kind == 'collective-permute':
    return size, size
  share = (members - 1) / members
  return size, size * share * (2 if kind == 'all-reduce' else 1)


def _disguised(op, ops):
  """Whether an all-reduce sums parts that were written into zeros: a gather."""
  names = [ops[n].name + ops[n].kind for n in op.operands if n in ops]
  return bool(names) and all('dynamic-update-slice' in n for n in names)


def find(
  module: hlo.Module, network: Network, layers: set[str], found: Sequence[hlo.Visit]
) -> list[Collective]:
  """Every Collective of a program.

  Args: layers: names of the layer loops; found: the visits of hlo.visits.
  """
  n, groups, between = int(np.prod(list(network.axes.values()))), {}, []
  for visit in found:
    for op in module.computations.get(visit.computation, {}).values():
      kind = op.kind.removesuffix('-start')
      if kind not in KINDS:
        if sent := _between_slices(module, op, visit, layers, network):
          between.append(sent)
        continue
      if len(group(op, n)) > 1:
        channel = op.attribute('channel_id') or f'{visit.computation} {op.name}'
        groups.setdefault((visit.loops, channel, kind), []).append((visit, op))
  starts = {
    called
    for ops in module.computations.values()
    for op in ops.values()
    if op.name.startswith('async-collective-start')
    for called in op.called
  }
  return between + [
    _collective(module, network, layers, visit, op, later)
    for same in groups.values()
    for visit, op, later in _transfers(same, starts)
  ]


def _transfers(same, starts):
  """(visit, instruction, whether asynchronous) of each transfer of a channel.

  A fused asynchronous collective appears in its start, each step that it overlaps and
  its end; an unrolled loop has several collectives of one channel.
  """
  later = any(v.asynchronous or op.kind.endswith('-start') for v, op in same)
  begun = [
    (v, op) for v, op in same if v.computation in starts or op.kind.endswith('-start')
  ]
  for visit, op in begun or (same[:1] if later else same):
    yield visit, op, later


def _collective(module, network, layers, visit, op, later):
  """Collective of an instruction."""
  kind = op.kind.removesuffix('-start')
  members = group(op, int(np.prod(list(network.axes.values()))))
  if visit.computation.startswith('all-reduce-scatter') and kind == 'all-reduce':
    kind = 'reduce-scatter'
    size = op.bytes
    wire = size * (len(members) - 1) / len(members)
  else:
    size, wire = _measure(op, kind, len(members))
  return Collective(
    kind=kind,
    axes=network.spanned(members),
    members=len(members),
    times=visit.times,
    bytes=size,
    wire=wire,
    seconds=wire / network.speed(members, kind),
    asynchronous=later,
    where=_where(visit.loops, layers),
    shape=', '.join(map(str, op.arrays[:3])),
    path=op.path,
    source=module.source(op),
    disguised=kind == 'all-reduce'
    and _disguised(op, module.computations[visit.computation]),
  )


def _between_slices(module, op, visit, layers, network):
  """A transfer between TPU slices: a send that the runtime makes a collective of."""
  match = re.search(r'_xla_megascale_transfer_type="(\w+)"', op.rest)
  if op.kind != 'send' or not match:
    return None
  size = op.arrays[0].bytes
  return Collective(
    kind=match.group(1).lower().replace('_', '-'),
    axes=tuple(network.axes)[:1],  # the outermost
    members=len(op.rest.split('_xla_megascale_target="')[1].split('}')[0].split(',')),
    times=visit.times,
    bytes=size,
    wire=size,
    seconds=size / network.chip.network,
    asynchronous=True,
    where=_where(visit.loops, layers),
    shape=str(op.arrays[0]),
    path=op.path,
    source=module.source(op),
    disguised=False,
  )


def _where(loops, layers):
  if set(loops) & layers:
    return 'layers'
  return 'loop' if loops else 'once'


def table(found: Iterable[Collective]) -> list[dict]:
  """Rows {kind, axes, where, async, count, runs, bytes, seconds}, largest first."""
  rows = {}
  for c in found:
    kind = c.kind + (' (of a gather)' if c.disguised else '')
    key = (kind, c.axes, c.where, c.asynchronous)
    row = rows.setdefault(
      key,
      dict(
        kind=kind,
        axes='+'.join(c.axes),
        where=c.where,
        asynchronous=c.asynchronous,
        count=0,
        runs=0,
        bytes=0,
        seconds=0.0,
      ),
    )
    row['count'] += 1
    row['runs'] += c.times
    row['bytes'] += c.times * c.bytes
    row['seconds'] += c.times * c.seconds
  return sorted(rows.values(), key=lambda r: -r['bytes'])
