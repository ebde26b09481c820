"""Log-probabilities under the reference: what they are, and when they are kept."""

import logging

import jax
import numpy as np
import post_examples as toy
import pytest

from llama3_jax.post import preference
from llama3_jax.post import reference
from llama3_jax.train import final
from llama3_jax.train import likelihood


@pytest.fixture(scope='module')
def rows(tmp_path_factory):
  tokenizer = toy.tokenizer(tmp_path_factory.mktemp('vocabulary'))
  examples = [*toy.examples(6), toy.multi_turn()]
  return preference.dpo_rows(examples, tokenizer, 320, 'all')[0]


@pytest.fixture(scope='module')
def params():
  return toy.model()


MARKS = {'weights': 'a', 'model': 'b', 'tokenizer': 'c'}


class Asked:
  """The reference, and how often it was asked for."""

  def __init__(self, params):
    self.params, self.times = params, 0

  def __call__(self):
    self.times += 1
    return self.params


def known(asked, rows, path, **marks):
  return reference.known(rows, asked, toy.CONFIG, path, MARKS | marks, 4)


def test_shared_prompts_change_nothing(rows, params):
  """The packed trees of generate/likelihood.py against the forward of training."""
  assert reference._texts(rows) is not None
  found = reference.compute(params, rows, toy.CONFIG, 4).ref_logp
  contrast = rows.replace(weight=rows.contrast)
  plain = likelihood.of_rows(params, contrast, toy.CONFIG, 4)
  assert found.shape == (len(rows.tokens), 2) and np.all(found < 0)
  np.testing.assert_allclose(found, plain, rtol=1e-5, atol=1e-5)


def test_compared_tokens_that_are_apart_take_the_plain_way(rows, params):
  apart = rows.replace(contrast=rows.contrast.copy())
  at = np.flatnonzero(apart.contrast[1, 0])
  apart.contrast[1, 0, at[1]] = 0
  assert reference._texts(apart) is None
  found = reference.compute(params, apart, toy.CONFIG, 4).ref_logp
  plain = likelihood.of_rows(
    params, apart.replace(weight=apart.contrast), toy.CONFIG, 4
  )
  np.testing.assert_array_equal(found, plain)


def test_an_answer_of_its_end_alone_has_log_probability_0(rows, params):
  bare = rows.replace(contrast=rows.contrast.copy())
  bare.contrast[1, 1] = 0
  assert reference.compute(params, bare, toy.CONFIG, 4).ref_logp[1, 1] == 0


def test_known_values_are_read_without_the_model(rows, params, tmp_path):
  asked, path = Asked(params), tmp_path / 'reference.npz'
  one = known(asked, rows, path)
  two = known(asked, rows, path)
  assert asked.times == 1
  np.testing.assert_array_equal(one.ref_logp, two.ref_logp)


@pytest.mark.parametrize('name', MARKS)
def test_another_model_or_tokenizer_computes_again(rows, params, tmp_path, name):
  asked, path = Asked(params), tmp_path / 'reference.npz'
  known(asked, rows, path)
  known(asked, rows, path, **{name: 'other'})
  known(asked, rows, path, **{name: 'other'})
  assert asked.times == 2


@pytest.mark.parametrize('field', ['tokens', 'contrast'])
def test_a_changed_row_computes_again(rows, params, tmp_path, field):
  asked, path = Asked(params), tmp_path / 'reference.npz'
  known(asked, rows, path)
  other = jax.tree.map(np.copy, rows)
  getattr(other, field)[-1, 0, 3] += 1
  known(asked, other, path)
  assert asked.times == 2


def test_nothing_is_kept_of_weights_without_a_digest(rows, params, tmp_path):
  asked, path = Asked(params), tmp_path / 'reference.npz'
  for _ in range(2):
    known(asked, rows, path, weights='')
  assert asked.times == 2 and not path.exists()


def test_damaged_files_are_named_and_never_used(rows, params, tmp_path, caplog):
  asked, path = Asked(params), tmp_path / 'reference.npz'
  expected = known(asked, rows, path).ref_logp
  good = path.read_bytes()
  at = good.index(expected.tobytes()[:8])
  flipped = bytearray(good)
  flipped[at] ^= 1
  for times, bad in enumerate((bytes(flipped), good[:-30], b'', b'{}'), 2):
    path.write_bytes(bad)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
      found = known(asked, rows, path).ref_logp
    assert str(path) in caplog.text and asked.times == times
    np.testing.assert_array_equal(found, expected)
    assert path.read_bytes()[:2] == b'PK'


def test_marks_are_of_the_values(rows, params, tmp_path, caplog):
  """A file of the right form whose values were changed: its checksum is not enough."""
  asked, path = Asked(params), tmp_path / 'reference.npz'
  expected = known(asked, rows, path).ref_logp
  with np.load(path) as kept:
    arrays = dict(kept)
  np.savez(path, **arrays | {'logp': arrays['logp'] + 1})
  np.testing.assert_array_equal(known(asked, rows, path).ref_logp, expected)
  assert 'is damaged' in caplog.text


def test_marks_are_of_weights_and_tokenizer(tmp_path):
  tokenizer = toy.tokenizer(tmp_path)
  for seed in range(2):
    folder = tmp_path / str(seed) / 'final'
    final.save(folder, toy.model(seed), toy.CONFIG, tokenizer)
  one, two = (
    reference.marks(tmp_path / str(seed), toy.CONFIG, tokenizer) for seed in (0, 1)
  )
  assert one['weights'] and one['weights'] != two['weights']
  assert one['tokenizer'] == two['tokenizer'] == tokenizer.fingerprint
  wide = toy.changed(toy.CONFIG, rope_theta=7.0)
  assert reference.marks(tmp_path / '0', wide, tokenizer)['model'] != one['model']
