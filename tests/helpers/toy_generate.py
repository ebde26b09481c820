"""A toy model that generates."""

import jax
import pytest

from llama3_jax.config import ModelConfig
from llama3_jax.generate.settings import Settings
from llama3_jax.model import llama

CONFIG = ModelConfig(2, 32, 4, 2, 8, 64, vocab_size=64, dtype='float32')
GREEDY = Settings(temperature=0.0, max_new=8)


@pytest.fixture(scope='module')
def params():
  return jax.jit(llama.init, static_argnums=1)(jax.random.key(0), CONFIG)
