"""Loss, gradients and training on every kind of mesh equal those of one device."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rows

from llama3_jax import axes
from llama3_jax import feed
from llama3_jax.base.errors import UserError
from llama3_jax.config import ModelConfig
from llama3_jax.model import embedding
from llama3_jax.model import linear
from llama3_jax.model import llama
from llama3_jax.train import loss as losses
from llama3_jax.train import optim
from llama3_jax.train import step

C = ModelConfig(
  2, 32, 8, 8, 8, 64, vocab_size=64, rope_theta=1e4, dtype='float32', attention='dense'
)
PATHS = {
  'dense': C,
  'blockwise': dataclasses.replace(C, attention='blockwise', block=4),
}
MESHES = {
  'fsdp': dict(fsdp=8),
  'tensor': dict(tensor=8),
  'context': dict(context=8),
  'replica': dict(replica=2, fsdp=4),
  'mixed': dict(replica=2, context=2, tensor=2),
  'mixed with fsdp': dict(fsdp=2, context=2, tensor=2),
}
B, T = 8, 32


packed = functools.partial(rows.packed, B, T)


def init():
  return jax.jit(llama.init, static_argnums=1)(jax.random.key(0), C)


@functools.partial(jax.jit, static_argnums=2)
def value_and_gradient(params, batch, config):
  def loss(p):
    return losses.next_token(p, batch, config, z_loss=1e-3, chunk=8)

  return jax.value_and_grad(loss, has_aux=True)(params)


@pytest.fixture(scope='module')
def expected():
  """Without any mesh: the loss, its metrics and the gradients."""
  batch = jax.tree.map(jnp.asarray, packed())
  return jax.tree.map(np.asarray, value_and_gradient(init(), batch, C))


CASES = [('dense', n) for n in ('fsdp', 'tensor', 'context', 'mixed with fsdp')]
CASES += [('blockwise', n) for n in ('replica', 'context', 'mixed')]


@pytest.mark.parametrize('path,name', CASES)
def test_loss_and_gradients_are_those_of_one_device(mesh, expected, path, name):
  with jax.set_mesh(mesh(**MESHES[name])):
    params = init()
    found = value_and_gradient(params, feed.place(packed()), PATHS[path])
    for p, g in zip(jax.tree.leaves(params), jax.tree.leaves(found[1])):
      assert g.sharding.is_equivalent_to(p.sharding, g.ndim)
  close(found, expected)


def test_one_more_axis_of_the_mesh_keeps_the_loss(monkeypatch, expected):
  """Only the rules know the axes: what asks them needs no change for a new one."""
  names = ('expert', *axes.AXES)
  monkeypatch.setattr(axes, 'AXES', names)
  monkeypatch.setitem(axes.RULES, 'B', ('expert', *axes.RULES['B']))
  grid = np.array(jax.devices()[:8]).reshape(2, 1, 2, 1, 1, 2)
  explicit = (jax.sharding.AxisType.Explicit,) * len(names)
  with jax.set_mesh(jax.sharding.Mesh(grid, names, axis_types=explicit)):
    for path in ('dense', 'blockwise'):
      found = value_and_gradient(init(), feed.place(packed()), PATHS[path])
      close(found, expected)


def close(found, expected, tolerance=2e-5):
  """Every leaf equal within `tolerance` of the leaf's largest value."""
  names = jax.tree_util.tree_leaves_with_path(expected)
  for (path, b), a in zip(names, jax.tree.leaves(found)):
    a, b = np.asarray(a), np.asarray(b)
    worst = np.abs(a - b).max() / max(np.abs(b).max(), 1e-6)
    assert worst < tolerance, (jax.tree_util.keystr(path), worst)


def test_one_device_with_a_mesh_is_no_mesh(mesh, expected):
  with jax.set_mesh(mesh()):
    close(value_and_gradient(init(), feed.place(packed()), C), expected)


def test_blockwise_without_a_mesh(expected):
  batch = jax.tree.map(jnp.asarray, packed())
  close(value_and_gradient(init(), batch, PATHS['blockwise']), expected)


def test_parameters_are_cut_as_the_alphabet_says(mesh):
  with jax.set_mesh(mesh(fsdp=2, context=2, tensor=2)):
    p = init()
  assert p.layers.wq.sharding.shard_shape(p.layers.wq.shape) == (2, 8, 4, 8)
  assert p.layers.w_down.sharding.shard_shape(p.layers.w_down.shape) == (2, 32, 8)
  assert p.embed.sharding.shard_shape(p.embed.shape) == (32, 8)


def test_initial_parameters_do_not_depend_on_the_mesh(mesh):
  plain = init()
  with jax.set_mesh(mesh(fsdp=2, tensor=4)):
    meshed = init()
  for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(meshed)):
    # Equal but for rounding: a few units in the last place of the largest values.
    np.testing.assert_allclose(a, b, rtol=1e-6, atol=3e-7)


LOSS = functools.partial(losses.next_token, config=C, chunk=16)
OPTIMIZER = optim.create(optim.OptimConfig(peak=1e-2, warmup=2, decay=10, eps=1e-5))


def train(n, microbatches=1):
  """Parameters and metrics after `n` steps on the ambient mesh."""
  train_step = step.compose(LOSS, OPTIMIZER, microbatches)
  state = train_step.start(init())
  rows = []
  for i in range(n):
    batch = feed.place(packed(i))
    state, found = train_step(state, batch)
    rows.append(jax.tree.map(lambda v: float(v), found))
  return jax.tree.map(np.asarray, state.params), rows


@pytest.fixture(scope='module')
def trained():
  return train(4)


@pytest.mark.parametrize('name,microbatches', [('mixed', 1), ('mixed with fsdp', 4)])
def test_training_on_a_mesh_is_training_on_one_device(
  mesh, trained, name, microbatches
):
  with jax.set_mesh(mesh(**MESHES[name])):
    params, rows = train(4, microbatches)
  close(params, trained[0], 2e-3)
  for a, b in zip(rows, trained[1]):
    assert a == pytest.approx(b, rel=1e-4)


def test_optimizer_moments_are_cut_like_the_parameters(mesh):
  with jax.set_mesh(mesh(fsdp=4, tensor=2)):
    state = step.compose(LOSS, OPTIMIZER).start(init())
  shape = state.params.layers.wq.shape
  cut = [x for x in jax.tree.leaves(state.opt) if x.shape == shape]
  assert len(cut) >= 2
  for x in cut:
    assert x.sharding.shard_shape(shape) == (2, 8, 4, 8)


def test_keys_and_values_are_gathered_over_context_only(mesh):
  """Context parallelism of 3.3.2: queries stay cut, keys and values are whole."""
  with jax.set_mesh(mesh(context=4, tensor=2)):
    kv = axes.shard(jnp.zeros((2, 8, 2, 4)), 'BTKH')
    assert kv.sharding.shard_shape(kv.shape) == (2, 2, 1, 4)
    whole = axes.shard(kv, 'BSKH')
    assert whole.sharding.shard_shape(kv.shape) == (2, 8, 1, 4)


def equations(jaxpr):
  """Every equation of a jaxpr, those of inner jaxprs too."""
  for eqn in jaxpr.eqns:
    yield eqn
    for inner in jax.tree.leaves(
      list(eqn.params.values()), is_leaf=lambda x: hasattr(x, 'eqns')
    ):
      if hasattr(inner, 'eqns'):
        yield from equations(getattr(inner, 'jaxpr', inner))


def test_fsdp_gathers_the_small_type(mesh):
  """Weights are cast before they are gathered: half the bytes on the wire."""
  config = dataclasses.replace(C, dtype='bfloat16')

  def f(p, batch):
    return losses.next_token(p, batch, config, chunk=0)[0]

  with jax.set_mesh(mesh(fsdp=8)):
    jaxpr = jax.make_jaxpr(f)(init(), feed.place(packed()))
  moved = []
  for eqn in equations(jaxpr.jaxpr):
    if eqn.primitive.name != 'reshard':
      continue
    before, after = eqn.invars[0].aval, eqn.outvars[0].aval
    if before.ndim > 1 and before.dtype != np.int32:
      if 'fsdp' in str(before.sharding.spec) and 'fsdp' not in str(after.sharding.spec):
        moved.append((before.shape, str(before.dtype)))
  assert len(moved) >= 8  # embedding, seven matrices of a layer, head
  assert {dtype for _, dtype in moved} == {'bfloat16'}, moved


@pytest.mark.parametrize('name', ['fsdp', 'tensor', 'context', 'mixed with fsdp'])
def test_a_frequent_token_s_gradients_do_not_vanish(mesh, name):
  """As above, of the table of embeddings: 256 + 255 x 0.5 in bfloat16 stays 256."""
  tokens = np.full((B, T), 63, np.int32)
  slopes = np.full((B, T, 8), 0.5, np.float32)
  slopes[0, 0] = 256

  def found(reduce):
    config = dataclasses.replace(C, dtype='bfloat16', reduce_dtype=reduce)

    @jax.jit
    @jax.grad
    def slope(table):
      x = embedding.embed(llama.Params(table, None, None, None), placed, config)
      return jnp.sum(axes.shard(x.astype(jnp.float32), 'BTD') * weights)

    return np.asarray(slope(axes.shard(jnp.ones((64, 8)), 'VD')))

  with jax.set_mesh(mesh(**MESHES[name])):
    placed = axes.shard(jnp.asarray(tokens), 'BT')
    weights = axes.shard(jnp.asarray(slopes), 'BTD')
    np.testing.assert_array_equal(found('float32')[63], 256 + 255 * 0.5)
    assert found('float32')[:63].max() == 0
    assert (found('bfloat16')[63] != 256 + 255 * 0.5).all()


# Sizes that no other test has: what was traced with other sections is not used again.
WIDE = dataclasses.replace(C, d_ff=128, vocab_size=256)


@pytest.mark.parametrize('name', ['fsdp', 'replica', 'context', 'mixed with fsdp'])
def test_gradients_by_sections_are_those_of_one_device(mesh, monkeypatch, name):
  def measured(batch):
    p = jax.jit(llama.init, static_argnums=1)(jax.random.key(0), WIDE)
    return value_and_gradient(p, batch, WIDE), (p, batch, WIDE)

  expected, _ = measured(jax.tree.map(jnp.asarray, packed()))
  monkeypatch.setattr(axes, 'LANES', 8)
  monkeypatch.setattr(axes, 'SECTION', 4 * 32 * 16)  # 16 of 128 columns
  with jax.set_mesh(mesh(**MESHES[name])):
    found, arguments = measured(feed.place(packed()))
    jaxpr = jax.make_jaxpr(value_and_gradient, static_argnums=2)(*arguments)
  close(found, jax.tree.map(np.asarray, expected))
  if MESHES[name].get('tensor', 1) == 1:
    sums = [e for e in equations(jaxpr.jaxpr) if e.primitive.name == 'dot_general']
    shapes = [e.outvars[0].aval.shape for e in sums]
    assert {(32, 128), (128, 32)}.isdisjoint(shapes)
    assert sum(sorted(s) == [16, 32] for s in shapes) >= 3 * 8


def test_small_gradients_of_many_devices_do_not_vanish(mesh):
  """In bfloat16 256 + 7 x 0.5 stays 256 or becomes 260 (section 3.3.2)."""
  x = np.zeros((8, 1, 8), np.float32)
  x[:, 0, 0] = [256] + [0.5] * 7

  def slope(reduce):
    def loss(w):
      y = linear.einsum('BTD,DF->BTF', rows, w, reduce=reduce)
      return jnp.sum(y.astype(jnp.float32))

    return np.asarray(jax.jit(jax.grad(loss))(w))[0, 0]

  with jax.set_mesh(mesh(fsdp=8)):
    rows = axes.shard(jnp.asarray(x, jnp.bfloat16), 'BTD')
    w = axes.shard(jnp.ones((8, 4)), 'DF')
    assert slope('float32') == 259.5
    assert slope('bfloat16') in (256, 258, 260)


KEPT = [('none', True), ('full', True), ('qkvo', True), ('qkvo', False)]
KEPT += [('gate,up', False)]


@pytest.mark.parametrize('remat,reshard', KEPT)
def test_what_is_kept_does_not_change_gradients(mesh, expected, remat, reshard):
  config = dataclasses.replace(PATHS['blockwise'], remat=remat, reshard=reshard)
  with jax.set_mesh(mesh(fsdp=4, tensor=2)):
    found = value_and_gradient(init(), feed.place(packed()), config)
  close(found, expected)


def test_weights_stay_gathered_when_asked(mesh):
  """The paper does not shard again after the forward pass (section 3.3.2)."""

  def gathers(reshard):
    config = dataclasses.replace(C, n_layers=1, reshard=reshard)
    with jax.set_mesh(mesh(fsdp=8)):
      p = jax.jit(llama.init, static_argnums=1)(jax.random.key(0), config)
      lowered = value_and_gradient.lower(p, feed.place(packed()), config)
    text = lowered.compile().as_text()
    return sum('all-gather' in line for line in text.splitlines())

  assert gathers(False) < gathers(True)


def test_one_hot_embedding_is_the_gather(mesh, expected):
  config = dataclasses.replace(C, embedding='onehot')
  with jax.set_mesh(mesh(fsdp=2, context=2, tensor=2)):
    found = value_and_gradient(init(), feed.place(packed()), config)
  close(found, expected)


def test_the_residual_stream_is_cut_over_tensor(mesh):
  with jax.set_mesh(mesh(fsdp=2, context=2, tensor=2)):
    x = jax.jit(embedding.embed, static_argnums=2)(
      init(), feed.place(packed()).tokens, C
    )
  assert x.sharding.shard_shape(x.shape) == (4, T // 4, 32)


def test_an_unknown_remat_name_is_named():
  config = dataclasses.replace(C, remat='queries')
  with pytest.raises(UserError, match='model.remat'):
    jax.eval_shape(lambda p, b: losses.next_token(p, b, config), init(), packed())
