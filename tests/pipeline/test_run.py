"""The pipeline executor: gradients of one device on every mesh, memory by schedule."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_pipeline as toy

from configs import pretrain
from llama3_jax import config as configs
from llama3_jax import feed
from llama3_jax import mesh as meshes
from llama3_jax.base.errors import UserError
from llama3_jax.model import llama
from llama3_jax.pipeline import layout as layouts
from llama3_jax.pipeline import plans
from llama3_jax.pipeline import run
from llama3_jax.pipeline import schedule as schedules
from llama3_jax.train import checkpoint
from llama3_jax.train import fit
from llama3_jax.train import loss as losses
from llama3_jax.train import optim
from llama3_jax.train import step

# name: mesh, microbatches, further fields of the model, the pipeline
CASES = {
  'alone, uneven': (dict(stage=4), 6, dict(remat='full'), dict(group=4)),
  'tied, bare ends, few microbatches': (
    dict(stage=4),
    2,
    dict(tie_embeddings=True),
    dict(chunks=2, bare=True),
  ),
  'fsdp': (dict(fsdp=4, stage=2), 3, dict(remat='qkvo'), dict(chunks=3)),
  'tensor': (dict(stage=2, tensor=4), 3, dict(tie_embeddings=True), {}),
  'context': (dict(stage=2, context=4), 6, {}, dict(chunks=3, group=4)),
  'mixed': (dict(fsdp=2, stage=2, tensor=2), 3, {}, dict(form='1f1b')),
  'mixed, no branch differs': (
    dict(replica=2, stage=2, context=2),
    3,
    {},
    dict(chunks=2, form='1f1b', together=True),
  ),
}


def close(found, wanted, tolerance=2e-5):
  """Every leaf equal within `tolerance` of the leaf's largest value."""
  names = jax.tree_util.tree_leaves_with_path(wanted)
  for (path, b), a in zip(names, jax.tree.leaves(found), strict=True):
    a, b = np.asarray(a), np.asarray(b)
    worst = np.abs(a - b).max() / max(np.abs(b).max(), 1e-6)
    assert worst < tolerance, (jax.tree_util.keystr(path), worst)


@pytest.mark.parametrize('name', CASES)
def test_gradients_are_those_of_one_device(mesh, name):
  sizes, microbatches, fields, pipeline = CASES[name]
  config = dataclasses.replace(toy.C, **fields)
  plan = toy.plan_of(config, sizes['stage'], microbatches, pipeline)
  with jax.set_mesh(mesh(**sizes)):
    params = toy.arrange(toy.init(config), plan.layout)
    found, metrics = toy.gradients(params, feed.place(toy.packed()), plan)
    for p, g in zip(jax.tree.leaves(params), jax.tree.leaves(found)):
      assert g.dtype == jnp.float32 and g.sharding.is_equivalent_to(p.sharding, p.ndim)
    padding = plan.layout.source < 0
    for g in jax.tree.leaves(found.layers):
      assert not np.asarray(g)[padding].any()  # so the optimizer leaves it at zero
    found = toy.restore(found, plan.layout)
  close((found, metrics), toy.expected(dataclasses.replace(config, remat='none')))


def test_measured_loss_is_that_of_one_device(mesh):
  plan = toy.plan_of(toy.C, 2, 3, dict(chunks=2), form='forward')
  with jax.set_mesh(mesh(stage=2, context=2)):
    params = toy.arrange(toy.init(toy.C), plan.layout)
    found = jax.jit(run.measure, static_argnums=2)(
      params, feed.place(toy.packed()), plan
    )
  close(found, toy.expected(toy.C)[1])


def test_storage_order_is_undone_exactly(mesh):
  """Parameters and optimizer state, onto another number of stages too."""
  config = dataclasses.replace(toy.C, n_layers=5)
  optimizer = optim.create(optim.OptimConfig())
  first, second = layouts.Layout(5, 4), layouts.Layout(5, 2, 2)
  with jax.set_mesh(mesh(stage=4, tensor=2)):
    state = step.compose(None, optimizer).start(toy.init(config))
    state = state.replace(opt=jax.tree.map(lambda x: x + 1, state.opt))
    stored = toy.arrange(state, first)
    leaf = stored.params.layers.w_gate
    assert leaf.shape == (4, 2, 32, 48)
    assert leaf.sharding.shard_shape(leaf.shape) == (1, 2, 32, 24)
    wanted = layouts.abstract(
      llama.abstract(config, mesh=jax.sharding.get_mesh()), first
    )
    assert wanted.layers.w_gate.shape == leaf.shape
    back = jax.tree.map(np.asarray, toy.restore(stored, first))
  with jax.set_mesh(mesh(stage=2, fsdp=2)):
    again = jax.tree.map(np.asarray, toy.restore(toy.arrange(back, second), second))
  for a, b, c in zip(*map(jax.tree.leaves, (state, back, again)), strict=True):
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(a, c)


def test_checkpoint_of_another_stage_count_is_read(mesh, tmp_path):
  """Saved by four stages, read by two with two chunks each."""
  config = dataclasses.replace(toy.C, n_layers=5)
  then, now = layouts.Layout(5, 4), layouts.Layout(5, 2, 2)
  with jax.set_mesh(mesh(stage=4, fsdp=2)):
    checkpoints = checkpoint.Checkpoints(tmp_path)
    checkpoints.save(1, toy.arrange(toy.init(config), then), {})
    checkpoints.close()
  with jax.set_mesh(mesh(stage=2)):
    fresh = toy.arrange(toy.init(config), now)
    wanted = layouts.saved(fresh, now, then, jax.sharding.get_mesh())
    read, _ = checkpoint.Checkpoints(tmp_path).restore(wanted)
    found = jax.jit(layouts.convert, static_argnums=(1, 2))(read, then, now)
    plain = layouts.saved(fresh, now, None, jax.sharding.get_mesh())
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(fresh), strict=True):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)  # drawn on another mesh
    assert a.sharding.is_equivalent_to(b.sharding, a.ndim)
  shapes = [x.shape for x in jax.tree.leaves(toy.init(config))]
  assert [x.shape for x in jax.tree.leaves(plain)] == shapes


def test_abstract_parameters_are_laid_out_like_real_ones(mesh):
  config = dataclasses.replace(toy.C, n_layers=5)
  layout = layouts.Layout(5, 2, 2)
  with jax.set_mesh(mesh(fsdp=2, stage=2, tensor=2)):
    real = toy.arrange(toy.init(config), layout)
    here = jax.sharding.get_mesh()
    wanted = layouts.abstract(llama.abstract(config, mesh=here), layout, here)
  for a, b in zip(jax.tree.leaves(real), jax.tree.leaves(wanted), strict=True):
    assert (a.shape, a.dtype) == (b.shape, b.dtype)
    assert a.sharding.is_equivalent_to(b.sharding, a.ndim)


def test_small_gradients_do_not_vanish_under_bfloat16(mesh):
  """Sums over microbatches are float32: 12 equal rows give 12 times one row."""
  config = dataclasses.replace(toy.C, n_layers=2, dtype='bfloat16')

  def equal(n):
    plan = toy.plan_of(config, 2, n, {})
    batch = feed.place(jax.tree.map(lambda x: np.repeat(x[:1], n, 0), toy.packed()))
    found, _ = toy.gradients(toy.arrange(toy.init(config), plan.layout), batch, plan)
    return jax.tree.map(np.asarray, found)

  with jax.set_mesh(mesh(stage=2)):
    one, twelve = equal(1), equal(12)
  close(twelve, jax.tree.map(lambda x: 12 * x, one), 1e-5)


FORMS = ('aligned', 'gpipe')


def test_memory_is_bounded_by_the_schedule(mesh):
  """1F1B is flat in the microbatches; all forwards first keeps every input."""
  kept, rows = 2 * 128 * 32 * 4, 5 * 2 * 128 * 4  # bytes a microbatch: input, batch
  aligned, gpipe = ([toy.temporary(mesh, f, m) for m in (8, 16)] for f in FORMS)
  assert aligned[1] - aligned[0] < 8 * rows * 1.5
  assert gpipe[1] - gpipe[0] > 8 * kept * 0.9


def test_stage_without_a_pipeline_is_refused(mesh):
  sizes = (1, 1, 2, 1, 1)
  with pytest.raises(UserError, match='mesh.stage=2'):
    meshes.check(sizes, toy.C)
  meshes.check(sizes, toy.C, pipelined=True)


def test_unknown_form_is_one_line():
  with pytest.raises(UserError, match="pipeline.form='forward'"):
    toy.plan_of(toy.C, 2, 2, dict(form='forward'))
  assert set(schedules.FORMS) == {'aligned', '1f1b', 'gpipe'}


def test_the_paper_s_layout_of_the_405b():
  """16,384 devices: TP 8, PP 16, DP 128, one layer a chunk, 16 microbatches."""
  c = pretrain.get_config('405b')
  c.mesh.update(dict(tensor=8, stage=16))
  c.pipeline.update(dict(chunks=8, bare=True))
  c.train.update(dict(microbatches=16, ramp=((0, 2048, 8192),)))
  c.model.update(dict(remat='none', reshard=False))
  model = configs.model_config(c.model)
  devices = meshes.abstract(meshes.shape(c.mesh, 16_384))
  with jax.sharding.use_abstract_mesh(devices):
    tail = functools.partial(losses.head_loss, config=model)
    plan = plans.of(c, model, tail)
    fit.check(c, model, plan)
    assert schedules.bubble(plan.schedule) == 15 / (8 * 16)
    params = layouts.abstract(llama.abstract(model, mesh=devices), plan.layout, devices)
    batch = feed.abstract(feed.Tokens, devices, dict(B=2048, T=8192))
    grads, found = jax.eval_shape(
      lambda p, b: step.gradients(plan, p, b, 16), params, batch
    )
  assert found['loss'].shape == ()
  for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(params)):
    assert (a.shape, a.sharding.spec) == (b.shape, b.sharding.spec)
