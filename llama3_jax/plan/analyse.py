"""From the compiler's texts to the numbers of a plan for one program."""

import dataclasses
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

from llama3_jax import axes
from llama3_jax.config import ModelConfig
from llama3_jax.plan import collectives
from llama3_jax.plan import hlo
from llama3_jax.plan import memory
from llama3_jax.plan import roofline
from llama3_jax.plan.compile import Compiled
from llama3_jax.plan.topology import Target


def run(
  compiled: Compiled, model: ModelConfig, target: Target, request: Mapping
) -> dict:
  """All numbers of a report, as JSON-ready values.

  Args: request: `step`, `batch` (sequences of the whole mesh), `length`,
  `microbatches`, `loss_chunk`, `limit` (bytes a device; 0: the chip's), and what else
  the report is to contain.
  """
  chip, mesh = target.chip, compiled.program['axes']
  module = hlo.parse(compiled.hlo)
  visits, loops = hlo.visits(module, request.get('loops', {}))
  layers = hlo.layer_loops(module, loops, model.n_layers)
  coordinates = np.array(compiled.program['places'])
  network = collectives.Network(mesh, coordinates, chip, target.dims, target.wrap)
  transfers = collectives.find(module, network, layers, visits)
  rows = request['batch'] * (2 if request['step'] == 'dpo' else 1)
  others = (request[name] for name in ('length', 'microbatches', 'loss_chunk'))
  sizes = memory.sizes(model, mesh, rows, *others)
  buffers, peak = memory.fullest(module, compiled, loops, sizes)
  kinds, used, host = memory.by_kind(module, compiled, peak, chip)
  needed, tokens = roofline.model_flops(
    model, request['step'], request['batch'], request['length']
  )
  done = roofline.work(module, visits, model, chip)
  if not compiled.full:  # the cycle estimates may then be meaningless
    done = dataclasses.replace(done, cycles=0.0)
  limit = int(request.get('limit') or chip.limit)
  unknown = [loop.path for loop in loops.values() if loop.trips is None]
  return {
    'target': str(target),
    'chips': target.n_chips,
    'devices': target.n_devices,
    'mesh': mesh,
    **request,
    'tokens': tokens,
    'memory': {
      'kinds': kinds,
      'used': used,
      'limit': limit,
      'fits': used <= limit,
      'host': host,
      'knob': memory.knob(kinds, buffers, request['step'] not in roofline.GENERATES),
    },
    'buffers': [dataclasses.asdict(b) for b in buffers],
    'collectives': collectives.table(transfers),
    'transfers': _largest(transfers),
    # In the place of those that the request knows.
    'loops': [
      {'trips': x.trips, 'source': x.source, 'path': x.path, 'depth': len(x.inside)}
      for x in loops.values()
    ],
    'time': roofline.step(done, transfers, needed, tokens, target),
    'notes': notes(done, transfers, unknown, compiled, target),
    'full': compiled.full,
    'seconds': compiled.seconds,
    'compiler_memory': compiled.child_memory,
  }


def _largest(transfers, count=24):
  rows = [dataclasses.asdict(c) for c in transfers]
  rows.sort(key=lambda r: -r['bytes'] * r['times'])
  return rows[:count]


def notes(
  done: roofline.Work,
  transfers: Sequence[collectives.Collective],
  unknown: Sequence[str],
  compiled: Compiled,
  target: Target,
) -> list[str]:
  """Caveats of the numbers, as sentences for the reader."""
  lines = []
  if done.branches:
    lines.append(
      'FLOPs inside conditional branches (blockwise attention skips masked blocks) are '
      'counted as if every branch were taken: an upper bound.'
    )
  if unknown:
    lines.append(f'Loops whose trips are not known count once: {", ".join(unknown)}')
  padded = sum(c.bytes * c.times for c in transfers if c.disguised)
  if padded > 2**26:
    lines.append(
      f'{padded / 2**30:.2f} GiB of all-reduce are gathers written as sums of padded '
      'parts: the axis does not run along whole dims of the torus; change mesh.*'
    )
  shared = axes.over('D')[0]
  gathers = [c for c in transfers if c.kind == 'all-gather' and shared in c.axes]
  if target.slices > 1 and target.chip.dims == 3 and not gathers:
    lines.append(
      f'The gathers over {shared} are all-reduces, twice the bytes: so the compiler '
      f'does on several slices of a 3-D torus when {shared} is a whole slice; set '
      f'mesh.replica={2 * target.slices}'
    )
  late = [c for c in transfers if c.where == 'layers' and c.kind == 'all-gather']
  waiting = sum(c.bytes * c.times for c in late if not c.asynchronous)
  whole = sum(c.bytes * c.times for c in late)
  if whole and waiting > 0.1 * whole:
    lines.append(
      f'{waiting / 2**30:.1f} of {whole / 2**30:.1f} GiB of gathers in the layer loop '
      'are synchronous: the chip waits for them (plan.flags=async_gathers, or fewer '
      'constraints around them)'
    )
  if not compiled.full:
    lines.append(
      'Fast plan: no code was generated; the code itself (under 0.1 GiB a chip) is not '
      'in the memory, and compute is a roofline of every instruction (plan.full=true '
      'asks the compiler for its cycle estimates).'
    )
  return lines
