"""What a config leaves at 0 is chosen by the rows and the model."""

import types

import numpy as np
import post_examples as toy
import pytest

from configs import dpo as dpo_config
from configs import reward as reward_config
from configs import sft as sft_config
from llama3_jax import config as configs
from llama3_jax.post import training
from llama3_jax.train import fit


def rows(count, length):
  return types.SimpleNamespace(tokens=np.zeros((count, 2, length), np.int32))


@pytest.mark.parametrize('recipe', [sft_config, dpo_config, reward_config])
def test_steps_are_of_whole_epochs_and_the_schedule_fits(recipe):
  config = recipe.get_config()
  for count, steps in ((1, 1), (8, 3), (100, 38), (5000, 1875)):
    settled = training.settle(config, toy.CONFIG, rows(count, 128))
    t, o = settled.train, settled.optim
    assert (t.steps, t.length, o.decay) == (steps, 128, steps)
    assert t.steps * t.batch >= 3 * count > (t.steps - 1) * t.batch
    assert min(steps - 1, 1) <= o.warmup <= max(steps // 20, 1)
    fit.check(settled, toy.CONFIG)
  assert config.train.steps == 0  # the config of the run is as it was


def test_what_is_given_stays():
  given = {'train.steps': 7, 'train.length': 320, 'optim.peak': 0.5}
  given |= {'optim.warmup': 2, 'optim.decay': 5}
  config = configs.edit(sft_config.get_config(), given)
  settled = training.settle(config, toy.CONFIG, rows(100, 64))
  assert {k: configs.flatten(settled)[k] for k in given} == given


def test_larger_models_take_smaller_steps_adapters_larger_ones_dpo_smaller_ones():
  sft, dpo = sft_config.get_config(), dpo_config.get_config()
  sizes = (1e6, 1.35e8, 3e9, 8e9, 4e11)
  full = [training.peak(n, sft) for n in sizes]
  assert full == sorted(full, reverse=True) and full[-1] == 1e-5  # of the paper
  assert all(training.peak(n, dpo) < rate for n, rate in zip(sizes, full))
  sft.part.rank = 8
  assert all(training.peak(n, sft) >= rate for n, rate in zip(sizes, full))
