"""Both answers of a pair in one row: the loss and gradients of two rows."""

import functools

import jax
import numpy as np
import post_examples as toy
import pytest

from configs import dpo as dpo_config
from experiments import dpo as experiment
from llama3_jax import config as configs
from llama3_jax import feed
from llama3_jax import mesh
from llama3_jax.base.errors import UserError
from llama3_jax.kernels import rule
from llama3_jax.post import dpo
from llama3_jax.post import joined
from llama3_jax.post import moving
from llama3_jax.post import preference
from llama3_jax.post import reference
from llama3_jax.train import counted
from llama3_jax.train import final


@pytest.fixture(scope='module')
def pairs(tmp_path_factory):
  tokenizer = toy.tokenizer(tmp_path_factory.mktemp('vocabulary'))
  given = [*toy.examples(6), toy.multi_turn()]
  made, _ = preference.dpo_rows(given, tokenizer, 192, 'all')
  return reference.compute(toy.model(7), made, toy.CONFIG, 4)


def of(rows, kept=0):
  loss = functools.partial(dpo.loss, config=toy.CONFIG, kept=kept)
  return jax.jit(jax.value_and_grad(loss, has_aux=True))(toy.model(), rows)


def close(one, other, rtol=1e-5):
  for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True):
    a, b = np.asarray(a), np.asarray(b)
    np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * max(np.abs(b).max(), 1))


def test_loss_and_gradients_are_those_of_two_rows(pairs):
  rows, dropped = joined.rows(pairs, 0)
  assert not dropped and rows.tokens.ndim == 2
  close(of(rows), of(pairs))
  kept = counted.most(rows)
  assert 0 < kept < rows.tokens.shape[-1]
  close(of(rows, kept), of(pairs))


def test_a_prompt_stands_once_and_each_branch_begins_with_its_last_token(pairs):
  rows, _ = joined.rows(pairs, 0)
  for i, (ids, position) in enumerate(zip(rows.tokens, rows.position)):
    sides = [pairs.tokens[i, k][pairs.segment[i, k] > 0] for k in (0, 1)]
    begins = [int(np.argmax(pairs.weight[i, k] > 0)) for k in (0, 1)]
    prompt, *answers = (rows.segment[i] == 1 + k * rule.BRANCH for k in range(3))
    assert begins == [prompt.sum()] * 2
    for answer, whole in zip(answers, sides):
      np.testing.assert_array_equal(ids[prompt | answer], whole)
      np.testing.assert_array_equal(position[prompt | answer], np.arange(len(whole)))
    assert (rows.segment[i] > 0).sum() == sum(map(len, sides)) - prompt.sum()


def test_answers_after_prompts_that_differ_are_whole(pairs):
  """A template may write the prompt of one answer in another way."""
  other = jax.tree.map(np.copy, pairs)
  other.tokens[0, 1, 2] += 1  # the third token of its prompt
  rows, _ = joined.rows(other, 0)
  assert (rows.segment[0] == 1).sum() == 2
  close(of(rows), of(other))


def test_pairs_that_are_too_long_together_are_counted(pairs):
  whole, _ = joined.rows(pairs, 0)
  sizes = np.sum(whole.segment > 0, -1)
  limit = int(np.sort(sizes)[-2])  # one pair is longer
  rows, dropped = joined.rows(pairs, limit)
  assert dropped == np.sum(sizes > limit) and rows.tokens.shape[1] == limit
  assert len(rows.tokens) + dropped == len(pairs.tokens)
  nothing, dropped = joined.rows(pairs, 8)
  assert dropped == len(pairs.tokens) and nothing.tokens.shape == (0, 8)


def test_reference_that_follows_is_the_same(pairs):
  inner = functools.partial(dpo.loss, config=toy.CONFIG)
  loss = functools.partial(moving.loss, config=toy.CONFIG, inner=inner)
  both = moving.Both(toy.model(), toy.model(3))
  close(loss(both, joined.rows(pairs, 0)[0]), loss(both, pairs))


@pytest.mark.parametrize(
  'sizes',
  [
    dict(replica=1, fsdp=4, stage=1, context=1, tensor=2),
    dict(replica=1, fsdp=2, stage=1, context=2, tensor=2),
  ],
)
def test_loss_is_the_same_on_a_mesh(pairs, sizes):
  rows = toy.first(joined.rows(pairs, 192)[0], 8)
  expected = of(rows)
  with jax.set_mesh(mesh.create(sizes)):
    found = of(feed.place(rows))
  close(found, expected, 1e-3)


def trained(folder, name, **given):
  c = dpo_config.get_config()
  given |= {'init_from': str(folder / 'model'), 'data.tasks': 24}
  given |= {'data.heldout_tasks': 8, 'train.batch': 4, 'train.steps': 3}
  return experiment.main(configs.edit(c, given), str(folder / name))


def test_the_experiment_trains_the_same_either_way(tmp_path):
  final.save(tmp_path / 'model/final', toy.model(), toy.CONFIG, toy.tokenizer(tmp_path))
  apart = trained(tmp_path, 'apart')
  shared = trained(tmp_path, 'shared', **{'data.mode': 'exact'})
  assert shared['pairs'] == apart['pairs'] == 24
  for name in ('eval_loss', 'eval/chosen', 'eval/accuracy'):
    np.testing.assert_allclose(shared[name], apart[name], rtol=1e-4, atol=1e-5)
  with pytest.raises(UserError, match='data.mode.*separate, exact'):
    trained(tmp_path, 'wrong', **{'data.mode': 'paper'})
