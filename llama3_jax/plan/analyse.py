"""From the compiler's texts to numbers: what a plan knows about one program."""

import dataclasses

import numpy as np

from llama3_jax import axes
from llama3_jax.plan import collectives
from llama3_jax.plan import hlo
from llama3_jax.plan import memory
from llama3_jax.plan import roofline


def run(compiled, model, target, request):
  """Everything a report says, as JSON-ready values.

  Args: compile.Compiled; ModelConfig; topology.Target; request: dict with `step`,
  `batch` (sequences of the whole mesh), `length`, `microbatches`, `loss_chunk`.
  """
  chip, mesh = target.chip, compiled.program['axes']
  module = hlo.parse(compiled.hlo)
  found, loops = hlo.visits(module)
  layers = hlo.layer_loops(module, loops, model.n_layers)
  places = np.array(compiled.program['places'])
  network = collectives.Network(mesh, places, chip, target.dims, target.wrap)
  transfers = collectives.find(module, network, layers, found)
  sizes = memory.sizes(
    model,
    mesh,
    request['batch'] * (2 if request['step'] == 'dpo' else 1),
    request['length'],
    request['microbatches'],
    request['loss_chunk'],
  )
  buffers, peak = memory.fullest(module, compiled, loops, sizes)
  kinds, used, host = memory.by_kind(module, compiled, peak, chip)
  needed, tokens = roofline.model_flops(
    model, request['step'], request['batch'], request['length']
  )
  done = roofline.work(module, found, model, chip)
  if not compiled.full:  # a compiler may leave values without meaning there
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
      'knob': memory.knob(kinds, buffers),
    },
    'buffers': [dataclasses.asdict(b) for b in buffers],
    'collectives': collectives.table(transfers),
    'transfers': _largest(transfers),
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


def notes(done, transfers, unknown, compiled, target):
  """What a reader must know about these numbers, in sentences."""
  said = []
  if done.branches:
    said.append(
      'FLOPs inside conditional branches (blockwise attention skips masked blocks) are '
      'counted as if every branch were taken: an upper bound.'
    )
  if unknown:
    said.append(f'Loops whose trips are not known count once: {", ".join(unknown)}')
  padded = sum(c.bytes * c.times for c in transfers if c.disguised)
  if padded > 2**26:
    said.append(
      f'{padded / 2**30:.2f} GiB of all-reduce are gathers written as sums of padded '
      'parts: the axis does not run along whole dims of the torus; change mesh.*'
    )
  shared = axes.over('D')[0]
  gathers = [c for c in transfers if c.kind == 'all-gather' and shared in c.axes]
  if target.slices > 1 and target.chip.dims == 3 and not gathers:
    said.append(
      f'The gathers over {shared} are all-reduces, twice the bytes: so the compiler '
      f'does on several slices of a 3-D torus when {shared} is a whole slice; set '
      f'mesh.replica={2 * target.slices}'
    )
  late = [c for c in transfers if c.where == 'layers' and c.kind == 'all-gather']
  waiting = sum(c.bytes * c.times for c in late if not c.asynchronous)
  whole = sum(c.bytes * c.times for c in late)
  if whole and waiting > 0.1 * whole:
    said.append(
      f'{waiting / 2**30:.1f} of {whole / 2**30:.1f} GiB of gathers in the layer loop '
      'are synchronous: the chip waits for them (plan.flags=async_gathers, or fewer '
      'constraints around them)'
    )
  if not compiled.full:
    said.append(
      'Fast plan: no code was generated; the code itself (under 0.1 GiB a chip) is not '
      'in the memory, and compute is a roofline of every instruction (plan.full=true '
      'asks the compiler for its cycle estimates).'
    )
  return said
