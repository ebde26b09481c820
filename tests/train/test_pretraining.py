"""What the stages of pre-training share: a model as wide as the vocabulary it reads."""

import importlib.util
import json

import pytest

from experiments import pretrain
from llama3_jax.base.errors import UserError
from llama3_jax.config import model_config
from llama3_jax.train import models


def config(toy, steps):
  spec = importlib.util.spec_from_file_location('toy_config', toy / 'toy.py')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  c = module.get_config(str(steps))
  c.model.vocab_size = 0
  return c


def test_a_vocabulary_of_0_is_that_of_the_shards(toy, tmp_path):
  c = config(toy, 3)
  pretrain.main(c, str(tmp_path / 'run'))
  size = json.loads((toy / 'web/index.json').read_text())['vocab_size']
  assert models.config(tmp_path / 'run').vocab_size == size == 512


def test_a_vocabulary_of_0_is_refused_where_no_shards_are(toy):
  with pytest.raises(UserError, match='model.vocab_size=0'):
    model_config(config(toy, 3).model)
