"""Post-training of a toy model from a folder of its own."""

import post_examples as toy
import pytest

from llama3_jax.train import final


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  """A folder with a byte vocabulary and a toy model as the pre-trained one."""
  folder = tmp_path_factory.mktemp('post')
  toy.tokenizer(folder)
  final.save(folder / 'base' / 'final', toy.model(), toy.CONFIG)
  return folder


def training(config, root, start, steps=3):
  config.init_from = str(root / start)
  config.data.tokenizer = str(root / 'bytes.model')
  config.data.update(dict(tasks=24, heldout_tasks=8))
  config.train.update(
    dict(steps=steps, batch=4, length=320, save_every=2, eval_every=3, log_every=1)
  )
  return config
