"""Learning rate, ramp, weight decay mask and AdamW against their formulas."""

import math

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from configs import pretrain
from llama3_jax.base.errors import UserError
from llama3_jax.config import ModelConfig
from llama3_jax.model import llama
from llama3_jax.train import fit
from llama3_jax.train import optim
from llama3_jax.train import schedule

PAPER = schedule.Schedule(8e-5, 8000, 1_200_000, 0.01)


@pytest.mark.parametrize(
  'step,rate',
  [
    (0, 0.0),
    (60, 6.0e-7),
    (4000, 4e-5),
    (8000, 8e-5),
    (342_160, 6.56e-5),
    (1_200_000, 8e-7),
    (2_000_000, 8e-7),
  ],
)
def test_learning_rate_of_the_405b(step, rate):
  assert float(schedule.learning_rate(step, PAPER)) == pytest.approx(rate, rel=1e-3)


def test_learning_rate_is_continuous_and_falls_after_warm_up():
  s = schedule.Schedule(1e-3, 10, 100, 0.1, anneal_start=80, anneal_steps=20)
  rates = np.array([float(schedule.learning_rate(i, s)) for i in range(101)])
  assert np.all(np.diff(rates[:11]) > 0) and np.all(np.diff(rates[10:]) < 0)
  assert np.abs(np.diff(rates[10:])).max() < 1e-4


def test_anneal_is_linear_to_zero():
  s = schedule.Schedule(1e-3, 10, 100, 0.1, anneal_start=60, anneal_steps=40)
  plain = schedule.Schedule(1e-3, 10, 100, 0.1)
  start = float(schedule.learning_rate(60, plain))
  assert float(schedule.learning_rate(59, s)) == float(
    schedule.learning_rate(59, plain)
  )
  for step, left in ((60, 1), (70, 0.75), (80, 0.5), (90, 0.25), (100, 0), (200, 0)):
    found = float(schedule.learning_rate(step, s))
    assert found == pytest.approx(start * left, rel=1e-5, abs=1e-12)


def test_anneal_from_the_first_step_and_constant_rate():
  anneal = schedule.Schedule(1e-3, 0, 0, anneal_start=0, anneal_steps=10)
  assert float(schedule.learning_rate(0, anneal)) == pytest.approx(1e-3)
  assert float(schedule.learning_rate(5, anneal)) == pytest.approx(5e-4)
  constant = schedule.Schedule(1e-3, 4, 0)
  assert float(schedule.learning_rate(2, constant)) == pytest.approx(5e-4)
  assert float(schedule.learning_rate(10**6, constant)) == pytest.approx(1e-3)


def test_learning_rate_is_the_same_traced():
  traced = jax.jit(lambda i: schedule.learning_rate(i, PAPER))
  for i in (0, 60, 8000, 342_160):
    assert float(traced(jnp.int32(i))) == pytest.approx(
      float(schedule.learning_rate(i, PAPER)), rel=1e-6
    )


def test_ramp_is_keyed_on_consumed_tokens():
  phases = schedule.PAPER_RAMP
  for tokens, batch, length in (
    (0, 1024, 4096),
    (251_999_999, 1024, 4096),
    (252_000_000, 1024, 8192),
    (2_869_999_999_999, 1024, 8192),
    (2_870_000_000_000, 2048, 8192),
    (15_600_000_000_000, 2048, 8192),
  ):
    p = schedule.phase(phases, tokens)
    assert (p.batch, p.length) == (batch, length)
  sizes = [p.batch * p.length / 2**20 for p in phases]
  assert sizes == [4, 8, 16]  # 4M, 8M, 16M tokens a batch


def train(**fields):
  return ml_collections.ConfigDict(dict(ramp=(), batch=4, length=8) | fields)


def test_ramp_of_a_config():
  assert schedule.ramp(train()) == (schedule.Phase(0, 4, 8),)
  rows = ((0, 2, 8), (100, 4, 8))
  assert schedule.ramp(train(ramp=rows))[1] == schedule.Phase(100, 4, 8)


def test_decay_that_ends_before_warm_up_is_refused():
  config = pretrain.get_config('tiny')
  config.optim.update(warmup=10, decay=5)
  with pytest.raises(UserError, match='optim.decay=5 is before optim.warmup=10'):
    fit.check(config, CONFIG)


@pytest.mark.parametrize(
  'rows', [((5, 2, 8),), ((0, 2, 8), (0, 4, 8)), ((0, 2, 8), (9, 2, 8), (5, 4, 8))]
)
def test_ramp_that_does_not_rise_from_zero_is_refused(rows):
  with pytest.raises(UserError, match='train.ramp'):
    schedule.ramp(train(ramp=rows))


CONFIG = ModelConfig(2, 16, 2, 1, 8, 24, vocab_size=32, dtype='float32')


def test_weight_decay_skips_norm_scales_only():
  mask = optim.decayed(llama.abstract(CONFIG))
  leaves = jax.tree_util.tree_leaves_with_path(mask)
  skipped = {
    jax.tree_util.keystr(p, simple=True, separator='.') for p, m in leaves if not m
  }
  assert skipped == {'layers.attn_norm', 'layers.ff_norm', 'norm'}


def adamw(params, grads, c, mask):
  """The update of the paper's AdamW, plain numpy in float64; one tree a step."""
  p = {k: v.astype(np.float64) for k, v in params.items()}
  m = {k: 0 * v for k, v in p.items()}
  v = {k: 0 * x for k, x in p.items()}
  for t, g in enumerate(grads, 1):
    norm = math.sqrt(sum((x.astype(np.float64) ** 2).sum() for x in g.values()))
    scale = min(1, c.clip / norm)
    rate = float(schedule.learning_rate(t - 1, c.schedule))
    for k in p:
      x = g[k] * scale
      m[k] = c.b1 * m[k] + (1 - c.b1) * x
      v[k] = c.b2 * v[k] + (1 - c.b2) * x * x
      up = m[k] / (1 - c.b1**t) / (np.sqrt(v[k] / (1 - c.b2**t)) + c.eps)
      p[k] = p[k] - rate * (up + c.weight_decay * mask[k] * p[k])
  return p


@pytest.mark.parametrize('clip', [1.0, 1e6])
def test_adamw_is_the_formula(clip):
  c = optim.OptimConfig(peak=1e-2, warmup=2, decay=10, clip=clip)
  rng = np.random.default_rng(0)
  shapes = {'w': (4, 3), 'norm': (3,)}
  make = lambda: {k: rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}
  params, grads = make(), [make() for _ in range(6)]
  optimizer = optim.create(c)
  found = jax.tree.map(jnp.asarray, params)
  state = optimizer.init(found)
  for g in grads:
    updates, state = optimizer.update(g, state, found)
    found = jax.tree.map(jnp.add, found, updates)
  expected = adamw(params, grads, c, {'w': 1, 'norm': 0})
  for k in shapes:
    np.testing.assert_allclose(found[k], expected[k], rtol=1e-5, atol=1e-6)


def test_paper_values():
  c = optim.OptimConfig()
  assert (c.b1, c.b2, c.eps, c.weight_decay, c.clip) == (0.9, 0.95, 1e-5, 0.1, 1.0)
  assert (c.warmup, c.decay, c.floor) == (8000, 1_200_000, 0.01)


@pytest.mark.parametrize('steps', [1, 2, 7, 600])
def test_a_run_of_any_length_has_a_step_that_trains(steps):
  given = schedule.filled(0, 0, steps)
  s = schedule.Schedule(1e-3, given['optim.warmup'], given['optim.decay'])
  assert max(float(schedule.learning_rate(i, s)) for i in range(steps)) > 5e-4
