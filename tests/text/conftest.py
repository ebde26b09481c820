"""Vocabularies: a toy one in `path` of the test file, and Meta's."""

import json
import os

import pytest

from llama3_jax.text.tokenizer import Tokenizer


@pytest.fixture(scope='module')
def toy(path):
  return Tokenizer.load(path)


@pytest.fixture(scope='module')
def meta():
  """Meta's vocabulary, which the user has to bring."""
  cache = os.environ.get('LLAMA3_CACHE', os.path.expanduser('~/.cache/llama3_jax'))
  path = os.environ.get('LLAMA3_TOKENIZER', os.path.join(cache, 'tokenizer.model'))
  if not os.path.exists(path):
    pytest.skip('no Meta vocabulary: set LLAMA3_TOKENIZER to its tokenizer.model')
  return Tokenizer.load(path)


@pytest.fixture(scope='module')
def parity(assets):
  text = (assets / 'llama3_tokenizer/parity.json').read_text(encoding='utf-8')
  return json.loads(text)
