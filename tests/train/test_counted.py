"""Only tokens that count reach the head: the same sums and gradients with fewer."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import post_examples as toy
import pytest

from llama3_jax import feed
from llama3_jax import mesh
from llama3_jax.post import dpo
from llama3_jax.post import sft
from llama3_jax.train import counted

B, T = 4, 192


@pytest.fixture(scope='module')
def batch():
  rng = np.random.default_rng(0)
  weight = np.zeros((B, T), np.float32)
  for row in weight:
    row[rng.choice(T, rng.integers(1, 60), replace=False)] = 1
  return feed.Tokens(
    tokens=rng.integers(0, 512, (B, T), np.int32),
    targets=rng.integers(0, 512, (B, T), np.int32),
    segment=np.ones((B, T), np.int32),
    position=np.tile(np.arange(T, dtype=np.int32), (B, 1)),
    weight=weight,
  )


def pairs(batch):
  two = lambda x: x.reshape(B // 2, 2, T)
  fields = {name: two(x) for name, x in vars(batch).items()}
  ref = np.zeros((B // 2, 2), np.float32)
  return feed.Pairs(**fields, contrast=fields['weight'], ref_logp=ref)


def close(one, other, rtol=1e-5):
  for a, b in zip(*map(jax.tree.leaves, (one, other))):
    np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * np.abs(b).max())


@pytest.mark.parametrize('kind', ['sft', 'dpo'])
def test_losses_and_gradients_are_those_of_all_tokens(batch, kind):
  rows = batch if kind == 'sft' else pairs(batch)
  loss = sft.loss if kind == 'sft' else dpo.loss
  kept = counted.most(rows)
  assert 0 < kept < T and kept % counted.MULTIPLE == 0

  def of(kept):
    how = functools.partial(loss, config=toy.CONFIG, kept=kept)
    return jax.jit(jax.value_and_grad(how, has_aux=True))(toy.model(), rows)

  close(of(kept), of(0))


def test_no_token_is_left_out_in_silence(batch):
  assert np.isnan(sft.loss(toy.model(), batch, toy.CONFIG, kept=8)[0])
  assert np.isnan(dpo.loss(toy.model(), pairs(batch), toy.CONFIG, kept=8)[0])


def test_most_is_the_fullest_row_of_all_batches(batch):
  fuller = batch.replace(weight=batch.weight.copy())
  fuller.weight[2, 10:80] = 1
  assert counted.most(batch) == 64 and counted.most(batch, fuller) == 128
  fuller.weight[0] = 1
  assert counted.most(batch, fuller) == 0
  nothing = feed.empty(feed.Tokens, dict(B=0, T=T))
  assert counted.most(nothing) == 0 and counted.most(batch, nothing) == 64


def test_values_come_back_in_their_places(batch):
  values = np.arange(B * T, dtype=np.float32).reshape(B, T)
  places, weight, (found,) = counted.pick(64, jnp.asarray(batch.weight), values)
  assert weight.shape == found.shape == (B, 64)
  back = counted.spread(found * weight, places, T)
  np.testing.assert_array_equal(back, values * batch.weight)


@pytest.mark.parametrize(
  'sizes',
  [
    dict(replica=1, fsdp=4, stage=1, context=1, tensor=2),
    dict(replica=1, fsdp=2, stage=1, context=2, tensor=2),
  ],
)
def test_loss_is_the_same_on_a_mesh(batch, sizes):
  loss = jax.jit(
    jax.value_and_grad(
      functools.partial(sft.loss, config=toy.CONFIG, kept=64), has_aux=True
    )
  )
  expected = loss(toy.model(), batch)
  with jax.set_mesh(mesh.create(sizes)):
    found = loss(toy.model(), feed.place(batch))
  close(found, expected, 1e-3)
