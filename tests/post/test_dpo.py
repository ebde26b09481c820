"""Properties of DPO."""

import jax
import jax.numpy as jnp
import numpy as np
import post_examples as toy
import pytest
from ml_collections import ConfigDict

from llama3_jax import mesh
from llama3_jax.model import llama
from llama3_jax.post import dpo
from llama3_jax.post import preference
from llama3_jax.post import reference
from llama3_jax.train import likelihood

loss = jax.jit(dpo.loss, static_argnums=2)


@pytest.fixture(scope='module')
def rows(tmp_path_factory):
  tokenizer = toy.tokenizer(tmp_path_factory.mktemp('vocabulary'))
  made, _ = preference.dpo_rows(toy.examples(5), tokenizer, 64, 'all')
  return made


@pytest.fixture(scope='module')
def params():
  return toy.model()


@pytest.fixture(scope='module')
def batch(rows, params):
  return reference.compute(params, rows, toy.CONFIG, 4)


def token_logp(params, batch):
  """Log-probabilities f64 [B,2,T] by the plain way: all logits, softmax, gather."""
  tokens = batch.tokens.reshape(-1, batch.tokens.shape[-1])
  position = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
  hidden, _ = llama.forward(params, tokens, position, np.ones_like(tokens), toy.CONFIG)
  logits = np.asarray(llama.logits(params, hidden, toy.CONFIG), np.float64)
  logz = np.log(np.exp(logits).sum(-1))
  targets = batch.targets.reshape(tokens.shape)[..., None]
  picked = np.take_along_axis(logits, targets, -1)[..., 0]
  return (picked - logz).reshape(batch.tokens.shape)


def test_loss_is_the_formula(batch):
  policy = toy.model(7)
  logp = token_logp(policy, batch)
  change = (logp * batch.contrast).sum(-1) - batch.ref_logp
  margin = 0.3 * (change[:, 0] - change[:, 1])
  weight = batch.weight[:, 0]
  nll = -(logp[:, 0] * weight).sum(-1) / weight.sum(-1)
  expected = np.sum(np.log1p(np.exp(-margin)) + 0.7 * nll)
  total, metrics = loss(policy, batch, toy.CONFIG, 0.3, 0.7)
  np.testing.assert_allclose(total, expected, rtol=1e-4)
  np.testing.assert_allclose(metrics['chosen'], change[:, 0].sum(), rtol=1e-3)
  np.testing.assert_allclose(metrics['rejected'], change[:, 1].sum(), rtol=1e-3)
  np.testing.assert_allclose(metrics['accuracy'], np.sum(margin > 0))


def test_loss_at_the_reference_is_log_2_and_nll(params, batch):
  total, metrics = loss(params, batch, toy.CONFIG)
  count = float(metrics['count'])
  assert count == len(batch.tokens)
  np.testing.assert_allclose(
    total, count * np.log(2) + 0.2 * float(metrics['nll']), rtol=1e-5
  )
  np.testing.assert_allclose(metrics['chosen'] / count, 0, atol=1e-4)


@pytest.mark.parametrize('name', dpo.LOSSES)
def test_format_tokens_have_no_gradient_in_the_contrastive_term(batch, name):
  """Gradient by the log-probability of each target, format or not."""
  compare = dpo.contrast(ConfigDict(dict(loss=name, target=0.5, flipped=0.1)))
  logp = likelihood.of_targets(toy.model(7), batch, toy.CONFIG)
  contrast = lambda values: dpo.of_logp(values, batch, 0.1, 0.0, compare)[0]
  gradient = np.asarray(jax.grad(contrast)(logp))
  assert np.all(gradient[batch.contrast == 0] == 0)
  assert np.all(gradient[batch.contrast > 0] != 0)


def test_contrastive_term_ignores_log_probabilities_of_format_tokens(params, batch):
  """Raising the logit of eot everywhere changes NLL only, up to the normaliser."""
  eot = int(batch.targets[0, 0][batch.weight[0, 0] > 0][-1])
  other = jax.tree.map(lambda x: x.copy(), batch)
  final = (batch.weight > 0) & (batch.contrast == 0)
  assert np.all(batch.targets[final] == eot)
  other.targets[final] = 5  # another token in eot's place: another log-probability
  _, before = loss(params, batch, toy.CONFIG)
  _, after = loss(params, other, toy.CONFIG)
  np.testing.assert_allclose(before['contrast'], after['contrast'], rtol=1e-6)
  assert abs(float(before['nll'] - after['nll'])) > 1e-3


def test_empty_pairs_count_nothing(params, batch):
  one = toy.first(batch, 1)
  padded = jax.tree.map(lambda x: np.concatenate([x, np.zeros_like(x)]), one)
  total, metrics = loss(params, padded, toy.CONFIG)
  np.testing.assert_allclose(total, loss(params, one, toy.CONFIG)[0], rtol=1e-6)
  assert float(metrics['count']) == 1


def test_chosen_log_probability_does_not_fall(params, batch):
  value = jax.jit(jax.value_and_grad(dpo.loss, has_aux=True), static_argnums=2)
  policy = params
  for _ in range(12):
    (_, metrics), grads = value(policy, batch, toy.CONFIG)
    rate = 0.01 / float(metrics['count'])
    grads = jax.tree.map(lambda g, rate=rate: rate * g, grads)
    policy = jax.tree.map(jnp.subtract, policy, grads)
  (_, metrics), _ = value(policy, batch, toy.CONFIG)
  assert metrics['chosen'] / metrics['count'] > 0
  assert metrics['margin'] > 0


def test_loss_is_the_same_on_a_mesh(params, batch):
  four = toy.first(batch, 4)
  expected = loss(toy.model(7), four, toy.CONFIG)
  sizes = dict(replica=1, fsdp=2, stage=1, context=2, tensor=2)
  with jax.set_mesh(mesh.create(sizes)):
    found = loss(toy.model(7), four, toy.CONFIG)
  for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(found)):
    np.testing.assert_allclose(a, b, rtol=1e-3)
