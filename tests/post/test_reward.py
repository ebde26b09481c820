"""Properties of the reward model."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import post_examples as toy
import pytest

from llama3_jax import feed
from llama3_jax import mesh
from llama3_jax.base.errors import UserError
from llama3_jax.kernels import rule
from llama3_jax.post import measure
from llama3_jax.post import ranked
from llama3_jax.post import reward
from llama3_jax.post import rows as row_lib
from llama3_jax.text import chat

loss = jax.jit(reward.loss, static_argnums=(2, 3))
response_rewards = jax.jit(reward.response_rewards, static_argnums=(2, 3))
gradient = jax.jit(jax.grad(reward.loss, has_aux=True), static_argnums=(2, 3))


@pytest.fixture(scope='module')
def tokenizer(tmp_path_factory):
  return toy.tokenizer(tmp_path_factory.mktemp('vocabulary'))


@pytest.fixture(scope='module')
def params():
  return reward.init(jax.random.key(1), toy.model(), toy.CONFIG)


def test_loss_is_the_formula_on_the_rewards(params, tokenizer):
  batch, _ = ranked.rows(toy.examples(6), tokenizer, 128)
  rewards = np.asarray(response_rewards(params, batch, toy.CONFIG), np.float64)
  total, pairs, won = 0.0, 0, 0
  for r, ends in zip(rewards, batch.ends):
    count = int(np.sum(ends >= 0))
    for better in range(count):
      for worse in range(better + 1, count):
        d = r[better] - r[worse]
        total += -np.log(1 / (1 + np.exp(-d)))
        pairs, won = pairs + 1, won + (d > 0)
  found, metrics = loss(params, batch, toy.CONFIG)
  assert float(metrics['count']) == pairs == 3 * 1 + 3 * 3
  np.testing.assert_allclose(found, total, rtol=1e-5)
  np.testing.assert_allclose(metrics['accuracy'], won)


def test_margin_is_subtracted_where_an_example_has_one(params, tokenizer):
  batch, _ = ranked.rows(toy.examples(4), tokenizer, 128)
  plain, metrics = loss(params, batch, toy.CONFIG)
  wide = batch.replace(margin=np.ones_like(batch.margin))
  assert plain < float(loss(params, wide, toy.CONFIG)[0])
  marked = [toy.changed(example, margin=1.0) for example in toy.examples(4)]
  same = loss(params, batch.replace(margin=np.ones(1, np.float32)), toy.CONFIG)
  np.testing.assert_allclose(same[0], loss(params, wide, toy.CONFIG)[0], rtol=1e-6)
  rows, _ = ranked.rows(marked, tokenizer, 128)
  np.testing.assert_array_equal(rows.margin, wide.margin)


@pytest.mark.parametrize('mode', ['exact', 'separate'])
def test_exact_rewards_are_those_of_separate_rows(mode, params, tokenizer):
  examples = toy.examples(4)
  batch, _ = ranked.rows(examples, tokenizer, 96, mode)
  rewards = response_rewards(params, batch, toy.CONFIG, mode == 'exact')
  for found, example in zip(rewards, examples):
    dialogs = [
      chat.encode(tokenizer, [*example.prompt, answer]).ids
      for answer in example.responses
    ]
    alone = reward.score(params, dialogs, toy.CONFIG, batch_size=2)
    np.testing.assert_allclose(found[: len(alone)], alone, atol=1e-5)


def test_first_response_of_a_paper_row_equals_the_exact_row(params, tokenizer):
  examples = toy.examples(6)
  paper, _ = ranked.rows(examples, tokenizer, 128)
  exact, _ = ranked.rows(examples, tokenizer, 64, mode='separate')
  a = np.asarray(response_rewards(params, paper, toy.CONFIG))
  b = np.asarray(response_rewards(params, exact, toy.CONFIG))
  ends = np.where(paper.ends >= 0, paper.ends, 10**6)
  first = ends == ends.min(1, keepdims=True)
  np.testing.assert_allclose(a[first], b[first], atol=1e-5)
  later = ~first & (paper.ends >= 0)
  assert np.all(np.abs(a[later] - b[later]) > 1e-6)  # the approximation of the paper


def test_absent_responses_and_empty_rows_count_nothing(params, tokenizer):
  batch, _ = ranked.rows(toy.examples(2), tokenizer, 128)
  alone = toy.first(batch, 1)
  total, metrics = loss(params, alone, toy.CONFIG)
  assert float(metrics['count']) == 1
  padded = jax.tree.map(lambda x: np.concatenate([x, np.zeros_like(x)]), alone)
  padded.ends[1] = -1
  same, counted = loss(params, padded, toy.CONFIG)
  np.testing.assert_allclose(same, total, rtol=1e-6)
  assert float(counted['count']) == 1


def test_measured_pairs_are_those_of_the_loss(params, tokenizer):
  rows, kept = ranked.rows(toy.examples(7), tokenizer, 128)
  rewards = reward.of_rows(params, rows, toy.CONFIG, batch_size=4)
  found = measure.judged(rewards, kept)
  _, metrics = loss(params, rows, toy.CONFIG)
  assert found['n'] == len(found['margins']) == float(metrics['count'])
  np.testing.assert_allclose(sum(found['margins']), metrics['margin'], atol=1e-3)
  np.testing.assert_allclose(found['accuracy'] * found['n'], metrics['accuracy'])


def test_loss_and_gradient_of_branches_are_those_of_separate_rows(params, tokenizer):
  examples = toy.examples(4)
  exact, _ = ranked.rows(examples, tokenizer, 96, 'exact')
  separate, _ = ranked.rows(examples, tokenizer, 64, 'separate')
  assert exact.tokens.shape == (4, 1, 96)
  found = gradient(params, exact, toy.CONFIG, True)
  expected = gradient(params, separate, toy.CONFIG)
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize('mode', ['paper', 'exact'])
def test_packed_prompts_give_the_rewards_and_gradient_of_a_row_each(
  params, tokenizer, mode
):
  examples = [toy.changed(e, margin=0.5 * i) for i, e in enumerate(toy.examples(7))]
  single, _ = ranked.rows(examples, tokenizer, 192, mode)
  packed = ranked.pack(single)
  most = packed.ends.shape[1] // 3
  assert len(packed.tokens) < 7 and packed.tokens.shape[1:] == (1, 192) and most > 1
  assert packed.segment.max() % rule.BRANCH == most
  branches = mode == 'exact'
  found = gradient(params, packed, toy.CONFIG, branches)
  expected = gradient(params, single, toy.CONFIG, branches)
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
    np.testing.assert_allclose(a, b, atol=2e-5, rtol=1e-5)
  rewards = [
    np.sort(response_rewards(params, x, toy.CONFIG, branches)[x.ends >= 0])
    for x in (packed, single)
  ]
  np.testing.assert_allclose(*rewards, atol=1e-5)


def test_an_example_shares_the_first_open_row_with_place_for_it():
  assert row_lib.first_fit([60, 41, 40, 59, 1], 100) == [[0, 2], [1, 3], [4]]
  assert row_lib.first_fit([60, 90, 90, 40], 100, open_rows=2) == [[0], [1], [2], [3]]
  assert row_lib.first_fit([], 100) == []


def test_packing_leaves_rows_of_one_response_and_none_at_all(tokenizer):
  apart, _ = ranked.rows(toy.examples(3), tokenizer, 192, 'separate')
  assert ranked.pack(apart) is apart
  none, _ = ranked.rows([], tokenizer, 192)
  assert ranked.pack(none) is none


def test_margins_are_of_the_strength_between_chosen_and_rejected(tokenizer):
  two, three = (
    toy.changed(e, strength=s) for e, s in zip(toy.examples(2), (4, 3), strict=True)
  )
  make = lambda name: ranked.rows([two, three], tokenizer, 128, margins=name)
  assert not make('')[0].margin.any()  # the paper has none
  np.testing.assert_array_equal(make('large')[0].margin, [[3, 3, 3], [0, 2, 2]])
  small = make('small')[0].margin
  np.testing.assert_allclose(small, [[1, 1, 1], [0, 2 / 3, 2 / 3]], rtol=1e-6)
  assert not ranked.rows(toy.examples(2), tokenizer, 128, margins='large')[
    0
  ].margin.any()  # nobody said how strong
  with pytest.raises(UserError, match='data.margins'):
    make('huge')


@pytest.mark.parametrize('mode', ranked.MODES)
def test_loss_and_gradient_are_the_same_on_a_mesh(params, tokenizer, mode):
  batch, _ = ranked.rows(toy.examples(4), tokenizer, 128, mode)
  # The gradient of the harder layout; its compilation takes most of the test.
  function = gradient if mode == 'exact' else loss
  plain = function(params, batch, toy.CONFIG, mode == 'exact')
  sizes = dict(replica=1, fsdp=2, stage=1, context=2, tensor=2)
  with jax.set_mesh(mesh.create(sizes)):
    meshed = function(params, feed.place(batch), toy.CONFIG, mode == 'exact')
  for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(meshed)):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_learns_to_rank(params, tokenizer):
  train, _ = ranked.rows(toy.examples(64, 1), tokenizer, 96)
  optimizer = optax.adam(3e-3)

  @jax.jit
  def step(params, state, batch):
    grads, metrics = jax.grad(reward.loss, has_aux=True)(params, batch, toy.CONFIG)
    grads = jax.tree.map(lambda g: g / metrics['count'], grads)
    updates, state = optimizer.update(grads, state)
    return optax.apply_updates(params, updates), state, metrics

  state = optimizer.init(params)
  learned = params
  for i in range(30):
    picked = np.arange(16) + 16 * (i % 4)
    batch = jax.tree.map(lambda array, rows=picked: jnp.asarray(array[rows]), train)
    learned, state, metrics = step(learned, state, batch)
  assert metrics['loss'] / metrics['count'] < 0.6 < np.log(2)
