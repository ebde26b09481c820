"""What the stages of pre-training share: a model as wide as the vocabulary it reads."""

import importlib.util
import json

import numpy as np
import pytest

from experiments import pretrain
from llama3_jax import feed
from llama3_jax.base.errors import UserError
from llama3_jax.config import model_config
from llama3_jax.model import llama
from llama3_jax.train import models
from llama3_jax.train import step


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


def test_what_a_stage_hands_on_is_measured_once(toy, tmp_path, monkeypatch):
  """The loop measured its last step already."""
  calls, usual = [], step.evaluate

  def evaluate(params, batches, loss):
    calls.append(params)
    return usual(params, batches, loss)

  monkeypatch.setattr(step, 'evaluate', evaluate)
  found = pretrain.main(config(toy, 3), str(tmp_path / 'run'))
  assert len(calls) == 2  # before the first step, after the last
  rows = (tmp_path / 'run/metrics.jsonl').read_text().split('\n')
  [*_, last] = [
    row for row in map(json.loads, filter(None, rows)) if 'eval_loss' in row
  ]
  assert last['step'] == 3 and last['eval_loss'] == found['eval_loss']['eval_loss']


def test_other_parameters_are_measured_anew():
  measure = step.once(lambda params: {'eval_loss': float(params.norm[0])})
  make = lambda value: llama.Params(None, None, np.full(1, value), None)
  first, other = make(1.0), make(2.0)
  for params in (first, other, first, first):
    assert measure(params) == {'eval_loss': params.norm[0]}
  measure(first)['eval_loss'] = 0  # the caller's own
  assert measure(first) == {'eval_loss': 1.0}
  plain = {'norm': 1}  # has no weak reference: measured every time
  count = step.once(lambda params: {'eval_loss': params.pop('norm')})
  assert count(plain) == {'eval_loss': 1}
  with pytest.raises(KeyError):
    count(plain)


def test_held_out_rows_are_measured_once_for_the_same_parameters(monkeypatch):
  calls = []
  monkeypatch.setattr(step, 'evaluate', lambda *_: calls.append(1) or {'loss': 2.0})
  measure = step.evaluator(None, feed.empty(feed.Tokens, dict(B=4, T=8)), 2)
  params = llama.Params(None, None, None, None)
  assert measure(params) == measure(params) == {'eval_loss': 2.0} and len(calls) == 1
