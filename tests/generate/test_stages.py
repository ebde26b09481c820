"""Generation over the stages of a pipeline is that of one, token for token (6.1)."""

import dataclasses

import jax
import numpy as np
import pytest
import toy_generate as toy

from llama3_jax import axes
from llama3_jax.base.errors import UserError
from llama3_jax.generate import engine
from llama3_jax.generate import likelihood
from llama3_jax.generate import programs
from llama3_jax.generate.engine import Engine
from llama3_jax.generate.engine import Request
from llama3_jax.generate.engine import complete
from llama3_jax.generate.group import Sizes
from llama3_jax.generate.settings import Settings
from llama3_jax.model import llama

CONFIG = dataclasses.replace(toy.CONFIG, n_layers=5)  # they do not divide
SETTINGS = Settings(temperature=0.8, top_p=0.9, frequency=0.5, max_new=11)
SIZES = Sizes(rows=(8,), chunks=(64,), length=128, page=16, steps=4)


@pytest.fixture(scope='module')
def params():
  return jax.tree.map(np.asarray, llama.init(jax.random.key(1), CONFIG))


def asked():
  rng = np.random.default_rng(0)
  size = CONFIG.vocab_size
  return [rng.integers(1, size, n).tolist() for n in (3, 17, 100, 9, 48, 33, 70)]


def answers(params, parts=1, config=CONFIG, settings=SETTINGS):
  made = jax.tree.map(axes.shard, params, llama.dims(config))
  sizes = dataclasses.replace(SIZES, microbatches=parts)
  one = Engine(made, config, sizes)
  found = complete(one, asked(), (5,), settings, 3, samples=4)
  assert one.pages[0] == 0 and one.idle
  return [completion for group in found for completion in group]


@pytest.fixture(scope='module')
def expected(params):
  return answers(params)


MESHES = [
  (dict(stage=2), 1),
  (dict(stage=2), 2),
  (dict(stage=2), 4),
  (dict(stage=4), 2),
  (dict(fsdp=2, stage=2, tensor=2), 2),
]


@pytest.mark.parametrize('sizes, parts', MESHES)
def test_stages_give_the_tokens_of_one(params, expected, mesh, sizes, parts):
  with jax.set_mesh(mesh(**sizes)):
    found = answers(params, parts)
  assert [x.sampled for x in found] == [x.sampled for x in expected]
  assert len({x.sampled for x in found}) > 20
  for a, b in zip(found, expected):
    np.testing.assert_allclose(a.logps, b.logps, atol=1e-5)


def test_windows_and_greedy_rows_over_stages(params, mesh):
  config = dataclasses.replace(CONFIG, window=24)
  alone = answers(params, config=config, settings=toy.GREEDY)
  with jax.set_mesh(mesh(stage=2)):
    found = answers(params, 2, config, toy.GREEDY)
  assert [x.ids for x in found] == [x.ids for x in alone]


def test_weights_are_swapped_and_requests_come_and_go_over_stages(params, mesh):
  other = jax.tree.map(np.asarray, llama.init(jax.random.key(2), CONFIG))
  settings = dataclasses.replace(SETTINGS, max_new=30)

  def told():
    made = [jax.tree.map(axes.shard, p, llama.dims(CONFIG)) for p in (params, other)]
    stages = axes.parts('C')
    one = Engine(
      made[0], CONFIG, dataclasses.replace(SIZES, microbatches=min(stages, 2))
    )
    [first] = one.submit(Request(asked()[1], settings))
    [gone] = one.submit(Request(asked()[4], settings))
    for _ in range(3):
      one.step()
    one.cancel(gone)
    one.update(made[1])
    [last] = one.submit(Request(asked()[3], settings))
    while not one.idle:
      one.step()
    assert one.pages[0] == 0 and gone.end == 'cancelled'
    return first.ids, last.ids

  alone = told()
  with jax.set_mesh(mesh(stage=2)):
    assert told() == alone


def test_each_stage_has_its_layers_and_their_pages_alone(params, mesh):
  with jax.set_mesh(mesh(stage=2)):
    made = jax.tree.map(axes.shard, params, llama.dims(CONFIG))
    one = Engine(made, CONFIG, SIZES)
    k = one.memory.kv
    assert k.shape[1] == 6 * (SIZES.count + 1)  # five layers, and one of zeros
    assert {s.data.shape[1] for s in k.addressable_shards} == {k.shape[1] // 2}
    for x in jax.tree.leaves(one.params.layers):
      assert {s.data.shape[0] for s in x.addressable_shards} == {1}


@pytest.mark.parametrize(
  'sizes, changes, said',
  [
    (dict(stage=2), dict(weights='fp8'), 'weights=.* mesh.stage=1'),
    (dict(stage=2, context=2), {}, 'mesh.context=1'),
    (dict(tensor=2), dict(microbatches=2), 'microbatches=2 .*mesh.stage'),
    (dict(stage=2), dict(microbatches=3), 'must divide into microbatches=3'),
    (dict(stage=2), dict(microbatches=0), 'microbatches=0'),
  ],
)
def test_what_does_not_go_together_is_said(params, mesh, sizes, changes, said):
  weights = changes.pop('weights', '')
  with jax.set_mesh(mesh(**sizes)), pytest.raises(UserError, match=said):
    made = jax.tree.map(axes.shard, params, llama.dims(CONFIG))
    Engine(made, CONFIG, dataclasses.replace(SIZES, **changes), weights)


def test_parameters_of_one_stage_are_not_taken_for_several(params, mesh):
  whole = programs.prepared(params, CONFIG)
  with (
    jax.set_mesh(mesh(stage=2)),
    pytest.raises(UserError, match='prepared otherwise'),
  ):
    Engine(whole, CONFIG, SIZES)


def test_likelihoods_need_one_stage(params, mesh):
  with jax.set_mesh(mesh(stage=2)), pytest.raises(UserError, match='mesh.stage=1'):
    made = jax.tree.map(axes.shard, params, llama.dims(CONFIG))
    likelihood.of_answers(made, [[1, 2]], [[[3]]], CONFIG)


def test_one_answer_is_streamed_over_stages(params, mesh):
  prompt = asked()[0]
  alone = Engine(params, CONFIG, engine.one(128, CONFIG))
  expected = list(engine.stream(alone, prompt, (5,), SETTINGS))
  with jax.set_mesh(mesh(stage=2)):
    made = jax.tree.map(axes.shard, params, llama.dims(CONFIG))
    staged = Engine(made, CONFIG, engine.one(128, CONFIG))
    assert list(engine.stream(staged, prompt, (5,), SETTINGS)) == expected
