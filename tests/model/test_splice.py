"""Hidden states in the place of tokens, and generation with a model's own context."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_generate as toy

from llama3_jax import axes
from llama3_jax.generate import plain
from llama3_jax.generate.plain import Decoder
from llama3_jax.model import cache as kv
from llama3_jax.model import llama
from llama3_jax.model.embedding import Splice

C = toy.CONFIG
params = toy.params  # fixture
B, T = 2, 16


def row(seed=0):
  """(tokens, position, segment) of plain rows."""
  tokens = np.random.default_rng(seed).integers(1, 64, (B, T)).astype(np.int32)
  position = np.tile(np.arange(T, dtype=np.int32), (B, 1))
  return jnp.asarray(tokens), jnp.asarray(position), jnp.ones((B, T), jnp.int32)


@functools.partial(jax.jit, static_argnums=4)
def forward(params, tokens, position, segment, config, splice=None):
  return llama.forward(params, tokens, position, segment, config, None, splice)[0]


def hidden(params, tokens):
  return params.embed[tokens]


def at(columns):
  return jnp.zeros((B, T), bool).at[:, columns].set(True)


def test_spliced_states_are_read_as_the_tokens_they_are_of(params):
  tokens, *places = row()
  other = row(1)[0]
  here = at(np.array([3, 4, 9]))
  splice = Splice(hidden=hidden(params, other), at=here)
  found = forward(params, tokens, *places, C, splice)
  mixed = jnp.where(here, other, tokens)
  np.testing.assert_array_equal(found, forward(params, mixed, *places, C))
  # The tokens below do not count, even one that the vocabulary lacks.
  holes = jnp.where(here, 63, tokens)
  np.testing.assert_array_equal(found, forward(params, holes, *places, C, splice))


def test_extra_rows_have_the_ids_behind_the_vocabulary(params):
  tokens, *places = row()
  splice = Splice(extra=params.embed[jnp.array([7, 11])])
  special = tokens.at[:, 5].set(C.vocab_size).at[:, 6].set(C.vocab_size + 1)
  known = tokens.at[:, 5].set(7).at[:, 6].set(11)
  found = forward(params, special, *places, C, splice)
  np.testing.assert_array_equal(found, forward(params, known, *places, C))


def test_gradients_reach_the_states_and_the_rows(params):
  tokens, *places = row()
  tokens = tokens.at[:, 5].set(C.vocab_size + 1)

  def loss(states, extra):
    splice = Splice(hidden=states, at=at(np.array([3])), extra=extra)
    return jnp.sum(forward(params, tokens, *places, C, splice) ** 2)

  states, extra = hidden(params, row(1)[0]), params.embed[:2]
  by_states, by_rows = jax.grad(loss, (0, 1))(states, extra)
  assert (jnp.abs(by_states).sum((0, 2)) > 0).tolist() == [i == 3 for i in range(T)]
  assert (jnp.abs(by_rows).sum(1) > 0).tolist() == [False, True]


def test_splices_on_a_mesh_are_those_of_one_device(params, mesh):
  tokens, *places = row()
  tokens = tokens.at[:, 5].set(C.vocab_size)
  states = hidden(params, row(1)[0])
  splice = Splice(states, at(np.array([3, 9])), params.embed[4:6])
  expected = forward(params, tokens, *places, C, splice)
  with jax.set_mesh(mesh(fsdp=2, context=2, tensor=2)):
    cut = jax.tree.map(axes.shard, params, llama.dims(C))
    arrays = [axes.shard(x, 'BT') for x in (tokens, *places)]
    laid = Splice(
      axes.shard(splice.hidden, 'BTD'),
      axes.shard(splice.at, 'BT'),
      axes.shard(splice.extra, '__'),
    )
    found = forward(cut, *arrays, C, laid)
  np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize('prefill', [1, 6])
def test_spliced_cache_is_the_spliced_forward(params, prefill):
  tokens, position, segment = row()
  splice = Splice(hidden(params, row(1)[0]), at(np.array([0, 3, 9])))
  expected = forward(params, tokens, position, segment, C, splice)
  cache, found = kv.create(C, B, T), []
  parts = [slice(0, prefill), *(slice(i, i + 1) for i in range(prefill, T))]
  for part in parts:
    given = tokens[:, part], position[:, part], segment[:, part]
    x, cache = llama.forward(params, *given, C, cache, splice)
    found.append(x)
  np.testing.assert_allclose(np.concatenate(found, 1), expected, atol=1e-4)


@pytest.mark.parametrize('samples', [1, 3])
def test_generation_reads_each_prompts_own_context(params, samples):
  """A prompt whose states are spliced is continued as the one that they are of."""
  whole = [[5, 9, 20, 31], [40, 2, 8, 17], [33, 34, 35, 36]]
  holes = [[5, 63, 63, 31], [40, 63, 63, 17], [33, 63, 63, 36]]
  settings = dataclasses.replace(toy.GREEDY, max_new=6)
  how = C, (), settings, 0, samples

  def context(ids):
    states = np.zeros((4, C.d_model), np.float32)
    states[:] = np.asarray(params.embed)[np.array(ids)]
    return Splice(states, np.array([False, True, True, False]))

  contexts = [context(ids) for ids in whole]
  found = plain.generate(params, holes, *how, contexts=contexts)
  ids = lambda rows: [[tokens for tokens, _ in row] for row in rows]
  assert ids(found) == ids(plain.generate(params, whole, *how))
  assert ids(found) != ids(plain.generate(params, holes, *how))


def test_generation_takes_a_forward_of_its_own(params):
  """One whose hidden states a context shifts, at every token and in no other row."""

  def forward(params, tokens, position, segment, config, cache, context):
    x, cache = llama.forward(params, tokens, position, segment, config, cache)
    return x + context[:, None], cache

  prompts = [[5, 9, 20, 31], [40, 2, 8, 17]]
  usual = plain.generate(params, prompts, C, (), toy.GREEDY)
  contexts = [
    np.zeros(C.d_model, np.float32),
    50 * np.asarray(params.head[:, 13], np.float32),
  ]
  how = dict(decoder=Decoder(forward), contexts=contexts)
  for samples in (1, 3):
    same, other = plain.generate(params, prompts, C, (), toy.GREEDY, 0, samples, **how)
    assert [ids for ids, _ in same] == [usual[0][0][0]] * samples
    assert [set(ids) for ids, _ in other] == [{13}] * samples
  assert plain.LLAMA == Decoder()
