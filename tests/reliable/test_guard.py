"""What the guard calls a bad step, and what it does to the values of a step (3.3.4)."""

import jax
import numpy as np
import pytest

from llama3_jax.reliable import guard as guards


def judged(policy, norms, sigma=6.0, losses=None):
  """Verdicts and gradient sizes for steps with these norms, and the last Health."""
  guard, found, h = guards.Guard(policy, sigma), [], guards.fresh()
  judge = jax.jit(guards.judge, static_argnums=0)
  for norm, loss in zip(norms, losses or [2.0] * len(norms)):
    given = {'grad_norm': np.float32(norm), 'loss': np.float32(loss)}
    grads, bad, h = judge(guard, h, {'w': np.float32(norm)}, given)
    found.append((bool(bad), float(grads['w'])))
  return found, h


def test_spike_is_so_many_spreads_above_the_window():
  rng = np.random.default_rng(0)
  usual = 1 + 0.1 * rng.standard_normal(40)
  found, h = judged('skip', [*usual, 1.4, 9.0, 1.0])
  assert [bad for bad, _ in found] == [False] * 41 + [True, False]
  assert int(h.bad) == 1 and int(h.streak) == 0 and int(h.good) == 42
  early, _ = judged('skip', [1.0, 1.0, 9.0])
  assert not any(bad for bad, _ in early)  # too few steps to know what is usual


def test_loss_spike_at_an_ordinary_gradient_norm_is_bad():
  rng = np.random.default_rng(0)
  losses = [*(2 + 0.05 * rng.standard_normal(30)), 2.1, 20.0, 2.0]
  found, h = judged('skip', [1.0] * 33, losses=losses)
  assert [bad for bad, _ in found] == [False] * 31 + [True, False]
  assert int(h.bad) == 1
  assert float(np.max(h.losses)) < 2.5  # what was bad is no part of what is usual


@pytest.mark.parametrize('good,seen', [(guards.WARM - 1, False), (guards.WARM, True)])
def test_a_spike_is_seen_from_exactly_the_warm_up_on(good, seen):
  found, _ = judged('skip', [1.0, 1.2] * 8 if seen else [1.0, 1.2] * 7 + [1.0])
  assert guards.WARM == 16 and not any(bad for bad, _ in found)
  found, _ = judged('skip', [*([1.0, 1.2] * 8)[:good], 9.0])
  assert found[-1][0] == seen


def test_equal_values_do_not_make_a_small_rise_a_spike():
  found, _ = judged('skip', [*[1.0] * 20, 1.005, 1.05, 1.2])
  assert [bad for bad, _ in found] == [False] * 22 + [True]


def test_clip_scales_a_spike_to_the_limit_and_skips_what_is_not_finite():
  usual = [1.0, 1.2] * 20
  found, h = judged('clip', [*usual, 9.0, float('inf'), 1.0])
  (spike, size), (lost, _), (last, kept) = found[-3:]
  assert not spike and size == pytest.approx(1.1 + 6 * 0.1, rel=1e-3)
  assert lost and not last and kept == 1.0 and int(h.bad) == 2


@pytest.mark.parametrize(
  'policy,sigma', [('skip', 0.0), ('clip', 6.0), ('rewind', 6.0)]
)
def test_a_good_step_keeps_every_bit(policy, sigma):
  norms = (1 + 0.1 * np.random.default_rng(0).random(20)).astype(np.float32)
  found, _ = judged(policy, norms, sigma)
  assert found == [(False, float(norm)) for norm in norms]


def test_a_bad_step_takes_back_values_and_not_the_count_of_steps():
  old = {'w': np.float32([1.1, 2.2]), 'count': np.int32(3)}
  new = {'w': np.float32([1.3, np.nan]), 'count': np.int32(4)}
  good, bad = (guards.unless(np.bool_(bad), new, old) for bad in (False, True))
  np.testing.assert_array_equal(good['w'], new['w'])
  np.testing.assert_array_equal(bad['w'], old['w'])
  assert good['count'] == bad['count'] == 4
