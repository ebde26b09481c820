"""A run of the training loop in miniature, and ways to stop it."""

import functools
import json
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import pretrain as pretrain_config
from llama3_jax.config import ModelConfig
from llama3_jax.data import pipeline
from llama3_jax.model import llama
from llama3_jax.reliable import guard
from llama3_jax.train import loop
from llama3_jax.train import loss as losses
from llama3_jax.train import metrics
from llama3_jax.train import models
from llama3_jax.train import optim
from llama3_jax.train import step

C = ModelConfig(2, 32, 4, 4, 8, 48, vocab_size=64, dtype='float32', attention='dense')
LOSS = functools.partial(losses.next_token, config=C, chunk=0)
TIMES = ('seconds', 'tokens_per_s', 'mfu', 'goodput', 'compile_s')


def config(**train):
  c = pretrain_config.base()
  c.optim.update(dict(peak=1e-2, warmup=3, decay=20))
  c.train.update(dict(steps=12, batch=8, length=16, save_every=4, keep=20))
  c.train.update(dict(eval_every=5, log_every=1, prefetch=0))
  c.train.update(train)
  return c


class Dies(Exception):
  pass


class Data(pipeline.Rows):
  """Rows that can fail, or do something, before giving a certain batch."""

  def __init__(self, documents, at=None, then=None):
    super().__init__({'web': documents}, [(0, {'web': 1.0})], seed=0)
    self.number, self.at, self.then = 0, at, then

  def restore(self, state):
    super().restore(state)
    self.at = None

  def plan(self, batch_size, seq_len):
    self.number += 1
    if self.number == self.at:
      self.then()
    return super().plan(batch_size, seq_len)


def start():
  return jax.jit(llama.init, static_argnums=1)(jax.random.key(0), C)


def probe(params):
  return {'eval_loss': float(jnp.sum(params.layers.wq))}


def train_step(c):
  optimizer = optim.create(optim.OptimConfig(**c.optim))
  return step.compose(LOSS, optimizer, c.train.microbatches, guard.create(c.train))


def train(workdir, data, evaluate=probe, **fields):
  c = config(**fields)
  state = loop.run(c, workdir, C, train_step(c), data, start, evaluate)
  return state, steady(workdir)


def steady(workdir):
  """Rows of metrics.jsonl without the times, nor the rows that are nothing else."""
  rows = [r for r in metrics.read(workdir) if 'host_seconds' not in r]
  return [{k: v for k, v in r.items() if k not in TIMES} for r in rows]


def equal(a, b):
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_array_equal(x, y)


def die(folder, step):
  """What the data does: waits for the save of `step`, then fails."""

  def then():
    until(lambda: (folder / 'checkpoints' / str(step)).exists())
    raise Dies

  return then


def until(condition, seconds=60):
  end = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < end, 'waited too long'
    time.sleep(0.01)


@pytest.fixture(scope='module')
def finished(toy, launcher, tmp_path_factory):
  """The workdir of an uninterrupted run of 80 steps."""
  workdir = tmp_path_factory.mktemp('finished') / 'run'
  status, text = launcher.run(f'--config={toy}/toy.py', f'--workdir={workdir}')
  assert status == 0, text
  return workdir


def final(workdir):
  params, _ = models.load(workdir)
  results = json.loads((workdir / 'results.json').read_text())
  assert 0 < results.pop('goodput')['goodput'] < 1
  return params, results, steady(workdir)


def same(workdir, finished):
  found, expected = final(workdir), final(finished)
  equal(found[0], expected[0])
  assert found[1:] == expected[1:]
  steps = [r['step'] for r in found[2] if 'loss' in r]
  assert steps == sorted(set(steps))
