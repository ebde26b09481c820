"""A token of every row: what is kept, how it is drawn, what is noted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama3_jax.base.errors import UserError
from llama3_jax.generate import draw
from llama3_jax.generate.settings import Settings

SIZE = 2000
# One program for all cases of a shape.
LEAST, PICK = jax.jit(draw._least), jax.jit(draw.pick)


def rules(rows, *settings):
  """draw.Rules [1,rows] of a settings each, or of one for all."""
  made = draw.rules((1, rows))
  for i in range(rows):
    settings[i % len(settings)].write(made, (0, i), ())
    made.key[0, i, 2] = i
  return made


def logits(rows=6, spread=3.0, seed=0):
  rng = np.random.default_rng(seed)
  return (rng.normal(size=(1, rows, SIZE)) * spread).astype(np.float32)


def kept(z, top_p, top_k):
  """Number of tokens that are kept, the slow way."""
  ordered = np.sort(z)[::-1].astype(np.float64)[: top_k or None]
  p = np.exp(ordered - ordered[0])
  p /= p.sum()
  return len(p) if top_p >= 1 else int((np.cumsum(p) - p < top_p).sum())


@pytest.mark.parametrize('spread', [0.3, 3.0])
@pytest.mark.parametrize('top_k', [0, 1, 50, 300, 1000])
@pytest.mark.parametrize('top_p', [0.01, 0.5, 0.9, 0.999, 1.0])
def test_top_k_and_top_p_keep_what_sorting_keeps(spread, top_k, top_p):
  z = logits(spread=spread)
  how = rules(6, Settings(1.0, top_p, top_k))
  least = np.asarray(LEAST(z, how, z.max(-1)))
  for row, limit in zip(z[0], least[0]):
    assert int((row >= limit).sum()) == kept(row, top_p, top_k)


def test_rows_keep_their_own_share_whatever_the_others_are():
  z = logits(4)
  four = [Settings(1.0, 0.9), Settings(0.0), Settings(1.0, 0.999, 900), Settings(2.0)]
  together = PICK(jnp.asarray(z), rules(4, *four), jnp.zeros((1, 4), jnp.int32))
  for i, settings in enumerate(four):
    alone = rules(4, settings)
    found = PICK(jnp.asarray(z), alone, jnp.zeros((1, 4), jnp.int32))
    assert found[0, i] == together[0, i]


@pytest.mark.parametrize('heat', [0.5, 1.0, 2.0])
def test_draws_follow_the_distribution(heat):
  n, p = 40_000, np.array([0.1, 0.2, 0.3, 0.05, 0.35])
  wide = np.full((1, n, 300), -np.inf, np.float32)
  at = [0, 127, 128, 255, 299]  # blocks and their edges
  wide[..., at] = np.log(p)
  how = rules(n, Settings(heat, 1.0))
  [found] = np.asarray(PICK(jnp.asarray(wide), how, np.zeros((1, n), np.int32)))
  wanted = p ** (1 / heat) / (p ** (1 / heat)).sum()
  counts = np.array([(found == i).sum() for i in at])
  assert counts.sum() == n
  assert ((counts - n * wanted) ** 2 / (n * wanted)).sum() < 22  # chi2 of 4 at 2e-4


def test_steps_and_samples_draw_other_numbers():
  z = jnp.zeros((1, 500, SIZE))
  how = rules(500, Settings(1.0, 1.0))
  first, second = (
    np.asarray(PICK(z, how, jnp.full((1, 500), i, jnp.int32)))[0] for i in (0, 1)
  )
  assert len(set(first.tolist())) > 400 and (first != second).mean() > 0.98


def test_min_p_is_a_share_of_the_likeliest():
  z = jnp.log(jnp.array([[[0.4, 0.3, 0.2, 0.1]]])).repeat(2000, 1)
  how = rules(2000, Settings(1.0, 1.0, min_p=0.6))
  found = np.asarray(PICK(z, how, jnp.zeros((1, 2000), jnp.int32)))
  assert set(found[0].tolist()) == {0, 1}


def test_greedy_takes_the_first_of_equal_tokens():
  z = jnp.zeros((1, 2, SIZE)).at[0, 1, 77].set(1.0)
  found = PICK(z, rules(2, Settings(0.0)), jnp.zeros((1, 2), int))
  assert found[0].tolist() == [0, 77]


def test_penalties_are_those_of_the_formula():
  z = jnp.array([[[2.0, -2.0, 1.0, 1.0]]])
  how = rules(1, Settings(1.0, repetition=2.0, presence=0.5, frequency=0.25))
  sampled = jnp.array([[[0, 0, 3, 0]]])
  seen = jnp.array([[[True, True, True, False]]])
  found = draw.adjusted(z, how, sampled, seen)
  np.testing.assert_allclose(found[0, 0], [1.0, -4.0, 0.5 - 0.5 - 0.75, 1.0])


def test_bias_is_added_and_rows_without_a_token_are_never_sampled():
  how = rules(1, Settings(1.0, vocab_size=5, bias=((3, 2.5), (4, -100.0))))
  found = draw.fixed(how, 8)[0, 0].tolist()
  assert found == [0, 0, 0, 2.5, -100.0, *[-np.inf] * 3]


def test_log_probabilities_are_of_the_model_alone():
  z = jnp.asarray(logits(2))
  how = rules(2, Settings(0.3, 0.5, alternatives=3), Settings())
  token = jnp.array([[5, 6]], jnp.int32)
  logp, (ids, values) = draw.logps(z, token, how)
  wanted = jax.nn.log_softmax(z, -1)
  np.testing.assert_allclose(logp[0], [wanted[0, 0, 5], wanted[0, 1, 6]], rtol=1e-5)
  order = np.argsort(-wanted[0, 0])[: draw.ALTERNATIVES]
  assert ids[0, 0].tolist() == order.tolist()
  np.testing.assert_allclose(values[0, 0], wanted[0, 0][order], rtol=1e-4)


@pytest.mark.parametrize(
  'field, value',
  [
    ('temperature', -1.0),
    ('temperature', float('nan')),
    ('top_p', 0.0),
    ('top_p', 1.5),
    ('top_k', -1),
    ('top_k', 2**31),
    ('max_new', 0),
    ('min_p', 2.0),
    ('repetition', 0.0),
    ('presence', float('inf')),
    ('frequency', 'a'),
    ('alternatives', 21),
    ('vocab_size', -1),
    ('bias', ((-1, 1.0),)),
    ('bias', ((1, float('nan')),)),
    ('bias', ((1, 1.0),) * 400),
  ],
)
def test_a_setting_without_a_meaning_is_named(field, value):
  with pytest.raises(UserError, match=f'sample.{field}'):
    Settings(**{field: value})
