"""Properties of generation."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_generate as toy

from llama3_jax import axes
from llama3_jax import mesh
from llama3_jax.base.errors import UserError
from llama3_jax.generate import engine
from llama3_jax.generate.settings import Settings
from llama3_jax.model import llama

params = toy.params  # fixture


DRAWN = Settings(temperature=1.0, top_p=0.95, max_new=8)


def prompts():
  rng = np.random.default_rng(0)
  return [rng.integers(1, 64, n).tolist() for n in (3, 40, 7, 12, 5)]


def naive(params, prompt, steps):
  """Greedy continuation by a full forward for each token."""
  ids = list(prompt)
  for _ in range(steps):
    row = np.zeros((1, 64), np.int32)  # one shape; the tail is not seen
    row[0, : len(ids)] = ids
    ids.append(int(jnp.argmax(llama.apply(params, row, toy.CONFIG)[0, len(ids) - 1])))
  return tuple(ids[len(prompt) :])


def test_greedy_is_the_argmax_of_the_full_forward(params):
  found = engine.generate(params, prompts(), toy.CONFIG, (), toy.GREEDY, batch_size=4)
  for prompt, [completion] in zip(prompts(), found):
    assert completion.ids == naive(params, prompt, toy.GREEDY.max_new)
    assert not completion.stopped


def test_stop_token_ends_a_row_and_is_not_part_of_it(params):
  [[free]] = engine.generate(
    params, prompts()[:1], toy.CONFIG, (), toy.GREEDY, batch_size=4
  )
  stop = free.ids[4]
  first = free.ids.index(stop)
  [[cut]] = engine.generate(
    params,
    prompts()[:1],
    toy.CONFIG,
    (stop,),
    toy.GREEDY,
    batch_size=4,
  )
  assert cut.stopped and cut.ids == free.ids[:first]
  assert len(cut.logps) == first + 1


def test_a_prompt_gets_the_same_samples_whatever_the_batch(params):
  every = prompts()
  together = engine.generate(
    params, every, toy.CONFIG, (), DRAWN, seed=3, samples=2, batch_size=4
  )
  backwards = engine.generate(
    params, every[::-1], toy.CONFIG, (), DRAWN, seed=3, samples=2, batch_size=4
  )
  assert together == backwards[::-1]
  [alone] = engine.generate(
    params, every[2:3], toy.CONFIG, (), DRAWN, seed=3, samples=2, batch_size=4
  )
  assert alone == together[2]
  other = engine.generate(
    params, every, toy.CONFIG, (), DRAWN, seed=4, samples=2, batch_size=4
  )
  assert other != together


def test_samples_of_a_prompt_differ_and_the_first_equals_a_single_sample(params):
  [many] = engine.generate(
    params, prompts()[:1], toy.CONFIG, (), DRAWN, samples=4, batch_size=1
  )
  assert len({completion.ids for completion in many}) == 4
  [[single]] = engine.generate(
    params, prompts()[:1], toy.CONFIG, (), DRAWN, batch_size=1
  )
  assert single.ids == many[0].ids


def test_stream_yields_what_generate_gives(params):
  made = engine.Engine(params, toy.CONFIG, engine.one(64, toy.CONFIG))
  for settings in (toy.GREEDY, DRAWN):
    [[whole]] = engine.generate(
      params, prompts()[:1], toy.CONFIG, (), settings, seed=1, batch_size=1
    )
    streamed = engine.stream(made, prompts()[0], (), settings, seed=1)
    assert tuple(streamed) == whole.ids


def test_a_stream_that_is_left_frees_its_pages(params):
  made = engine.Engine(params, toy.CONFIG, engine.one(64, toy.CONFIG))
  streamed = engine.stream(made, prompts()[0], (), DRAWN)
  next(streamed)
  assert made.pages[0] > 0
  streamed.close()
  assert made.pages[0] == 0 and made.idle


@pytest.mark.parametrize(
  'n, large, sizes',
  [
    (9, 64, [16]),
    (25, 64, [16, 16]),
    (25, 32, [32]),
    (40, 64, [64]),
    (100, 64, [64, 64]),
  ],
)
def test_two_small_chunks_are_read_where_a_large_one_is_padding(
  params, monkeypatch, n, large, sizes
):
  shapes = engine.Sizes(rows=(4,), chunks=(16, large), length=128, page=16)
  made, found = engine.Engine(params, toy.CONFIG, shapes), []
  note = lambda chunk: found.append(chunk.tokens.shape[1])
  monkeypatch.setattr(made, '_call_read', note)
  made.submit(engine.Request([1] * n, DRAWN))
  made._admit()
  while any(each.starving for each in made.groups):
    made._read()
  assert found == sizes


def test_log_probabilities_are_those_of_the_full_forward(params):
  prompt = prompts()[3]
  [[found]] = engine.generate(params, [prompt], toy.CONFIG, (), DRAWN, batch_size=2)
  logits = llama.apply(
    params, np.asarray([[*prompt, *found.ids]], np.int32), toy.CONFIG
  )
  logp = jax.nn.log_softmax(logits, -1)[0, len(prompt) - 1 : -1]
  expected = [float(row[i]) for row, i in zip(logp, found.ids)]
  np.testing.assert_allclose(found.logps, expected, atol=1e-4)


def test_empty_prompt_is_named(params):
  with pytest.raises(UserError, match='prompt 1: .* is empty'):
    engine.generate(params, [[1], []], toy.CONFIG, ())


def test_bf16_rows_decode(params):
  config = dataclasses.replace(toy.CONFIG, dtype='bfloat16')
  found = engine.generate(params, prompts()[:2], config, (), DRAWN, batch_size=2)
  assert [len(c.ids) for [c] in found] == [8, 8]


MESHES = [(1, 1, 1, 1, 1), (1, 2, 1, 1, 2), (2, 2, 1, 2, 1)]


@pytest.mark.parametrize('sizes', MESHES)
def test_same_tokens_on_a_mesh(params, sizes):
  plain = engine.generate(
    params, prompts(), toy.CONFIG, (5,), DRAWN, samples=2, batch_size=4
  )
  devices = jax.devices()[: int(np.prod(sizes))]
  with jax.set_mesh(mesh.create(dict(zip(axes.AXES, sizes)), devices)):
    made = jax.tree.map(axes.shard, params, llama.dims(toy.CONFIG))
    meshed = engine.generate(
      made, prompts(), toy.CONFIG, (5,), DRAWN, samples=2, batch_size=4
    )
    if sizes == MESHES[-1]:  # the programs of one answer are many
      single = engine.Engine(made, toy.CONFIG, engine.one(64, toy.CONFIG))
      streamed = tuple(engine.stream(single, prompts()[0], (5,), DRAWN))
      assert streamed == plain[0][0].sampled
  assert [[c.ids for c in row] for row in meshed] == [
    [c.ids for c in row] for row in plain
  ]
