"""Every config builds, and the big ones type-check on the mesh they are meant for."""

import functools
import importlib
import json
import math
import pathlib

import jax
import jax.numpy as jnp
import ml_collections
import pytest

from configs import scaling
from llama3_jax import axes
from llama3_jax import config as configs
from llama3_jax import feed
from llama3_jax import mesh as meshes
from llama3_jax.base.errors import UserError
from llama3_jax.data import mix
from llama3_jax.model import llama
from llama3_jax.train import loss as losses
from llama3_jax.train import optim
from llama3_jax.train import schedule
from llama3_jax.train import sources
from llama3_jax.train import step

ROOT = pathlib.Path(__file__).resolve().parents[2]
SIZES = ('tiny', '8b', '70b', '405b')
VARIANTS = {
  'pretrain': SIZES,
  'long_context': SIZES,
  'anneal': SIZES,
  'reward': SIZES,
  'sft': SIZES,
  'dpo': SIZES,
  'ppo': SIZES,
  'grpo': SIZES,
  'reject': ('tiny', 'paper'),
  'evaluate': ('chat', 'base'),
  'curate': ('herd', 'files'),
  'inspect': SIZES,
  'judge': ('reference', 'code', 'reasoning', 'knowledge'),
  'scaling': scaling.MODES + scaling.KNOWN,
  'tokenizer': ('train', 'tiny', 'extend', 'paper'),
  'convert': ('auto_to_hf', 'meta_to_hf', 'hf_to_meta', 'gguf_to_run', 'run_to_hf'),
}
NAMES = sorted(p.stem for p in (ROOT / 'configs').glob('*.py') if p.stem != '__init__')
ALL = [(n, v) for n in NAMES for v in (None, *VARIANTS.get(n, ()))]
PUBLISHED = {'8b': 8_030_261_248, '70b': 70_553_706_496, '405b': 405_853_388_800}


def build(name, variant):
  get_config = importlib.import_module(f'configs.{name}').get_config
  return get_config() if variant is None else get_config(variant)


@pytest.mark.parametrize('name,variant', ALL)
def test_config_builds(name, variant):
  c = build(name, variant)
  assert isinstance(c, ml_collections.ConfigDict)
  assert (ROOT / 'experiments' / f'{c.experiment}.py').is_file()
  json.dumps(configs.flatten(c))  # a workdir keeps it as JSON
  if 'model' in c:
    sizes = c.model.to_dict()
    sizes['vocab_size'] = sizes['vocab_size'] or 512  # 0: that of the shards
    model = configs.model_config(sizes)
    assert configs.model_config(configs.model_fields(model)) == model
  if 'optim' in c:
    optim.create(optim.OptimConfig(**c.optim))
  if 'train' in c:
    assert schedule.ramp(c.train)[0].tokens == 0
    assert c.train.microbatches >= 1
  if 'data' in c and 'mix' in c.data:
    phases = mix.schedule(sources.phases(c.data), sorted(c.data.mix.to_dict()))
    assert phases


@pytest.mark.parametrize('name', NAMES)
def test_sweep_changes_fields_that_exist(name):
  sweep = getattr(importlib.import_module(f'configs.{name}'), 'sweep', tuple)
  flat = configs.flatten(build(name, None))
  for changes in sweep():
    assert changes and set(changes) <= set(flat)


def test_two_builds_share_nothing():
  a, b = build('pretrain', 'tiny'), build('pretrain', 'tiny')
  a.optim.peak = 7.0
  assert b.optim.peak != 7.0


@pytest.mark.parametrize('size', PUBLISHED)
def test_parameter_count_is_the_published_one(size):
  assert llama.count(llama.SIZES[size]) == PUBLISHED[size]
  assert (
    llama.count(configs.model_config(build('pretrain', size).model))
    == (PUBLISHED[size])
  )


def test_tied_models_have_the_published_counts():
  assert llama.count(llama.SIZES['1b']) == 1_235_814_400
  assert llama.count(llama.SIZES['3b']) == 3_212_749_824


def test_table_3():
  """Layers, width, feed-forward width and heads of table 3; spread of the weights."""
  sizes = {'8b': (32, 4096, 14336, 32), '70b': (80, 8192, 28672, 64)}
  sizes['405b'] = (126, 16384, 53248, 128)
  for name, (layers, width, hidden, heads) in sizes.items():
    c = llama.SIZES[name]
    assert (c.n_layers, c.d_model, c.d_ff, c.n_heads) == (layers, width, hidden, heads)
    assert (c.n_kv_heads, c.d_head, c.vocab_size) == (8, 128, 128_256)
    assert (c.rope_theta, c.norm_eps, c.tie_embeddings) == (500_000.0, 1e-5, False)
    assert c.rope_scaling == configs.RopeScaling(8.0, 1.0, 4.0, 8192)


# Devices each size is meant for; annealing has few rows of 131,072 tokens.
DEVICES = {
  ('pretrain', '8b'): 256,
  ('pretrain', '70b'): 1024,
  ('pretrain', '405b'): 8192,
  ('long_context', '8b'): 256,
  ('long_context', '70b'): 1024,
  ('long_context', '405b'): 8192,
  ('anneal', '8b'): 256,
  ('anneal', '70b'): 1024,
  ('anneal', '405b'): 4096,
}
CASES = []  # the phases at the two ends of the ramp
for _name, _size in DEVICES:
  _ramp = schedule.ramp(build(_name, _size).train)
  CASES += [(_name, _size, _phase) for _phase in dict.fromkeys((_ramp[0], _ramp[-1]))]


def batch_of(phase):
  sizes = dict(B=phase.batch, T=phase.length)
  return feed.abstract(feed.Tokens, jax.sharding.get_abstract_mesh(), sizes)


def described(x):
  """Shape, type and layout of an abstract array."""
  return x.shape, x.dtype, str(x.sharding.spec) if x.ndim else ''


@pytest.mark.parametrize('name,size,phase', CASES)
def test_training_step_type_checks_on_its_mesh(name, size, phase):
  c = build(name, size)
  model = configs.model_config(c.model)
  sizes = meshes.shape(c.mesh, DEVICES[name, size])
  meshes.check(sizes, model)
  for p in schedule.ramp(c.train):
    meshes.check_batch(sizes, p.batch, p.length, c.train.microbatches)
  loss = functools.partial(
    losses.next_token, config=model, z_loss=1e-4, chunk=c.train.loss_chunk
  )
  optimizer = optim.create(optim.OptimConfig(**c.optim))
  with jax.sharding.use_abstract_mesh(meshes.abstract(sizes)):
    mesh = jax.sharding.get_abstract_mesh()
    params = llama.abstract(model, mesh=mesh)
    train_step = step.compose(loss, optimizer, c.train.microbatches)
    state = jax.eval_shape(train_step.start, params)
    new, metrics = jax.eval_shape(train_step, state, batch_of(phase))
    grads, _ = jax.eval_shape(
      lambda p, b: jax.grad(loss, has_aux=True)(p, b), params, batch_of(phase)
    )
  before = jax.tree.map(described, (params, params, state.opt))
  assert jax.tree.map(described, (grads, new.params, new.opt)) == before
  assert metrics['loss'].shape == () and metrics['loss'].dtype == jnp.float32
  for x in jax.tree.leaves(params):  # FSDP cuts every matrix
    cut = math.prod(x.shape) / math.prod(x.sharding.shard_shape(x.shape))
    assert len(x.shape) < 3 or cut >= sizes[1]


def test_context_16_is_the_long_context_mesh_of_the_405b():
  c = build('long_context', '405b')
  sizes = dict(zip(axes.AXES, meshes.shape(c.mesh, 8192)))
  assert (sizes['context'], sizes['tensor'], sizes['fsdp']) == (16, 8, 64)


def mesh_config(**sizes):
  return {a: sizes.get(a, 1) for a in axes.AXES}


def test_minus_one_takes_the_rest():
  assert meshes.shape(mesh_config(fsdp=-1, tensor=2), 8) == (1, 4, 1, 1, 2)


@pytest.mark.parametrize(
  'sizes,words',
  [
    (dict(fsdp=-1, tensor=-1), ('mesh.fsdp', 'mesh.tensor')),
    (dict(fsdp=3), ('fsdp=3', '8 devices')),
    (dict(fsdp=-1, tensor=3), ('tensor=3', '8 devices')),
    (dict(fsdp=0, tensor=-1), ('fsdp=0',)),
    (dict(fsdp=-2, tensor=-4), ('mesh.fsdp=-2',)),
  ],
)
def test_mesh_that_does_not_fill_the_devices_is_refused(sizes, words):
  with pytest.raises(UserError) as e:
    meshes.shape(mesh_config(**sizes), 8)
  assert all(w in str(e.value) for w in words) and '\n' not in str(e.value)


@pytest.mark.parametrize(
  'sizes,words',
  [
    ((1, 1, 1, 1, 16), ('K=8', 'tensor=16')),
    ((1, 3, 1, 1, 1), ('D=4096', 'fsdp=3')),
    ((1, 1, 2, 1, 1), ('mesh.stage',)),
  ],
)
def test_model_that_does_not_divide_over_the_mesh_is_refused(sizes, words):
  with pytest.raises(UserError) as e:
    meshes.check(sizes, llama.SIZES['8b'])
  assert all(w in str(e.value) for w in words) and '\n' not in str(e.value)


@pytest.mark.parametrize(
  'changes,field',
  [
    (dict(n_heads=3), 'model.n_heads=3'),
    (dict(d_head=7), 'model.d_head=7'),
    (dict(dtype='float16'), 'model.dtype'),
    (dict(attention='flashy'), 'model.attention'),
  ],
)
def test_bad_model_field_is_named(changes, field):
  c = build('pretrain', 'tiny').model
  c.update(changes)
  with pytest.raises(UserError, match=field):
    configs.model_config(c)
