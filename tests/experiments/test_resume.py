"""The three stages of pre-training, stopped inside every phase of their ramps."""

import importlib.util
import json
import time

import pytest
import toy_run as loops

from configs import anneal
from configs import long_context
from experiments import pretrain
from llama3_jax.base import files
from llama3_jax.train import models
from llama3_jax.train import prefetch
from llama3_jax.train import step as steps

# In batch, in length, in nothing: (tokens, batch, length) after 5 steps and to the end.
RAMPS = {
  'pretrain': ((0, 4, 16), (320, 8, 16)),
  'long_context': ((0, 8, 32), (1280, 4, 64)),
  'anneal': ((0, 4, 64),),
}
STEPS = 10


def config(toy, name, folder):
  """The stage's own config with the sizes of the toy run."""
  spec = importlib.util.spec_from_file_location('toy_config', toy / 'toy.py')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  c = module.get_config(str(STEPS))
  before = {'pretrain': '', 'long_context': 'pretrain', 'anneal': 'long_context'}[name]
  if before:
    stage = {'long_context': long_context, 'anneal': anneal}[name].get_config('tiny')
    c.init_from = str(folder / before)
    c.optim.update(stage.optim)
    c.model.rope_scaling.update(stage.model.rope_scaling)
  if name == 'anneal':
    c.optim.anneal_steps, c.train.average, c.train.keep = STEPS, 3, 3
  c.train.update(dict(ramp=RAMPS[name], save_every=2, eval_every=0))
  return c


def run(toy, name, folder, dies_at=0):
  """One start of a stage that fails before it reads batch `dies_at` of the run."""
  real = prefetch.Batches.take

  def take(self):
    if dies_at and self.tokens >= dies_at:
      time.sleep(0.3)  # the save before it is complete
      raise loops.Dies
    return real(self)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(prefetch.Batches, 'take', take)
    return pretrain.main(config(toy, name, folder), str(folder / name))


@pytest.fixture(scope='module')
def whole(toy, tmp_path_factory):
  """The folder of the three stages, uninterrupted."""
  folder = tmp_path_factory.mktemp('whole')
  for name in RAMPS:
    run(toy, name, folder)
  return folder


@pytest.mark.parametrize('name', RAMPS)
def test_stage_stopped_in_every_phase_ends_in_the_same_bits(toy, whole, tmp_path, name):
  for other in RAMPS:
    if other != name:
      (tmp_path / other).symlink_to(whole / other)
  starts = [start for start, *_ in RAMPS[name]]
  for i, start in enumerate(starts):
    rows, length = RAMPS[name][i][1:]
    steps.train_step.clear_cache()
    with pytest.raises(loops.Dies):
      run(toy, name, tmp_path, start + rows * length * 2)
    # this phase, and the one before where its last save lies in it
    assert steps.train_step._cache_size() <= 2
  steps.train_step.clear_cache()
  results = run(toy, name, tmp_path)
  assert steps.train_step._cache_size() == 1
  expected = files.read_json(whole / name / 'results.json')
  assert results.pop('goodput')['starts'] == expected.pop('goodput')['starts'] == 1
  assert json.loads(json.dumps(results)) == expected
  loops.equal(models.load(tmp_path / name)[0], models.load(whole / name)[0])
  assert loops.steady(tmp_path / name) == loops.steady(whole / name)
