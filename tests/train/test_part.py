"""Frozen parameters, low-rank adapters and groups of learning rates."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy_model as model_tests
import toy_post as post
import toy_run as toy

from configs import dpo as dpo_config
from configs import reward as reward_config
from configs import sft as sft_config
from experiments import dpo
from experiments import reward
from experiments import sft
from llama3_jax import feed
from llama3_jax.base.errors import UserError
from llama3_jax.model import llama
from llama3_jax.post import reward as reward_lib
from llama3_jax.train import checkpoint
from llama3_jax.train import digest
from llama3_jax.train import loop
from llama3_jax.train import loss as losses
from llama3_jax.train import models
from llama3_jax.train import optim
from llama3_jax.train import part
from llama3_jax.train import step

C = toy.C
LETTERS = llama.dims(C)
root = post.root  # fixture


def chosen(**fields):
  return part.Part(LETTERS, part.PartConfig(**fields))


def params(seed=0):
  return jax.jit(llama.init, static_argnums=1)(jax.random.key(seed), C)


def named(tree):
  leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
  return {digest.name(path): np.asarray(x) for path, x in leaves}


def filled(made):
  """A split whose adapters add something."""
  trained, frozen = made.split(params())
  low = {
    name: (a, 0.3 * jax.random.normal(jax.random.key(1), b.shape))
    for name, (a, b) in trained.low.items()
  }
  return trained.replace(low=low), frozen


def batch(seed=0):
  pairs = zip(model_tests.packed(seed), model_tests.packed(seed + 9))
  tokens, position, segment = (np.concatenate(pair) for pair in pairs)
  weight = (segment > 0).astype(np.float32)
  targets = np.roll(tokens, -1, 1)
  return feed.place(feed.Tokens(tokens, targets, segment, position, weight))


LOSS = functools.partial(losses.next_token, config=C)


def test_all_is_trained_unless_a_config_says_so():
  c = toy.config()
  assert part.of(c, LETTERS) is None
  c.part.rank = 2
  assert part.of(c, LETTERS).config.rank == 2


@pytest.mark.parametrize(
  'fields,own,low',
  [
    (dict(trainable=('*norm',)), {'layers.attn_norm', 'layers.ff_norm', 'norm'}, set()),
    (dict(trainable=('embed', 'head')), {'embed', 'head'}, set()),
    (dict(rank=2, lora=('layers.w[qv]',)), set(), {'layers.wq', 'layers.wv'}),
    (
      dict(rank=2, lora=('*w_down', '*wo'), trainable=('norm', '*.wo')),
      {'norm', 'layers.wo'},
      {'layers.w_down'},
    ),
  ],
)
def test_patterns_choose_what_is_trained(fields, own, low):
  made = chosen(**fields)
  whole = named(params())
  trained, frozen = made.split(params())
  assert set(named(trained.own)) == own and set(trained.low) == low
  assert set(named(frozen)) == set(whole) - own
  for name, x in (named(trained.own) | named(frozen)).items():
    np.testing.assert_array_equal(x, whole[name])
  for name, x in named(made.whole(trained, frozen)).items():
    np.testing.assert_array_equal(x, whole[name])  # at first nothing is added


def test_patterns_that_match_nothing_are_one_line():
  for fields, words in (
    (dict(trainable=('norms',)), "part.trainable: no parameter is 'norms'.*layers.wq"),
    (dict(rank=1, lora=('embed',)), "part.lora: no product is 'embed'.*layers.w_gate"),
  ):
    with pytest.raises(UserError, match=words) as error:
      chosen(**fields).split(params())
    assert '\n' not in str(error.value)


def test_adapters_are_the_sum_of_products():
  """Each path of the forward pass equals the one of the summed weights."""
  made = chosen(rank=3, alpha=6.0)
  trained, frozen = filled(made)
  assert len(trained.low) == 7
  whole = made.whole(trained, frozen)
  a, b = trained.low['layers.wo']
  by_hand = frozen.layers.wo + 2.0 * (a @ b).reshape(frozen.layers.wo.shape)
  np.testing.assert_allclose(whole.layers.wo, by_hand, rtol=1e-5, atol=1e-6)
  x, y = (LOSS(p, batch())[0] for p in (made.join(trained, frozen), whole))
  base = LOSS(params(), batch())[0]
  np.testing.assert_allclose(x, y, rtol=1e-5)
  assert abs(float(x - base)) > 0.1


def test_gradients_of_adapters_are_those_of_the_sum():
  made = chosen(rank=3, trainable=('*norm',))
  trained, frozen = filled(made)
  through = lambda form: jax.grad(lambda t: LOSS(form(t, frozen), batch())[0])(trained)
  found, expected = named(through(made.join)), named(through(made.whole))
  assert set(found) == set(expected) and len(found) == 3 + 2 * 7
  for name, x in expected.items():
    np.testing.assert_allclose(found[name], x, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize('microbatches', [1, 2])
def test_adapters_on_a_mesh_are_those_of_one_device(mesh, microbatches):
  optimizer = optim.create(optim.OptimConfig(peak=1e-2, warmup=1, decay=10, eps=1e-5))
  how = step.compose(LOSS, optimizer, microbatches, part=chosen(rank=2))

  def train():
    state = how.start(params())
    for i in range(3):
      state, found = how(state, batch(i))
    return named(how.whole(state)), float(found['loss'])

  alone, loss = train()
  with jax.set_mesh(mesh(fsdp=2, tensor=2)):
    cut, other = train()
  assert loss == pytest.approx(other, rel=1e-4)
  for name, x in alone.items():
    np.testing.assert_allclose(cut[name], x, atol=2e-3)


def test_no_gradient_of_a_frozen_product_is_made():
  """The compiled step has no product that makes one, nor moments of it."""
  products = {}
  for name, made in (('all', None), ('few', chosen(trainable=('norm',)))):
    how = step.compose(LOSS, optim.create(optim.OptimConfig()), part=made)
    state = jax.eval_shape(how.start, params())
    text = step.train_step.lower(state, batch(), how).compile().as_text()
    products[name] = sum(' dot(' in line for line in text.splitlines())
    if made:
      moments = [x for x in jax.tree.leaves(state.opt) if x.ndim]
      assert sum(x.size for x in moments) == 2 * C.d_model
  assert products['few'] < products['all'] - 5


def run(folder, data, c, made, steps=8):
  """The loop on toy rows with a part; the start is that of the seed 0."""
  c.train.steps = steps
  how = step.compose(
    LOSS, optim.create(optim.OptimConfig(**c.optim)), c.train.microbatches, part=made
  )
  state = loop.run(c, folder, C, how, data, params, None)
  return how, state


@pytest.mark.parametrize('fields', [dict(trainable=('*norm',)), dict(rank=2)])
def test_frozen_parameters_are_not_in_the_saves_and_keep_their_bytes(
  documents, tmp_path, fields
):
  made = chosen(**fields)
  how, whole = run(tmp_path / 'a', toy.Data(documents), toy.config(), made)
  before = named(params())
  for name, x in named(whole.frozen).items():
    assert x.tobytes() == before[name].tobytes()
  changed = [n for n, x in named(how.whole(whole)).items() if (x != before[n]).any()]
  assert len(changed) == (7 if 'rank' in fields else 3)
  run(tmp_path / 'b', toy.Data(documents), toy.config(), made, steps=4)
  _, resumed = run(tmp_path / 'b', toy.Data(documents), toy.config(), made)
  toy.equal(whole, resumed)
  saves = checkpoint.open_run(tmp_path / 'a', toy.config().train)
  kept = saves.data(8)['frozen']
  assert set(kept) == set(named(whole.frozen))
  arrays = {name.partition('.')[2] for name in saves._data(8)[1]['arrays']}
  saves.close()
  trained, _ = made.split(params())
  assert {n for n in arrays if n.startswith(('own.', 'low.'))} == set(named(trained))
  assert not any(name in arrays for name in named(whole.frozen))


def test_another_start_beside_the_same_saves_is_refused(documents, tmp_path):
  made = chosen(trainable=('*norm',))
  run(tmp_path, toy.Data(documents), toy.config(), made, steps=4)
  c = toy.config()
  how = step.compose(LOSS, optim.create(optim.OptimConfig(**c.optim)), part=made)
  with pytest.raises(UserError, match=r'other frozen parameters \(embed\)') as error:
    loop.run(c, tmp_path, C, how, toy.Data(documents), lambda: params(1), None)
  assert '\n' not in str(error.value)


def test_a_pipeline_with_frozen_parameters_is_refused(mesh):
  from llama3_jax.pipeline import plans

  tail = functools.partial(losses.head_loss, config=C)
  plan = plans.create(C, 2, 2, plans.PipelineConfig(), tail)
  with pytest.raises(UserError, match='mesh.stage=1'):
    step.compose(plan, None, 2, part=chosen(rank=1))


@pytest.mark.parametrize(
  'name,module,get', [('sft', sft, sft_config), ('dpo', dpo, dpo_config)]
)
def test_post_training_with_adapters_leaves_plain_parameters(root, name, module, get):
  c = post.training(get.get_config('tiny'), root, 'base')
  c.part.rank = 4
  results = module.main(c, str(root / f'{name}_lora'))
  assert np.isfinite(results['eval_loss'])
  before, after = (
    named(models.load(str(root / folder))[0]) for folder in ('base', f'{name}_lora')
  )
  for path, x in after.items():
    same = (x == before[path]).all()
    assert same == (not path.startswith('layers.w')), path


def test_reward_model_with_adapters_trains_its_head(root):
  c = post.training(reward_config.get_config('tiny'), root, 'base')
  c.part.update(dict(rank=2, lora=('*.wq',)))
  reward.main(c, str(root / 'reward_lora'))
  found, model = reward_lib.load(str(root / 'reward_lora'))
  before = models.load(str(root / 'base'))[0]
  np.testing.assert_array_equal(found.model.layers.wk, before.layers.wk)
  assert (found.model.layers.wq != before.layers.wq).any()
  start = reward_lib.init(jax.random.key(c.seed), before, model)
  assert (found.head != start.head).any()


def test_groups_scale_the_rate_of_what_they_name():
  c = optim.OptimConfig(warmup=0, decay=0, weight_decay=0.0)
  scaled = dataclasses.replace(c, groups=(('layers.w[qk]', 0.5), ('layers.*', 0.0)))
  updates = {}
  for name, one in (('plain', c), ('groups', scaled)):
    optimizer = optim.create(one)
    grads = jax.tree.map(jnp.ones_like, params())
    found, _ = optimizer.update(grads, optimizer.init(params()), params())
    updates[name] = named(found)
  for name, x in updates['plain'].items():
    factor = 0.5 if name in ('layers.wq', 'layers.wk') else float('layers' not in name)
    np.testing.assert_allclose(updates['groups'][name], factor * x, rtol=1e-6)
  assert all(np.abs(x).max() > 0 for x in updates['plain'].values())


def test_a_group_of_nothing_is_one_line():
  optimizer = optim.create(optim.OptimConfig(groups=(('layer.wq', 0.1),)))
  with pytest.raises(UserError, match="optim.groups: no parameter is 'layer.wq'"):
    optimizer.init(params())


def test_groups_keep_the_norm_of_gradients_and_the_clip():
  c = optim.OptimConfig(groups=(('*', 0.0),))
  optimizer = optim.create(c)
  assert isinstance(optimizer, optax.GradientTransformation)
  how = step.compose(LOSS, optimizer)
  state, found = how(how.start(params()), batch())
  toy.equal(state.params, params())
  assert float(found['grad_norm']) > 0


def test_a_part_that_trains_nothing_is_one_line():
  with pytest.raises(UserError, match='nothing is trained'):
    chosen(rank=2, lora=()).split(params())
