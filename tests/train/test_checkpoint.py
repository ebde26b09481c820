"""Saved and restored to the same bits, on any mesh; a bad checkpoint is one line."""

import dataclasses
import os
import pathlib
import shutil
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama3_jax.base.errors import UserError
from llama3_jax.config import ModelConfig
from llama3_jax.config import RopeScaling
from llama3_jax.model import llama
from llama3_jax.post import reward
from llama3_jax.train import average
from llama3_jax.train import checkpoint
from llama3_jax.train import final
from llama3_jax.train import models
from llama3_jax.train import optim
from llama3_jax.train import step

C = ModelConfig(2, 32, 4, 4, 8, 48, vocab_size=64, dtype='float32')
OPTIMIZER = optim.create(optim.OptimConfig())


def state(config=C, seed=0):
  """A training state with values in every leaf."""
  params = jax.jit(llama.init, static_argnums=1)(jax.random.key(seed), config)
  made = step.compose(None, OPTIMIZER).start(params)
  return jax.tree.map(lambda x: x + jnp.asarray(seed + 1, x.dtype), made)


def abstract(tree):
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree
  )


def equal(a, b):
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_array_equal(x, y)


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
  """A workdir with the steps 3 and 7; copy it before spoiling it."""
  folder = tmp_path_factory.mktemp('saved')
  saves = checkpoint.Checkpoints(folder)
  for i in (3, 7):
    saves.save(i, state(seed=i), {'data': {'index': i}, 'tokens': 10 * i})
  saves.close()
  return folder


def opened(folder):
  return checkpoint.Checkpoints(folder)


def one_line(error):
  assert isinstance(error, UserError)
  assert '\n' not in str(error)
  return str(error)


def test_restore_gives_the_same_bits_and_the_data_state(saved):
  found, data = opened(saved).restore(abstract(state()))
  equal(found, state(seed=7))
  assert data == {'data': {'index': 7}, 'tokens': 70}


def test_restore_of_an_earlier_step(saved):
  saves = opened(saved)
  assert saves.steps() == [3, 7] and saves.latest() == 7
  equal(saves.restore(abstract(state()), 3)[0], state(seed=3))


def test_nothing_to_restore_is_none(tmp_path):
  assert opened(tmp_path).restore(abstract(state())) is None


@pytest.mark.parametrize(
  'sizes', [dict(fsdp=8), dict(fsdp=2, context=2, tensor=2)], ids=['fsdp', 'mixed']
)
def test_restore_on_other_mesh(saved, mesh, sizes):
  written = state(seed=7)  # made as it was saved: another mesh may round otherwise
  with jax.set_mesh(mesh(**sizes)):
    like = abstract(state())
    found, _ = opened(saved).restore(like)
    equal(found, written)
  wanted = jax.tree.leaves(like.params)
  for x, y in zip(jax.tree.leaves(found.params), wanted):
    assert x.sharding.is_equivalent_to(y.sharding, x.ndim)


def test_saved_on_a_mesh_and_restored_on_one_device(tmp_path, mesh):
  with jax.set_mesh(mesh(fsdp=4, tensor=2)):
    saves, given = opened(tmp_path), state(seed=5)
    saves.save(1, given, {})
    saves.close()
  found, _ = opened(tmp_path).restore(abstract(state()))
  equal(found, given)


def test_old_saves_are_removed_and_the_same_step_is_saved_once(tmp_path):
  saves = checkpoint.Checkpoints(tmp_path, keep=2)
  for i in (1, 2, 2, 3):
    saves.save(i, state(), {})
  saves.wait()
  assert saves.steps() == [2, 3]
  saves.close()


def test_saving_an_earlier_step_is_refused_not_dropped(saved, tmp_path):
  folder = shutil.copytree(saved, tmp_path / 'copy')
  saves = opened(folder)
  try:
    saves.save(5, state(), {})
  except UserError as e:
    assert '5' in one_line(e)
  else:
    saves.wait()
    assert 5 in saves.steps()


OTHERS = {
  'layers': dict(n_layers=3),
  'width': dict(d_model=64),
  'vocabulary': dict(vocab_size=96),
}


@pytest.mark.parametrize('name', OTHERS)
def test_checkpoint_of_another_model_is_one_line(saved, name):
  other = dataclasses.replace(C, **OTHERS[name])
  with pytest.raises(UserError) as e:
    opened(saved).restore(abstract(state(other)))
  text = one_line(e.value)
  assert str(saved / 'checkpoints' / '7') in text and 'model.*' in text


def files(folder):
  return sorted(p for p in pathlib.Path(folder).rglob('*') if p.is_file())


def spoil(folder, how):
  """Damage the biggest file of the newest checkpoint, or remove its state."""
  newest = folder / 'checkpoints' / '7'
  if how == 'removed':
    shutil.rmtree(newest / 'state')
    return
  if how == 'metadata':
    for file in files(newest / 'state'):
      if 'METADATA' in file.name.upper() or file.suffix == '.ocdbt':
        file.write_bytes(b'{')
    return
  file = max(files(newest / 'state'), key=lambda p: p.stat().st_size)
  content = file.read_bytes()
  half = len(content) // 2
  file.write_bytes(content[:half] if how == 'truncated' else b'\0' * len(content))


@pytest.mark.parametrize('how', ['truncated', 'zeros', 'removed', 'metadata'])
def test_corrupt_checkpoint_is_one_line_and_stays(saved, tmp_path, how):
  folder = shutil.copytree(saved, tmp_path / 'copy')
  spoil(folder, how)
  before = files(folder)
  with pytest.raises(UserError) as e:
    opened(folder).restore(abstract(state()))
  assert str(folder / 'checkpoints' / '7') in one_line(e.value)
  assert [f for f in before if not f.exists()] == []
  equal(opened(folder).restore(abstract(state()), 3)[0], state(seed=3))


def test_save_under_the_name_of_another_step_is_refused(saved, tmp_path):
  shutil.copytree(saved, tmp_path / 'run')
  steps = opened(tmp_path / 'run').steps()
  newest = tmp_path / f'run/checkpoints/{steps[-1]}'
  newest.rename(newest.with_name('100'))
  with pytest.raises(UserError, match=f'save of step {steps[-1]}'):
    opened(tmp_path / 'run').restore(abstract(state()))


def test_file_where_the_saves_are_due_is_one_line(tmp_path):
  (tmp_path / 'checkpoints').write_text('')
  with pytest.raises(UserError, match='is a file'):
    checkpoint.Checkpoints(tmp_path)


def test_reward_model_is_no_language_model_and_the_reverse(tmp_path):
  params = state().params
  for name, tree in (('lm', params), ('rm', reward.init(jax.random.key(1), params, C))):
    final.save(tmp_path / name / 'final', tree, C)
  with pytest.raises(
    UserError, match='members: .* a reward model, a language model is'
  ):
    models.load(tmp_path / 'rm', field='members')
  with pytest.raises(
    UserError, match='reward_from: .* a language model, a reward model'
  ):
    reward.load(tmp_path / 'lm')


def test_unfinished_save_is_ignored(saved, tmp_path):
  """What kill -9 leaves: a folder under its temporary name."""
  folder = shutil.copytree(saved, tmp_path / 'copy')
  steps = folder / 'checkpoints'
  shutil.copytree(steps / '7', steps / '9.orbax-checkpoint-tmp-1')
  saves = opened(folder)
  assert saves.latest() == 7
  saves.save(9, state(seed=9), {})
  saves.close()
  assert opened(folder).latest() == 9


def test_parameters_and_model_come_back(tmp_path):
  model = dataclasses.replace(C, rope_scaling=RopeScaling(4.0, 1.0, 4.0, 32))
  params = state(model).params
  final.save(tmp_path / 'run' / 'final', params, model)
  found, config = models.load(tmp_path / 'run')
  equal(found, params)
  assert config == model
  assert models.load(tmp_path / 'run' / 'final')[1] == model


def test_tied_parameters_come_back(tmp_path):
  model = dataclasses.replace(C, tie_embeddings=True)
  params = state(model).params
  final.save(tmp_path / 'final', params, model)
  found, config = models.load(tmp_path)
  assert found.head is None and config == model
  equal(found, params)


def test_parameters_are_replaced_at_once(tmp_path):
  for seed in (0, 1):
    final.save(tmp_path / 'final', state(seed=seed).params, C)
  equal(models.load(tmp_path)[0], state(seed=1).params)
  assert [p.name for p in tmp_path.iterdir()] == ['final']


def test_parameters_load_onto_a_mesh(tmp_path, mesh):
  params = state().params
  final.save(tmp_path / 'final', params, C)
  with jax.set_mesh(mesh(fsdp=4, tensor=2)):
    found, _ = models.load(tmp_path)
  equal(found, params)
  assert found.layers.wq.sharding.shard_shape((2, 32, 4, 8)) == (2, 8, 2, 8)


def test_missing_parameters_name_init_from(tmp_path):
  with pytest.raises(UserError, match='init_from') as e:
    models.load(tmp_path / 'nothing')
  one_line(e.value)


@pytest.mark.parametrize('changes', [*OTHERS.values(), dict(tie_embeddings=True)])
def test_parameters_of_another_model_are_one_line(tmp_path, changes):
  final.save(tmp_path / 'final', state().params, C)
  with pytest.raises(UserError) as e:
    models.load(tmp_path, dataclasses.replace(C, **changes))
  assert str(tmp_path / 'final' / 'params') in one_line(e.value)


def test_mean_is_the_mean():
  trees = [state(seed=i).params for i in range(3)]
  by_hand = jax.tree.map(
    lambda *x: np.mean([np.asarray(a, np.float64) for a in x], 0), *trees
  )
  for a, b in zip(jax.tree.leaves(average.mean(trees)), jax.tree.leaves(by_hand)):
    np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
    assert a.dtype == jnp.float32


def test_mean_of_sharded_models_is_the_same(mesh):
  with jax.set_mesh(mesh(fsdp=4, tensor=2)):
    found = average.mean([state(seed=i).params for i in range(3)])
    assert found.layers.wq.sharding.shard_shape((2, 32, 4, 8)) == (2, 8, 2, 8)
  plain = average.mean([state(seed=i).params for i in range(3)])
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(plain), strict=True):
    # Initial values on a mesh are equal but for rounding (test_sharding.py).
    np.testing.assert_allclose(a, b, rtol=1e-6, atol=3e-7)


def test_mean_of_different_models_or_of_none_is_refused():
  other = state(dataclasses.replace(C, n_layers=3)).params
  for trees in ([], [state().params, other]):
    with pytest.raises(UserError) as e:
      average.mean(trees)
    one_line(e.value)


@pytest.fixture
def small_disk(tmp_path):
  """A folder on a file system of 1.5 MB of its own."""
  folder = tmp_path / 'disk'
  folder.mkdir()
  mount = ['mount', '-t', 'tmpfs', '-o', 'size=1500k', 'tmpfs', str(folder)]
  if os.geteuid() or shutil.which('mount') is None:
    pytest.skip('a small file system to fill needs root')
  if subprocess.run(mount, capture_output=True).returncode:
    pytest.skip('this machine lets no one mount a small file system')
  yield folder
  subprocess.run(['umount', '-l', str(folder)], check=True)


def test_full_disk_is_one_line_and_loses_nothing(small_disk):
  saves = checkpoint.Checkpoints(small_disk, keep=100)
  with pytest.raises(UserError) as e:
    for i in range(1, 40):
      saves.save(i, state(seed=i), {})
      saves.wait()
  assert 'disk is full' in one_line(e.value)
  size = ['mount', '-o', 'remount,size=50m', str(small_disk)]
  subprocess.run(size, check=True)
  again = checkpoint.Checkpoints(small_disk, keep=100)
  latest = again.latest()
  assert latest and again.steps() == list(range(1, latest + 1))
  for i in again.steps():
    equal(again.restore(abstract(state()), i)[0], state(seed=i))
  again.save(latest + 1, state(seed=99), {})
  again.close()
  equal(opened(small_disk).restore(abstract(state()))[0], state(seed=99))


def test_full_disk_keeps_the_old_final_parameters(small_disk):
  final.save(small_disk / 'final', state().params, C)
  (small_disk / 'filler').write_bytes(os.urandom(1_300_000))
  with pytest.raises(UserError) as e:
    final.save(small_disk / 'final', state(seed=1).params, C)
  assert 'disk is full' in one_line(e.value)
  equal(models.load(small_disk)[0], state().params)
