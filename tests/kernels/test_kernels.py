"""Every attention path and the fused loss equal their references, gradients too."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama3_jax import axes
from llama3_jax import feed
from llama3_jax.base.errors import UserError
from llama3_jax.config import ModelConfig
from llama3_jax.kernels import blockwise
from llama3_jax.kernels import cross_entropy
from llama3_jax.kernels import flash
from llama3_jax.kernels import splash
from llama3_jax.kernels.rule import BRANCH
from llama3_jax.kernels.rule import Rule
from llama3_jax.model import attention
from llama3_jax.model import llama
from llama3_jax.train import loss as losses


def rows(b, t, n, k, h, documents=3, seed=0, padding=0):
  """q, k, v, a cotangent and (position, segment) of packed documents."""
  rng = np.random.default_rng(seed)
  make = lambda heads: jnp.asarray(rng.normal(size=(b, t, heads, h)), jnp.float32)
  segment = np.sort(rng.integers(1, documents + 1, (b, t)), 1).astype(np.int32)
  segment[:, t - padding :] = 0
  position = np.tile(np.arange(t, dtype=np.int32), (b, 1))
  return (make(n), make(k), make(k), make(n)), tuple(
    map(jnp.asarray, (position, segment))
  )


def both(function, arrays, side):
  """Output and the gradients of q, k, v."""
  q, k, v, g = arrays

  def run(q, k, v):
    out, back = jax.vjp(lambda q, k, v: function(q, k, v, side, side), q, k, v)
    return out, *back(g)

  return jax.jit(run)(q, k, v)


def close(a, b, tolerance=3e-5):
  for x, y in zip(a, b):
    np.testing.assert_allclose(x, y, atol=tolerance, rtol=1e-4)


@pytest.mark.parametrize('window', [0, 1, 9, 50])
def test_the_rule_is_what_it_says(window):
  _, (position, segment) = rows(1, 50, 1, 1, 8, 3, padding=5)
  seen = Rule(window).visible((position, segment), (position, segment))[0]
  p, s = position[0].tolist(), segment[0].tolist()
  for i in range(50):
    for j in range(50):
      near = 0 <= p[i] - p[j] and (not window or p[i] - p[j] < window)
      assert bool(seen[i, j]) == (s[i] == s[j] > 0 and near)


@pytest.mark.parametrize('window,seen', [(0, 32), (64, 32), (99, 32), (16, 14)])
def test_keys_seen_are_the_mean_of_the_triangle(window, seen):
  """Up to the half of the diagonal, which the usual count leaves out."""
  assert Rule(window).seen(64) == seen
  position = jnp.arange(4096)
  mask = Rule(window).before(position[:, None], position)
  assert float(jnp.sum(mask)) / 4096 == pytest.approx(Rule(window).seen(4096), abs=0.5)


@pytest.mark.parametrize('block', [8, 16, 64])
@pytest.mark.parametrize('documents,padding', [(1, 0), (6, 5)])
@pytest.mark.parametrize('rule', [Rule(), Rule(11)])
def test_blocks_equal_the_dense_form(block, documents, padding, rule):
  arrays, side = rows(2, 50, 4, 2, 8, documents, padding=padding)
  attend = functools.partial(blockwise.attend, rule=rule, block=block)
  dense = functools.partial(attention.dense, rule=rule)
  close(both(attend, arrays, side), both(dense, arrays, side))


@pytest.mark.parametrize('block', [8, 64])
@pytest.mark.parametrize('window', [0, 7])
def test_branches_see_what_they_share_and_no_other(block, window):
  """Two documents of a row: one with three branches, one with none."""
  arrays, _ = rows(1, 50, 4, 2, 8, padding=4)
  parts = ((1, 0, 9), (1, 1, 8), (1, 2, 12), (1, 3, 3), (2, 0, 14), (0, 0, 4))
  segment = [d + BRANCH * b for d, b, n in parts for _ in range(n)]
  position = [i + (9 if b else 0) for _, b, n in parts for i in range(n)]
  side = tuple(jnp.asarray([x], jnp.int32) for x in (position, segment))
  rule = Rule(window, branches=True)
  seen = np.asarray(rule.visible(side, side)[0])
  for i in range(50):
    for j in range(50):
      (d, b), (e, c) = (
        divmod(segment[i], BRANCH)[::-1],
        divmod(segment[j], BRANCH)[::-1],
      )
      near = 0 <= position[i] - position[j] < (window or 99)
      assert seen[i, j] == (d == e > 0 and (c == 0 or b == c) and near)
  attend = functools.partial(blockwise.attend, rule=rule, block=block)
  dense = functools.partial(attention.dense, rule=rule)
  close(both(attend, arrays, side), both(dense, arrays, side))


@pytest.mark.parametrize(
  'length, block, size',
  [(128, 64, 64), (88, 64, 88), (96, 64, 96), (97, 64, 56), (200, 64, 56), (5, 64, 8)],
)
def test_blocks_are_equal_and_pad_little(length, block, size):
  assert blockwise.even(length, block) == size
  (q, k, v, _), side = rows(1, length, 4, 2, 8)
  attend = functools.partial(blockwise.attend, block=block)
  program = str(jax.make_jaxpr(attend)(q, k, v, side, side))
  assert ('pad[' in program) == (length % size > 0)


def test_blocks_take_rows_in_any_order():
  arrays, side = rows(2, 32, 4, 2, 8)
  order = np.random.default_rng(1).permutation(32)
  mixed = jax.tree.map(lambda x: x[:, order], (arrays, side))
  found = both(functools.partial(blockwise.attend, block=8), *mixed)
  expected = both(attention.dense, arrays, side)
  close(found, [x[:, order] for x in expected])


def test_short_documents_leave_blocks_out():
  (q, k, v, _), (position, _) = rows(1, 64, 4, 2, 8)

  def meetings(documents, rule=Rule()):
    segment = jnp.asarray(1 + np.arange(64) * documents // 64, jnp.int32)
    cut = lambda x: x.reshape(-1, 8)
    query = list(zip(cut(position[0]), cut(segment)))
    return sum(bool(rule.meets(a, b)) for a in query for b in query)

  assert (meetings(1), meetings(4), meetings(8)) == (36, 12, 8)
  assert (meetings(1, Rule(1)), meetings(1, Rule(8)), meetings(1, Rule(10))) == (
    8,
    15,
    21,
  )


def test_blocks_hold_no_square_of_scores():
  def memory(t):
    (q, k, v, g), side = rows(1, t, 4, 2, 8)
    f = functools.partial(blockwise.attend, block=64)
    run = lambda q, k, v: jax.vjp(lambda *x: f(*x, side, side), q, k, v)[1](g)
    return jax.jit(run).lower(q, k, v).compile().memory_analysis().temp_size_in_bytes

  assert memory(2048) < 2.5 * memory(1024)


@pytest.mark.parametrize('rule', [Rule(), Rule(40), Rule(130)])
def test_splash_equals_the_dense_form(rule):
  arrays, side = rows(1, 384, 2, 1, 64, padding=7)
  kernel = functools.partial(splash.attend, rule=rule, block=128, interpret=True)
  dense = functools.partial(attention.dense, rule=rule)
  close(both(kernel, arrays, side), both(dense, arrays, side), 2e-4)


@pytest.mark.parametrize('rule', [Rule(), Rule(100)])
def test_splash_under_context_parallelism(mesh, rule):
  arrays, side = rows(2, 512, 4, 2, 64)
  expected = both(functools.partial(attention.dense, rule=rule), arrays, side)
  with jax.set_mesh(mesh(fsdp=2, context=2, tensor=2)):
    order = feed.order(512)
    place = lambda x: axes.shard(x[:, order], 'BTNH' if x.ndim == 4 else 'BT')
    mixed = jax.tree.map(place, (arrays, side))
    kernel = functools.partial(splash.attend, rule=rule, block=128, interpret=True)
    found = both(kernel, *mixed)
  close(found, [x[:, order] for x in expected], 2e-4)


def test_splash_tables_of_long_rows_are_quick_and_right():
  causal = splash.Mask(131_072, 1, Rule())
  assert causal[slice(0, 1024), slice(1024, 2048)].any() == np.False_
  assert causal[slice(1024, 2048), slice(0, 1024)].all() == np.True_
  part = causal[slice(1024, 1152), slice(1024, 1152)]
  assert (part == np.tri(128, dtype=bool)).all()
  near = splash.Mask(131_072, 1, Rule(1024))
  assert near[slice(4096, 5120), slice(1024, 2048)].any() == np.False_
  assert near[slice(4096, 4224), slice(3968, 4096)].all() == np.True_
  part = near[slice(4096, 5120), slice(3072, 4096)]
  assert (part == np.triu(np.ones((1024, 1024), bool), 1)).all()


def test_gpu_kernel_equals_the_dense_form():
  arrays, side = rows(1, 128, 2, 1, 32, padding=5)
  kernel = functools.partial(flash.attend, interpret=True)
  close(both(kernel, arrays, side), both(attention.dense, arrays, side), 2e-4)


@pytest.mark.parametrize('parts', [2, 4, 8])
def test_every_rank_sees_the_same_area_of_the_causal_mask(mesh, parts):
  with jax.set_mesh(mesh(context=parts)):
    order = feed.order(64)
  assert sorted(order) == list(range(64))
  area = [int(np.sum(chunk + 1)) for chunk in order.reshape(parts, -1)]
  assert len(set(area)) == 1
  first = order.reshape(parts, -1)[0]
  size = 64 // (2 * parts)
  assert list(first) == [*range(size), *range(64 - size, 64)]


def naive(hidden, head, targets, weight, z_loss):
  logits = hidden @ head
  logz = jax.nn.logsumexp(logits, -1)
  picked = jnp.take_along_axis(logits, targets[..., None], -1)[..., 0]
  return jnp.sum(weight * (logz - picked + z_loss * logz**2))


def loss_inputs(d=16):
  rng = np.random.default_rng(0)
  make = lambda *s: jnp.asarray(rng.normal(size=s), jnp.float32)
  targets = jnp.asarray(rng.integers(0, 64, (8, 12)), jnp.int32)
  return make(8, 12, d), make(d, 64), targets, jnp.abs(make(8, 12))


MESHES = [None, dict(fsdp=2, context=2, tensor=2), dict(replica=2, tensor=4)]


@pytest.mark.parametrize('letters', ['DV', 'VD'])
@pytest.mark.parametrize('chunk', [0, 5])
@pytest.mark.parametrize('sizes', MESHES)
def test_fused_loss_equals_the_naive_one(mesh, sizes, chunk, letters):
  hidden, head, targets, weight = loss_inputs()
  expected = jax.value_and_grad(naive, (0, 1))(hidden, head, targets, weight, 0.1)

  @jax.jit
  def run(hidden, head, targets, weight):
    def fused(hidden, head):
      w = head if letters == 'DV' else head.T
      w = axes.shard(w, letters)
      how = (letters, 0.1, chunk, 'float32')
      return cross_entropy.total(axes.shard(hidden, 'BTD'), w, targets, weight, how)[0]

    return jax.value_and_grad(fused, (0, 1))(hidden, head)

  def measure():
    places = ('BTD', 'DV', 'BT', 'BT')
    return run(*map(axes.shard, (hidden, head, targets, weight), places))

  if sizes is None:
    found = measure()
  else:
    with jax.set_mesh(mesh(**sizes)):
      found = measure()
  close(jax.tree.leaves(found), jax.tree.leaves(expected), 1e-4)


# 12 tokens a device (fsdp=8): fewer than D of 16, so that slopes are kept, or more.
@pytest.mark.parametrize('d', [8, 16])
@pytest.mark.parametrize('letters', ['DV', 'VD'])
@pytest.mark.parametrize('sizes', [dict(fsdp=8), dict(replica=2, fsdp=2, context=2)])
def test_the_head_s_gradient_by_sections_is_the_whole_one(
  mesh, monkeypatch, sizes, letters, d
):
  monkeypatch.setattr(axes, 'LANES', 8)
  monkeypatch.setattr(axes, 'SECTION', 4 * d * 16)  # a quarter of the vocabulary
  sums, scatter = [], axes.device_scatter

  def spied(x, *letters):
    sums.append(x.size)
    return scatter(x, *letters)

  monkeypatch.setattr(axes, 'device_scatter', spied)
  hidden, head, targets, weight = loss_inputs(d)

  def naive_logprobs(hidden, head):
    logp = jax.nn.log_softmax(hidden @ head)
    return jnp.sum(weight * jnp.take_along_axis(logp, targets[..., None], -1)[..., 0])

  def laid(hidden, head):
    w = axes.shard(head if letters == 'DV' else head.T, letters)
    return axes.shard(hidden, 'BTD'), w, axes.shard(targets, 'BT')

  def fused(hidden, head):
    how = (letters, 0.1, 5, 'float32')
    return cross_entropy.total(*laid(hidden, head), axes.shard(weight, 'BT'), how)[0]

  def logprobs(hidden, head):
    how = (letters, 0.0, 5, 'float32')
    found = cross_entropy.logprobs(*laid(hidden, head), how)[0]
    return jnp.sum(axes.shard(weight, 'BT') * found)

  plain = lambda hidden, head: naive(hidden, head, targets, weight, 0.1)
  for f, expected in ((fused, plain), (logprobs, naive_logprobs)):
    expected = jax.jit(jax.value_and_grad(expected, (0, 1)))(hidden, head)
    with jax.set_mesh(mesh(**sizes)):
      found = jax.jit(jax.value_and_grad(f, (0, 1)))(hidden, head)
    close(jax.tree.leaves(found), jax.tree.leaves(expected), 1e-4)
  assert sums and set(sums) == {d * 16}


def test_a_cache_never_takes_a_kernel_that_reads_order_from_columns():
  for name in ('splash', 'flash', 'auto'):
    config = ModelConfig(1, 8, 2, 1, 8, 8, attention=name)
    assert attention.method(128, 128, False, config) == 'blockwise'
    assert attention.method(1, 128, False, config) == 'dense'
  assert attention.method(128, 128, True, config) == 'blockwise'
  splash_ = dataclasses.replace(config, attention='splash')
  assert attention.method(128, 128, True, splash_) == 'splash'


def test_the_gpu_kernel_is_refused_where_rows_are_cut(mesh):
  config = ModelConfig(1, 8, 2, 1, 8, 8, attention='flash')
  with jax.set_mesh(mesh(context=2)), pytest.raises(UserError, match='mesh.context'):
    attention.method(128, 128, True, config)


def test_memory_of_a_gradient_grows_with_the_row_and_not_with_its_square():
  """Masks of all pairs of blocks would be made at once by the scan over layers."""
  config = ModelConfig(2, 32, 8, 2, 8, 32, vocab_size=64, dtype='float32')

  def needed(length):
    whole = lambda dtype: jax.ShapeDtypeStruct((2, length), dtype)
    rows = feed.Tokens(*map(whole, [jnp.int32] * 4), weight=whole(jnp.float32))
    loss = lambda params, rows: losses.next_token(params, rows, config=config)[0]
    compiled = jax.jit(jax.grad(loss)).lower(llama.abstract(config), rows).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  assert needed(2048) < 2.3 * needed(1024)


def test_no_row_in_bfloat16_widens_what_all_rows_gave():
  rows, t = 5, 256
  q, kv = (jnp.zeros((rows, t, n, 16), jnp.bfloat16) for n in (4, 2))
  side = jnp.broadcast_to(jnp.arange(t), (rows, t)), jnp.ones((rows, t), jnp.int32)

  def loss(q, k, v):
    return jnp.sum(blockwise.attend(q, k, v, side, side).astype(jnp.float32))

  program = jax.jit(jax.grad(loss, (0, 1, 2))).lower(q, kv, kv).compile().as_text()
  # What one row gives for the outputs of all, and a block for those of the row.
  wide = r'= f32\[(5,256,\d+,16|4,2,128,16)\]\S* dynamic-update-slice'
  assert 'dynamic-update-slice' in program and not re.search(wide, program)
