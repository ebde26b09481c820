"""Pipelines on every mesh of 8 devices, their memory, and their programs for TPUs."""

import dataclasses
import importlib.util
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
import toy_pipeline as base

from llama3_jax import axes
from llama3_jax import feed
from llama3_jax.pipeline import schedule as schedules

# mesh, microbatches, pipeline; six layers
MATRIX = [
  (dict(stage=2, fsdp=4), 3, dict(chunks=1)),
  (dict(stage=2, replica=2, fsdp=2), 3, dict(chunks=2)),
  (dict(stage=2, context=2, tensor=2), 6, dict(chunks=3, group=5)),
  (dict(stage=4, fsdp=2), 6, dict(chunks=1, group=2)),
  (dict(stage=4, tensor=2), 3, dict(chunks=2, bare=True)),
  (dict(stage=4, context=2), 2, dict(chunks=1)),
  (dict(stage=8), 12, dict(chunks=1, bare=True, group=12)),
]
FORMS = [('aligned', False), ('aligned', True), ('1f1b', False), ('gpipe', True)]


@pytest.mark.parametrize('sizes,microbatches,pipeline', MATRIX)
def test_gradients_on_every_mesh(mesh, record, sizes, microbatches, pipeline):
  wanted = base.expected(base.C)
  worst = 0.0
  for form, together in FORMS:
    options = dict(pipeline, form=form, together=together)
    plan = base.plan_of(base.C, sizes['stage'], microbatches, options)
    with jax.set_mesh(mesh(**sizes)):
      params = base.arrange(base.init(base.C), plan.layout)
      batch = feed.place(base.packed())
      found, metrics = base.gradients(params, batch, plan)
      found = base.restore(found, plan.layout)
    for a, b in zip(jax.tree.leaves((found, metrics)), jax.tree.leaves(wanted)):
      gap = np.abs(np.asarray(a) - b).max() / max(np.abs(b).max(), 1e-6)
      worst = max(worst, float(gap))
  name = ' x '.join(f'{a} {n}' for a, n in sizes.items())
  what = f'pipeline on {name}, {microbatches} microbatches, {pipeline}: all forms'
  record(f'{what}, largest difference to one device', f'{worst:.1e}', 'below 2e-5')
  assert worst < 2e-5


@pytest.mark.parametrize('form', schedules.FORMS)
def test_memory_over_microbatches(mesh, record, form):
  found = [base.temporary(mesh, form, m) // 1024 for m in (4, 8, 16)]
  one = 2 * 128 * 32 * 4 // 1024
  bar = 'grows by 8 inputs of 32 KiB' if form == 'gpipe' else '8 to 16 adds no input'
  record(f'KiB of temporaries, {form}, 4, 8, 16 microbatches', found, bar)
  assert (found[2] - found[1] > 7 * one) == (form == 'gpipe')
  if form != 'gpipe':
    assert found[2] - found[1] < 8 * one / 2


TPU = """
import functools, numpy as np, jax
from jax.experimental import topologies
from llama3_jax import axes
from llama3_jax import feed
from llama3_jax.config import ModelConfig
from llama3_jax.model import llama
from llama3_jax.pipeline import layout, run
from llama3_jax.train import loss
chips = topologies.get_topology_desc(
  platform='tpu', topology_name='v5:2x2x4', chip_config_name='megacore',
  chips_per_host_bounds=(2, 2, 1), wrap=(False, False, True))
explicit = (jax.sharding.AxisType.Explicit,) * 5
mesh = jax.sharding.Mesh(
  np.array(chips.devices).reshape(SIZES), axes.AXES, axis_types=explicit)
c = ModelConfig(8, 1024, 8, 8, 128, 4096, vocab_size=32000, attention='dense',
                remat='full')
tail = functools.partial(loss.head_loss, config=c)
with jax.set_mesh(mesh):
  plan = plans.create(c, 4, 8, plans.PipelineConfig(together=TOGETHER), tail)
  params = layout.abstract(llama.abstract(c, mesh=mesh), plan.layout, mesh)
  batch = feed.abstract(feed.Tokens, mesh, dict(B=32, T=1024))
  program = jax.jit(run.gradients, static_argnums=2).lower(params, batch, plan)
  compiled = program.compile()
print('MiB', compiled.memory_analysis().temp_size_in_bytes >> 20)
"""
WHERE = dict(
  TPU_SKIP_MDS_QUERY='1',
  JAX_PLATFORMS='cpu',
  TPU_WORKER_HOSTNAMES='localhost',
  TPU_ACCELERATOR_TYPE='v5litepod-4',
  ALLOW_MULTIPLE_LIBTPU_LOAD='1',
)


@pytest.mark.skipif(
  importlib.util.find_spec('libtpu') is None, reason='libtpu is not installed'
)
@pytest.mark.parametrize('together', [False, True])
@pytest.mark.parametrize('sizes', [(1, 4, 4, 1, 1), (1, 1, 4, 2, 2)])
def test_program_for_a_tpu_compiles(root, record, sizes, together):
  text = TPU.replace('SIZES', str(sizes)).replace('TOGETHER', str(together))
  done = subprocess.run(
    [sys.executable, '-c', text],
    cwd=root,
    env={**os.environ, **WHERE},
    capture_output=True,
    text=True,
    timeout=600,
  )
  assert done.returncode == 0, done.stderr[-2000:]
  mesh = ' x '.join(f'{a} {n}' for a, n in zip(axes.AXES, sizes) if n > 1)
  name = f'pipeline compiled for 16 v5p, {mesh}, together {together}: temporaries'
  record(name, done.stdout.strip().split('\n')[-1], 'compiles')


def test_trained_parameters_are_those_of_one_device(record):
  """Twenty optimizer steps through experiments/compare.py, uneven layers."""
  from configs import compare as recipe
  from experiments import compare

  c = recipe.get_config()
  c.model.n_layers = 5
  c.b.mesh.update(dict(fsdp=1, stage=4, tensor=2))
  found = {side: compare.train(c, c[side]) for side in ('a', 'b')}
  gaps = {
    name: compare.difference(*(np.asarray(found[s][name]) for s in found)).max()
    for name in compare.CURVES
  }
  said = ', '.join(f'{name} {gap:.1e}' for name, gap in gaps.items())
  record('5 layers on stage 4 x tensor 2 against one device, 20 steps', said, '1e-5')
  assert max(gaps.values()) < 1e-5


def test_measured_in_bfloat16(mesh, record):
  """bfloat16 pipelines differ from bfloat16 on one device by rounding only."""
  config = dataclasses.replace(base.C, dtype='bfloat16')
  plan = base.plan_of(config, 2, 3, dict(chunks=3))
  wanted = base.expected(config)
  with jax.set_mesh(mesh(stage=2, fsdp=2, tensor=2)):
    params = base.arrange(base.init(config), plan.layout)
    found = base.gradients(params, feed.place(base.packed()), plan)[0]
    found = jax.tree.map(np.asarray, base.restore(found, plan.layout))
  pairs = list(zip(jax.tree.leaves(found), jax.tree.leaves(wanted[0])))
  gap = sum(((a - b) ** 2).sum() for a, b in pairs) / sum(
    (b**2).sum() for _, b in pairs
  )
  record('bfloat16 pipeline, relative error of the gradient', f'{gap**0.5:.1e}', '2e-2')
  assert gap**0.5 < 2e-2
