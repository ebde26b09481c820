"""Compile the real step for hardware that is not here; say what it will need (3.3).

  python -m experiment --config=configs/plan.py:405b,v5p:8x8x16 --workdir=runs/plan

Takes 10 to 20 seconds on any CPU with the extra `plan-tpu` (or `plan-gpu`). Writes
results.json, plan.txt and report.html: memory a chip by kind, the largest buffers and
the field that shrinks each, FLOPs, collectives, a roofline step time and MFU bound.
"""

import functools
import sys
import tempfile

from absl import logging

from llama3_jax import axes
from llama3_jax import config as configs
from llama3_jax import feed
from llama3_jax import mesh as meshes
from llama3_jax import workdir as workdirs
from llama3_jax.base import files
from llama3_jax.base import processes
from llama3_jax.base.errors import UserError
from llama3_jax.generate import absent
from llama3_jax.generate.group import Sizes
from llama3_jax.model import llama
from llama3_jax.plan import analyse
from llama3_jax.plan import compile as compiler
from llama3_jax.plan import flags
from llama3_jax.plan import programs
from llama3_jax.plan import report
from llama3_jax.plan import search
from llama3_jax.plan import topology
from llama3_jax.post import dpo
from llama3_jax.post import grpo
from llama3_jax.post import ppo
from llama3_jax.post import reward
from llama3_jax.post import rollout
from llama3_jax.post import sft
from llama3_jax.report import page as pages
from llama3_jax.train import loss as losses
from llama3_jax.train import optim
from llama3_jax.train import part
from llama3_jax.train import step

ABSENT = True  # its chips are not here: no mesh is made of those that are
STEPS = ('train', *absent.KINDS, 'sft', 'dpo', 'reward', 'ppo', 'grpo')
BATCHES = {'dpo': feed.Pairs, 'reward': feed.Ranked}
BATCHES |= {'ppo': ppo.Valued, 'grpo': rollout.Answers}
SIZES = {'dpo': {'A': 2}, 'reward': {'A': 1, '_': 3}}  # of letters that others lack


def main(config, workdir):
  """Plan one step, or search; returns the numbers of results.json."""
  config = check(config)
  folder = workdirs.claim(config, workdir)
  if config.plan.search:
    found, text = explore(config)
  else:
    found = plan(config)
    text = report.text(found)
    pages.write(folder / 'report.html', report.page(found))
  files.write_text(folder / 'plan.txt', text)
  processes.write_json(folder / 'results.json', found)
  sys.stdout.write(text)
  if not config.plan.search and not found['memory']['fits']:
    raise UserError(report.verdict(found))
  return found


def check(config):
  """`config` with its batch filled in; UserError before anything is compiled."""
  config = config.copy_and_resolve_references()
  p = config.plan
  if p.step not in STEPS:
    raise UserError(f'plan.step={p.step!r} must be one of {", ".join(STEPS)}')
  target = topology.parse(p.target)
  flags.flags(target.chip.name, flags.names(target.chip.name, p.flags))
  model = configs.model_config(config.model)
  shape = topology.check(config.mesh, target)
  generates = p.step in absent.KINDS
  meshes.check(shape, model, generates)
  if p.weights and not generates:
    raise UserError(f'plan.weights={p.weights!r} is for plan.step=prefill or decode')
  t = config.train
  t.batch = t.batch or shape[0] * shape[1] * t.microbatches
  meshes.check_batch(shape, t.batch, t.length, t.microbatches)
  if not topology.installed(target.chip):
    topology.devices(target)  # says which extra is missing
  return config


def plan(config):
  """Compile and read one program: the numbers of a report."""
  target = topology.parse(config.plan.target)
  chip, t, p = target.chip, config.train, config.plan
  options = flags.flags(chip.name, flags.names(chip.name, p.flags))
  full = p.full or chip.platform == 'cuda'  # seconds there, and it says more
  with tempfile.TemporaryDirectory() as folder:
    try:
      compiled = compiler.run(
        'experiments.plan:lower', config, folder, options, full, p.timeout_s
      )
    except compiler.OutOfMemory as e:
      needed = f'{report.size(e.needed)} of {report.size(e.available or chip.limit)}'
      raise UserError(
        f'does not fit: {needed} a device; change train.batch (fewer rows a chip), '
        'model.remat, mesh.context or the slice in plan.target'
      ) from None
  request = {
    'model': config.plan.size,
    'step': p.step,
    'batch': t.batch,
    'length': t.length,
    'microbatches': t.microbatches,
    'loss_chunk': t.loss_chunk,
    'remat': config.model.remat,
    'weights': p.weights,
    'flags': options,
    'limit': int(p.memory_gib * 2**30) or chip.limit,
  }
  if p.step in absent.KINDS:
    shape = topology.check(config.mesh, target)
    found = dict(zip(axes.AXES, shape))
    sizes = _sizes(config, axes.parts('B', found))
    request['loops'] = absent.loops(p.step, sizes, axes.parts('C', found))
  return analyse.run(compiled, configs.model_config(config.model), target, request)


def explore(config):
  """Search: ({'ranking': [...], 'left_out': [...]}, text)."""
  target = topology.parse(config.plan.target)
  limit = int(config.plan.memory_gib * 2**30) or target.chip.limit
  model = configs.model_config(config.model)
  space = configs.fill(search.Space(), config.search, 'search')
  small = configs.fill(optim.OptimConfig(), config.optim, 'optim')
  state = 4 + optim.BYTES[small.mu_dtype] + optim.BYTES[small.nu_dtype]
  possible, left = search.candidates(
    model, config.mesh.to_dict(), target, config.train.length, space, limit, state
  )
  tried = possible[: config.plan.candidates]
  left += [(str(c), 'beyond plan.candidates') for c in possible[len(tried) :]]
  results = []
  for candidate in tried:
    try:
      found = plan(configs.edit(config, candidate.changes))
      used, fits, time = found['memory']['used'], found['memory']['fits'], found['time']
    except UserError:
      used, fits, time = (
        candidate.floor,
        False,
        {'tokens_per_s_chip': 0, 'mfu_bound': 0},
      )
    row = {'candidate': str(candidate), 'used': used, 'fits': fits, **time}
    results.append(row)
    logging.info('%s: %s', candidate, report.size(used))
  results = search.ranked(results)
  return {'ranking': results, 'left_out': left}, search.text(results, left)


def lower(config):
  """(lowered program, mesh) of a config; runs in the child process."""
  model = configs.model_config(config.model)
  mesh = topology.mesh(config.mesh, topology.parse(config.plan.target))
  batch, length = config.train.batch, config.train.length
  kind = config.plan.step
  if kind in absent.KINDS:
    sizes = _sizes(config, axes.parts('B', dict(mesh.shape)))
    return absent.lower(mesh, model, sizes, kind, config.plan.weights), mesh
  params, letters, new = llama.abstract(model, mesh=mesh), llama.dims(model), ()
  if kind in ('reward', 'ppo'):
    head, ranks = reward.abstract(model, mesh=mesh), reward.dims(model)
    params, letters, new = head, ranks, ('head',)
  if kind == 'ppo':  # the policy, and a critic of the same sizes
    params = ppo.Learned(llama.abstract(model, mesh=mesh), head)
    letters, new = ppo.Learned(llama.dims(model), ranks), ('value.head',)
  sizes = dict(B=batch, T=length) | SIZES.get(kind, {})
  rows = feed.abstract(BATCHES.get(kind, feed.Tokens), mesh, sizes)
  loss = _loss(config, kind, model)
  optimizer = optim.of(config)
  trained = part.of(config, letters, new)
  train_step = step.compose(loss, optimizer, config.train.microbatches, part=trained)
  return programs.train(mesh, params, rows, train_step), mesh


def _loss(config, kind, model):
  """The loss of a stage, as its experiment has it."""
  t = config.train
  if kind == 'train':
    own = dict(z_loss=t.z_loss, chunk=t.loss_chunk)
    return functools.partial(losses.next_token, config=model, **own)
  if kind == 'reward':
    return functools.partial(reward.loss, config=model)
  own = {
    'ppo': dict(critic=model, c=ppo.PPOConfig()),
    'grpo': dict(c=grpo.GRPOConfig(), longest=t.length),
  }.get(kind, {})
  loss = {'sft': sft, 'dpo': dpo, 'ppo': ppo, 'grpo': grpo}[kind].loss
  return functools.partial(loss, config=model, chunk=t.loss_chunk, **own)


def _sizes(config, groups):
  """Sizes of a chunk of prompts of `length` that is read, or of rows at that position,
  each of which decodes a token."""
  t = config.train
  rows = t.batch // groups
  given = (rows,), (rows * t.length,), t.length
  return Sizes(*given, steps=1, microbatches=t.microbatches)
