"""A reference that follows the policy."""

import functools

import jax
import numpy as np
import post_examples as toy
import pytest

from llama3_jax.post import dpo
from llama3_jax.post import moving
from llama3_jax.post import preference
from llama3_jax.post import reference
from llama3_jax.train import optim
from llama3_jax.train import step


@pytest.fixture(scope='module')
def rows(tmp_path_factory):
  tokenizer = toy.tokenizer(tmp_path_factory.mktemp('vocabulary'))
  return toy.first(preference.dpo_rows(toy.examples(5), tokenizer, 64, 'all')[0], 4)


INNER = functools.partial(dpo.loss, config=toy.CONFIG)


def composed(decay):
  loss = functools.partial(moving.loss, config=toy.CONFIG, inner=INNER)
  adam = optim.create(optim.OptimConfig(peak=1e-2, warmup=1, decay=0))
  return step.compose(loss, moving.optimizer(adam, decay)), step.compose(INNER, adam)


def test_first_loss_is_that_of_a_fixed_reference(rows):
  both = moving.start(toy.model())
  loss = functools.partial(moving.loss, config=toy.CONFIG, inner=INNER)
  fixed = reference.compute(both.policy, rows, toy.CONFIG)
  np.testing.assert_allclose(
    loss(both, rows)[0], INNER(both.policy, fixed)[0], rtol=1e-5
  )
  gradient = jax.grad(lambda p: loss(p, rows)[0])(both)
  assert not any(np.any(x) for x in jax.tree.leaves(gradient.reference))
  assert any(np.any(x) for x in jax.tree.leaves(gradient.policy))


def test_reference_is_the_moving_average_of_the_policy(rows):
  train, _ = composed(0.75)
  state = train.start(moving.start(toy.model()))
  expected = jax.tree.map(np.array, state.params.policy)
  for _ in range(3):
    state, _ = train(state, rows)
    average = lambda old, new: 0.75 * old + 0.25 * np.asarray(new)
    expected = jax.tree.map(average, expected, state.params.policy)
  for a, b in zip(*map(jax.tree.leaves, (expected, state.params.reference))):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
  distance = jax.tree.map(
    lambda a, b: float(abs(a - b).max()), state.params.policy, state.params.reference
  )
  assert max(jax.tree.leaves(distance)) > 1e-3


def test_a_first_step_moves_the_policy_as_with_a_fixed_reference(rows):
  moves, stays = composed(0.9)
  fixed = reference.compute(toy.model(), rows, toy.CONFIG)
  both, _ = moves(moves.start(moving.start(toy.model())), rows)
  alone, _ = stays(stays.start(toy.model()), fixed)
  for a, b in zip(*map(jax.tree.leaves, (both.params.policy, alone.params))):
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-5)
