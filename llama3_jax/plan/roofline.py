"""Lower bound of a step's time: matrix products, memory traffic, collectives.

step = max(compute + synchronous collectives + waits for the host, all collectives);
compute is, over all instructions, the larger of FLOPs / peak and bytes / bandwidth,
times their runs. With the compiler's own cycle estimates (a full compile) compute is
cycles / clock instead, and attention kernels, which have no estimate, run at KERNEL of
the peak. A loop waits for the host where its copies take longer than its compute.
"""

import collections
import dataclasses
import re
from collections.abc import Mapping
from collections.abc import Sequence

from llama3_jax.config import ModelConfig
from llama3_jax.kernels.rule import Rule
from llama3_jax.model import flops as counts
from llama3_jax.plan import collectives
from llama3_jax.plan import hlo
from llama3_jax.plan.chips import Chip
from llama3_jax.plan.topology import Target

GENERATES = ('prefill', 'decode')  # steps of the engine, the others train
FLOATS = ('bf16', 'f16', 'f32')
KERNEL = 0.6  # of the peak: published splash and flash kernels at long lengths
FORMULA = (
  'MFU bound = model FLOPs / (devices x peak x step); model FLOPs a token = 6 x matmul '
  'parameters + 6 L N H T (causal); step = max(compute + synchronous collectives '
  '+ waits for the host, all collectives)'
)
# No work of their own: the instructions that they run are counted separately.
FREE = ('parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast', 'while')
FREE += ('conditional', 'call', 'after-all', 'partition-id', 'replica-id', 'iota')
FREE += ('copy-done', 'async-start', 'async-done', 'async-update', 'send', 'recv')
FREE += ('send-done', 'recv-done', 'opt-barrier', 'domain', 'broadcast')
SLICES = ('slice', 'dynamic-slice', 'gather')
UPDATES = ('dynamic-update-slice', 'scatter')  # of their first operand, in place


@dataclasses.dataclass(frozen=True)
class Work:
  """Work of one device in a step."""

  flops: float  # of matrix products, attention kernels included
  kernels: float  # FLOPs of attention kernels alone
  traffic: float  # bytes to and from device memory
  seconds: float  # the roofline of the instructions
  host: float  # bytes between device and host memory
  waits: float  # seconds that loops wait for them
  cycles: float  # the compiler's estimate; 0 in a fast plan
  branches: bool  # whether some FLOPs are in branches that may not be taken


def work(
  module: hlo.Module, found: Sequence[hlo.Visit], model: ModelConfig, chip: Chip
) -> Work:
  """Work of all visits `found` by hlo.visits."""
  own = hlo.flops(module, found)
  deep = {}

  def inside(name):
    if name not in deep:
      ops = module.computations.get(name, {}).values()
      called = sum(inside(c) for op in ops if op.kind != 'while' for c in op.called)
      deep[name] = own.get(name, 0) + called
    return deep[name]

  total = dict(flops=0.0, kernels=0.0, traffic=0.0, seconds=0.0, cycles=0.0, host=0.0)
  branches, busy, copied = False, collections.Counter(), collections.Counter()
  for visit in found:
    total['flops'] += own.get(visit.computation, 0) * visit.times
    if visit.fused:
      continue
    ops = module.computations.get(visit.computation, {})
    for op in ops.values():
      branches |= op.kind == 'conditional' and any(inside(c) for c in op.called)
      if op.kind in FREE or op.kind.removesuffix('-start') in collectives.KINDS:
        continue
      if op.kind.endswith('-done'):
        continue
      kernel = _kernel(op, model, chip.platform)
      n = kernel + sum(inside(c) for c in op.called if op.kind == 'fusion')
      n += own_flops(op, ops)
      moved = _traffic(module, op, ops)
      peak = chip.peak * _small(module, op, ops, chip)
      seconds = max(n / peak, moved / chip.bandwidth)
      for name, value in (
        ('kernels', kernel),
        ('traffic', moved),
        ('seconds', seconds),
        ('cycles', hlo.cycles(op)),
        ('host', host := _host(op, ops)),
      ):
        total[name] += value * visit.times
      busy[visit.loops[:1]] += seconds * visit.times
      copied[visit.loops[:1]] += host / chip.host * visit.times
  total['flops'] += total['kernels']
  waits = sum(max(s - busy[loop], 0) for loop, s in copied.items())
  return Work(**total, waits=waits, branches=bool(branches))


def _host(op, ops):
  """Bytes that an instruction copies between the memories of device and host."""
  at = {'dynamic-update-slice': 1}.get(op.kind, 0)
  if op.kind not in ('dynamic-update-slice', 'dynamic-slice', 'copy', 'copy-start'):
    return 0
  source = ops.get(op.operands[at])
  spaces = [x.arrays[0].space for x in (op, source) if x is not None and x.arrays]
  if len(spaces) < 2 or spaces.count(hlo.HOST) != 1:
    return 0
  return (source if at else op).arrays[0].bytes


def _small(module, op, ops, chip):
  """Times the peak at which an instruction multiplies: more in float8 and int8."""
  inside = [module.computations.get(c, {}) for c in op.called]
  found = [(x, body) for body in inside for x in body.values()] + [(op, ops)]
  for x, body in found:
    if x.kind not in ('dot', 'convolution', 'custom-call') or len(x.operands) < 2:
      continue
    sides = [body[n].arrays for n in x.operands[:2] if n in body]
    types = [a[0].dtype[:2] for a in sides if a]
    if types == ['f8', 'f8']:
      return chip.eight
    if types == ['s8', 's8'] and x.kind != 'custom-call':  # a kernel's tables are s8
      return chip.whole
  return 1


def own_flops(op: hlo.Op, ops: Mapping[str, hlo.Op]) -> int:
  """FLOPs of a matrix product outside of any fusion; 0 for other instructions."""
  if op.kind not in ('dot', 'convolution'):
    return 0
  return hlo.product(op, ops)


def _kernel(op, model, platform):
  """FLOPs of a causal attention kernel, by its name and its operands' shapes."""
  name = f'{op.name} {op.path} {op.rest[:200]}'.lower()
  if op.kind != 'custom-call' or not re.search('splash|mha|flash', name):
    return 0
  if not re.search('tpu_custom_call|triton|mosaic|fmha', name) or 'preproc' in name:
    return 0
  layouts = op.rest.partition('operand_layout_constraints=')[2].partition('},')
  heads = [
    a
    for a in hlo.arrays(''.join(layouts[:2]) + op.rest.partition('api_version')[0])
    if len(a.dims) >= 3 and a.dims[-1] == model.d_head and a.dtype in FLOATS
  ]
  if len(heads) < 2:
    return 0
  # TPU kernels take [.., heads, T, H], GPU kernels [B, T, heads, H].
  column = 1 if platform == 'cuda' else -2
  q, length = heads[0], max(a.dims[column] for a in heads[:3])
  products = 2  # scores and output
  if re.search('dkv|bwd|backward', name):  # one kernel, or another one makes dq
    alone = any(a.size >= q.size and a.dims[-2:] == q.dims[-2:] for a in op.arrays)
    products = 5 if alone else 4
  elif '_dq' in name:
    products = 3
  return products * q.size * 2 * Rule(model.window).seen(length)


def _traffic(module, op, ops):
  """Bytes that an instruction reads and writes in device memory; of a slice its own."""
  body = module.computations.get(op.called[0], {}) if op.kind == 'fusion' else {}
  if op.kind == 'dynamic-update-slice' and op.operands[1] in ops:
    return 2 * ops[op.operands[1]].bytes
  if op.kind == 'scatter' and op.operands[-1] in ops:
    return 2 * ops[op.operands[-1]].bytes
  if op.kind in SLICES:
    return 2 * sum(a.bytes for a in op.arrays if _on_device(a))
  parameters = _parameters(body)
  moved = 0
  for i, name in enumerate(op.operands):
    if name not in ops:
      continue
    whole = sum(a.bytes for a in ops[name].arrays if _on_device(a))
    if whole and i in parameters:
      whole = min(whole, _read(module, body, parameters[i]))
    moved += whole
  return moved + sum(_written(body, op))


def _on_device(array):
  return array.space in (0, hlo.HOST)


def _parameters(body):
  """{number: name} of a computation's parameters."""
  return {
    int(re.match(r'number=(\d+)', x.rest)[1]): x.name
    for x in body.values()
    if x.kind == 'parameter'
  }


def _read(module, body, name):
  """Bytes that a fused computation reads of the value `name`: of a slice, the slice."""
  total = 0
  for user in (x for x in body.values() if name in x.operands):
    if user.kind in SLICES and user.operands[0] == name:
      total += user.bytes
    elif user.kind == 'bitcast':
      total += _read(module, body, user.name)
    elif user.kind in UPDATES and user.operands[0] == name:
      pass  # unchanged outside of the written part
    elif user.kind == 'tuple' or user.kind in collectives.KINDS:
      pass  # passed through, or moved by the network
    elif user.kind == 'fusion':
      inner = module.computations.get(user.called[0], {})
      names = _parameters(inner)
      for i, operand in enumerate(user.operands):
        total += _read(module, inner, names[i]) if operand == name else 0
    else:
      total += body[name].bytes
  return total


def _written(body, op):
  """Bytes of each array that an instruction writes: of an update, the written part."""
  root = next((x for x in body.values() if x.root), None)
  values = [root]
  if root is not None and root.kind == 'tuple':
    values = [body.get(n) for n in root.operands]
  if len(values) != len(op.arrays):
    values = [None] * len(op.arrays)
  for x, array in zip(values, op.arrays):
    while x is not None and x.kind == 'bitcast':
      x = body.get(x.operands[0])
    if not _on_device(array) or _through(x):
      continue
    part = x.operands[-1 if x.kind == 'scatter' else 1] if _updates(x) else ''
    if part in body:
      yield body[part].bytes
    else:
      yield array.bytes


def _through(op):
  """Whether a result is an argument unchanged, or of an asynchronous collective: its
  buffer goes through every product that the collective overlaps."""
  return op is not None and op.kind in ('parameter', *collectives.KINDS)


def _updates(op):
  return op is not None and op.kind in UPDATES


def model_flops(
  model: ModelConfig, step: str, batch: int, length: int
) -> tuple[float, int]:
  """(FLOPs the model needs for a step over all devices, tokens of the step)."""
  token = counts.per_token(model, length)
  if step == 'prefill':  # without logits: decoding begins with the last token
    head = 2 * model.vocab_size * model.d_model
    return (token / 3 - head) * length * batch, batch * length
  if step == 'decode':  # one token against a full cache: no half of a triangle
    rule = Rule(model.window)
    more = min(model.window or length, length) - rule.seen(length)
    attention = 4 * model.n_layers * model.n_heads * model.d_head * more
    return (token / 3 + attention) * batch, batch
  rows = 2 * batch if step == 'dpo' else batch
  without = (
    token - 6 * model.vocab_size * model.d_model
  )  # the head of a reward is small
  token = {'reward': without, 'ppo': token + without}.get(step, token)
  return token * rows * length, rows * length


def step(
  done: Work,
  found: Sequence[collectives.Collective],
  needed: float,
  tokens: int,
  target: Target,
) -> dict:
  """Seconds of a step and derived numbers, as a dict.

  Args: done: of `work`; found: all collectives; needed, tokens: of model_flops.
  """
  chip = target.chip
  compute = done.seconds
  if done.cycles:
    compute = done.cycles / chip.clock + done.kernels / chip.peak / KERNEL
  waiting = sum(c.seconds * c.times for c in found if not c.asynchronous)
  network = sum(c.seconds * c.times for c in found)
  seconds = max(compute + waiting + done.waits, network, 1e-12)
  share = needed / target.n_devices / chip.peak
  return {
    'compute_s': compute,
    'synchronous_s': waiting,
    'collectives_s': network,
    'host_wait_s': done.waits,
    'host_bytes': done.host,
    'step_s': seconds,
    'ideal_s': share,
    'mfu_bound': share / seconds,
    'tokens_per_s_chip': tokens / target.n_chips / seconds,
    'flops': done.flops,
    'flops_needed': needed / target.n_devices,
    'traffic_bytes': done.traffic,
    'estimate': 'compiler cycles' if done.cycles else 'roofline of each instruction',
    'formula': FORMULA,
  }
