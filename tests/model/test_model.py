"""The decoder against plain numpy: its masks, its cache, both attention paths."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_model as toy

from llama3_jax import axes
from llama3_jax.config import RopeScaling
from llama3_jax.model import attention
from llama3_jax.model import cache as kv
from llama3_jax.model import llama
from llama3_jax.model import rope

BLOCKS = (7, 13, 64)  # of rows of 26 tokens: does not divide, divides, is too long
PATHS = [toy.C] + [
  dataclasses.replace(toy.C, attention='blockwise', block=b) for b in BLOCKS
]
PATH_NAMES = ['dense', *(f'block{b}' for b in BLOCKS)]


@pytest.fixture(scope='module')
def params():
  return jax.jit(llama.init, static_argnums=1)(jax.random.key(0), toy.C)


@functools.partial(jax.jit, static_argnums=1)
def hidden_and_logits(params, config, tokens, position, segment):
  hidden, _ = llama.forward(params, tokens, position, segment, config)
  return hidden, llama.logits(params, hidden, config)


def run(params, config, *arrays):
  """float32 logits of a plain forward."""
  return np.asarray(hidden_and_logits(params, config, *arrays)[1])


def on_mesh(mesh, params, config, *arrays):
  """The same logits computed on a mesh."""
  with jax.set_mesh(mesh):
    params = jax.tree.map(axes.shard, params, llama.dims(config))
    arrays = [axes.shard(jnp.asarray(x), 'BT') for x in arrays]
    return run(params, config, *arrays)


def test_rms_norm_is_the_formula():
  x = np.random.default_rng(0).normal(size=(2, 3, 32)).astype(np.float32) * 5
  scale = np.linspace(0.5, 2, 32, dtype=np.float32)
  expected = x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * scale
  np.testing.assert_allclose(llama.rms_norm(x, scale, 1e-5), expected, rtol=1e-5)
  y = llama.rms_norm(jnp.asarray(x * 1e3, jnp.bfloat16), scale, 1e-5)
  assert y.dtype == jnp.bfloat16  # the squares would overflow no type but lose digits
  np.testing.assert_allclose(np.asarray(y, np.float32), expected, rtol=2e-2)


def test_swiglu_is_the_formula(params):
  p = jax.tree.map(lambda x: x[0], params.layers)
  x = np.random.default_rng(0).normal(size=(1, 4, 32)).astype(np.float32)
  y = x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * np.asarray(p.ff_norm)
  gate, up = y @ np.asarray(p.w_gate), y @ np.asarray(p.w_up)
  expected = (gate / (1 + np.exp(-gate)) * up) @ np.asarray(p.w_down)
  found = llama._feed_forward(p, jnp.asarray(x), toy.C)
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_rope_pairings_agree_after_permutation():
  x = np.random.default_rng(0).normal(size=(2, 5, 3, 8)).astype(np.float32)
  position = np.array([[0, 1, 2, 3, 4], [7, 0, 900, 3, 100]], np.int32)
  angles = rope.angles(position, toy.C)
  order = np.array([0, 2, 4, 6, 1, 3, 5, 7])  # adjacent pairs -> halves
  a = np.asarray(rope.rotate_adjacent(x, *angles))[..., order]
  np.testing.assert_allclose(rope.rotate(x[..., order], *angles), a, rtol=1e-6)
  turned = np.asarray(rope.rotate_adjacent(x, *angles))
  f = 1e4 ** (-np.arange(0, 8, 2) / 8)
  pairs = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(
    1j * position[..., None, None] * f
  )
  np.testing.assert_allclose(turned[..., 0::2], pairs.real, rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(turned[..., 1::2], pairs.imag, rtol=1e-4, atol=1e-4)


def test_rope_scores_depend_on_distance_only():
  rng = np.random.default_rng(0)
  q, k = rng.normal(size=(2, 1, 1, 1, 8)).astype(np.float32)

  def score(a, b):
    at = lambda n: rope.angles(np.full((1, 1), n, np.int32), toy.C)
    return float(jnp.sum(rope.rotate(q, *at(a)) * rope.rotate(k, *at(b))))

  assert score(9, 4) == pytest.approx(score(105, 100), rel=1e-3)
  assert score(9, 4) != pytest.approx(score(9, 5), rel=1e-3)


def test_rope_scaling_keeps_29_blends_6_and_divides_29():
  scaled = rope.frequencies(llama.SIZES['8b'])
  plain = rope.frequencies(llama.SIZES['8b_april'])
  ratio = plain.astype(np.float64) / scaled
  kept, divided = np.isclose(ratio, 1, atol=1e-6), np.isclose(ratio, 8, atol=1e-5)
  assert (kept.sum(), divided.sum(), (~kept & ~divided).sum()) == (29, 29, 6)
  wavelength = 2 * np.pi / plain
  assert np.all(kept[wavelength < 2048]) and np.all(divided[wavelength > 8192])
  assert np.all(np.diff(ratio[~kept & ~divided]) > 0)  # the blend is monotonic
  i = np.flatnonzero(~kept & ~divided)[2]
  smooth = (8192 / wavelength[i] - 1) / 3
  blended = (1 - smooth) * plain[i] / 8 + smooth * plain[i]
  assert scaled[i] == pytest.approx(blended, rel=1e-5)


def test_frequencies_at_head_128_are_of_theta_500000():
  plain = rope.frequencies(llama.SIZES['8b_april'])
  assert plain[0] == 1 and plain[32] == pytest.approx(500_000**-0.5)


def random_attention(n=4, k=2, b=2, t=toy.T, seed=0, dtype=np.float32):
  rng = np.random.default_rng(seed)
  q = rng.normal(size=(b, t, n, 8)).astype(dtype)
  keys, values = rng.normal(size=(2, b, t, k, 8)).astype(dtype)
  _, position, segment = toy.packed()
  return q, keys, values, (position, segment), (position, segment)


def numpy_attention(q, k, v, query, key):
  """One query and one head at a time, in float64."""
  out = np.zeros(q.shape)
  group = q.shape[2] // k.shape[2]
  for b, t, n in np.ndindex(q.shape[:3]):
    same = (key[1][b] == query[1][b, t]) & (query[1][b, t] > 0)
    seen = np.flatnonzero(same & (key[0][b] <= query[0][b, t]))
    if len(seen):
      s = k[b, seen, n // group].astype(np.float64) @ q[b, t, n] / np.sqrt(8)
      p = np.exp(s - s.max())
      out[b, t, n] = p @ v[b, seen, n // group] / p.sum()
  return out


def attend(config, *args):
  return np.asarray(jax.jit(lambda *a: attention.attend(*a, config))(*args))


@pytest.mark.parametrize('config', PATHS, ids=PATH_NAMES)
def test_attention_is_the_formula(config):
  args = random_attention()
  expected = numpy_attention(*args)
  np.testing.assert_allclose(attend(config, *args), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('config', PATHS[:2], ids=PATH_NAMES[:2])
def test_gqa_with_a_kv_head_a_query_head_is_mha(config):
  q, k, v, query, key = random_attention()
  group = [np.repeat(x, 2, axis=2) for x in (k, v)]  # consecutive query heads share
  a, b = attend(config, q, k, v, query, key), attend(config, q, *group, query, key)
  np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('config', PATHS, ids=PATH_NAMES)
def test_attention_ignores_other_documents(params, config):
  tokens, position, segment = toy.packed()
  changed = np.where(segment == 1, (tokens + 17) % toy.C.vocab_size, tokens)
  a = run(params, config, tokens, position, segment)
  b = run(params, config, changed, position, segment)
  np.testing.assert_array_equal(a[segment > 1], b[segment > 1])
  assert np.abs(a[segment == 1] - b[segment == 1]).max() > 0.1


@pytest.mark.parametrize('config', PATHS[:3], ids=PATH_NAMES[:3])
def test_attention_ignores_other_documents_under_context_parallelism(
  params, config, mesh
):
  tokens, position, segment = (x[:, :24] for x in toy.packed())
  changed = np.where(segment == 1, (tokens + 17) % toy.C.vocab_size, tokens)
  cp = mesh(fsdp=2, context=4)
  a = on_mesh(cp, params, config, tokens, position, segment)
  b = on_mesh(cp, params, config, changed, position, segment)
  np.testing.assert_array_equal(a[segment > 1], b[segment > 1])
  assert np.abs(a[segment == 1] - b[segment == 1]).max() > 0.1
  plain = run(params, toy.C, tokens, position, segment)
  np.testing.assert_allclose(a, plain, rtol=1e-4, atol=1e-4)


def test_cache_ignores_other_documents(params):
  tokens, position, segment = toy.packed()
  changed = np.where(segment == 1, (tokens + 17) % toy.C.vocab_size, tokens)
  a, b = (
    with_cache(params, toy.C, t, position, segment, 26) for t in (tokens, changed)
  )
  np.testing.assert_array_equal(a[segment > 1], b[segment > 1])


@pytest.mark.parametrize('config', PATHS, ids=PATH_NAMES)
def test_future_tokens_do_not_change_the_past(params, config):
  tokens, position, _ = toy.packed()
  position = np.tile(np.arange(toy.T, dtype=np.int32), (2, 1))
  segment = np.ones_like(position)
  changed = tokens.copy()
  changed[:, 13:] = (changed[:, 13:] + 5) % toy.C.vocab_size
  a = run(params, config, tokens, position, segment)
  b = run(params, config, changed, position, segment)
  np.testing.assert_array_equal(a[:, :13], b[:, :13])


@pytest.mark.parametrize('config', PATHS[:3], ids=PATH_NAMES[:3])
def test_packed_row_is_each_document_alone(params, config):
  tokens, position, segment = toy.packed()
  together = run(params, config, tokens, position, segment)
  for row, i in ((0, 2), (1, 2)):
    mine = segment[row] == i
    one = tokens[row][mine][None]
    place = np.arange(one.shape[1], dtype=np.int32)[None]
    alone = run(params, config, one, place, np.ones_like(one))
    np.testing.assert_allclose(together[row][mine], alone[0], rtol=1e-4, atol=1e-5)


def test_positions_that_run_through_the_row_give_the_same_documents(params):
  """RoPE is relative, so a document may start at any position."""
  tokens, position, segment = toy.packed()
  running = np.tile(np.arange(toy.T, dtype=np.int32), (2, 1))
  a = run(params, toy.C, tokens, position, segment)
  b = run(params, toy.C, tokens, running, segment)
  np.testing.assert_allclose(a[segment > 0], b[segment > 0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('config', PATHS, ids=PATH_NAMES)
def test_padding_gives_zeros(config):
  args = random_attention()
  segment = args[3][1]
  out = attend(config, *args)
  assert np.all(out[segment == 0] == 0) and np.all(np.abs(out[segment > 0]).max(-1) > 0)


@pytest.mark.parametrize('config', PATHS[:2], ids=PATH_NAMES[:2])
def test_padding_gives_no_nan_in_gradients(params, config):
  tokens, position, segment = toy.packed()
  segment[1] = 0  # a row that is all padding

  def f(p):
    hidden, _ = llama.forward(p, tokens, position, segment, config)
    logits = llama.logits(p, hidden, config)
    return jnp.sum(jnp.where((segment > 0)[..., None], logits, 0) ** 2)

  grads = jax.jit(jax.grad(f))(params)
  assert all(bool(jnp.all(jnp.isfinite(g))) for g in jax.tree.leaves(grads))
  used = np.abs(np.asarray(grads.embed)).max(-1) > 0
  assert set(np.flatnonzero(used)) <= set(tokens[segment > 0])


def out_and_gradients(config, q, k, v, query, key):
  weight = np.random.default_rng(9).normal(size=q.shape).astype(np.float32)

  def f(q, k, v):
    out = attention.attend(q, k, v, query, key, config)
    return jnp.sum(out * weight), out

  (_, out), grads = jax.jit(jax.value_and_grad(f, (0, 1, 2), has_aux=True))(q, k, v)
  return out, *grads


@pytest.mark.parametrize('config', PATHS[1:], ids=PATH_NAMES[1:])
def test_blockwise_is_dense_with_its_gradients(config):
  args = random_attention()
  found, expected = (
    out_and_gradients(config, *args),
    out_and_gradients(toy.C, *args),
  )
  for a, b in zip(found, expected):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_blockwise_is_dense_for_keys_in_any_order():
  q, k, v, query, key = random_attention()
  order = np.random.default_rng(3).permutation(toy.T)
  config = dataclasses.replace(toy.C, attention='blockwise', block=4)
  shuffled = k[:, order], v[:, order], query, tuple(x[:, order] for x in key)
  a = attend(config, q, *shuffled)
  np.testing.assert_allclose(
    a, attend(toy.C, q, k, v, query, key), rtol=1e-4, atol=1e-5
  )


def test_blockwise_survives_large_scores():
  q, k, v, query, key = random_attention()
  config = dataclasses.replace(toy.C, attention='blockwise', block=4)
  a, b = (attend(c, q * 100, k * 10, v, query, key) for c in (config, toy.C))
  assert np.all(np.isfinite(a))
  np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_blockwise_skips_blocks_no_query_may_see():
  """NaN in a block reaches every query that computes with it, even masked (0 x NaN)."""
  t, block = 32, 8
  rng = np.random.default_rng(0)
  q = rng.normal(size=(1, t, 4, 8)).astype(np.float32)
  k, v = rng.normal(size=(2, 1, t, 2, 8)).astype(np.float32)
  position = np.arange(t, dtype=np.int32)[None]
  segment = np.repeat(np.array([[1, 1, 2, 2]], np.int32), block, axis=1)
  side = (position, segment)
  config = dataclasses.replace(toy.C, attention='blockwise', block=block)
  clean = attend(config, q, k, v, side, side)
  for planted in range(4):
    bad = v.copy()
    bad[:, planted * block : (planted + 1) * block] = np.nan
    out = attend(config, q, k, bad, side, side)
    for i in range(4):  # query blocks: reached iff same document and not before
      reached = i // 2 == planted // 2 and i >= planted
      rows = slice(i * block, (i + 1) * block)
      assert np.isnan(out[:, rows]).any() == reached
      if not reached:
        np.testing.assert_array_equal(out[:, rows], clean[:, rows])


def test_blockwise_holds_no_array_of_queries_by_keys():
  t = 256
  config = dataclasses.replace(toy.C, attention='blockwise', block=16)
  shapes = [(1, t, 4, 8), (1, t, 2, 8), (1, t, 2, 8)]
  arrays = [jnp.zeros(s) for s in shapes]
  side = (jnp.zeros((1, t), jnp.int32),) * 2

  def memory(c):
    f = lambda *a: jnp.sum(attention.attend(*a, side, side, c))
    compiled = jax.jit(jax.grad(f, (0, 1, 2))).lower(*arrays).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  assert memory(config) < 4 * t * t  # one head's scores
  assert memory(toy.C) > 4 * 4 * t * t  # what all heads' scores take


def with_cache(params, config, tokens, position, segment, size, prefill=0, dtype=None):
  """Logits of tokens given one at a time, after a prefill of the first columns."""

  @jax.jit
  def step(cache, tokens, position, segment):
    hidden, cache = llama.forward(params, tokens, position, segment, config, cache)
    return llama.logits(params, hidden, config), cache

  cache, found = kv.create(config, tokens.shape[0], size, dtype), []
  parts = [slice(0, prefill)] * bool(prefill)
  parts += [slice(i, i + 1) for i in range(prefill, tokens.shape[1])]
  for part in parts:
    logits, cache = step(cache, tokens[:, part], position[:, part], segment[:, part])
    found.append(logits)
  return np.concatenate(found, 1)


SCALED = dataclasses.replace(toy.C, rope_scaling=RopeScaling(8.0, 1.0, 4.0, 32))
WINDOW = dataclasses.replace(toy.C, window=5)


@pytest.mark.parametrize('prefill', [0, 7])
@pytest.mark.parametrize(
  'config', [toy.C, SCALED, WINDOW], ids=['plain', 'scaled', 'window']
)
def test_cache_is_forward(params, config, prefill):
  tokens, _, _ = toy.packed()
  position = np.tile(np.arange(toy.T, dtype=np.int32), (2, 1))
  segment = np.ones_like(position)
  full = run(params, config, tokens, position, segment)
  found = with_cache(params, config, tokens, position, segment, 40, prefill)
  np.testing.assert_allclose(found, full, rtol=1e-4, atol=1e-4)


def test_cache_is_forward_with_blockwise_prefill(params):
  config = dataclasses.replace(toy.C, attention='blockwise', block=4)
  tokens, _, _ = toy.packed()
  position = np.tile(np.arange(toy.T, dtype=np.int32), (2, 1))
  segment = np.ones_like(position)
  full = run(params, toy.C, tokens, position, segment)
  found = with_cache(params, config, tokens, position, segment, 33, 20)
  np.testing.assert_allclose(found, full, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('block', BLOCKS)
def test_window_is_the_same_on_every_path_and_mesh(params, mesh, block):
  arrays = toy.packed()
  expected = run(params, WINDOW, *arrays)
  real = arrays[2] > 0
  assert np.abs(expected - run(params, toy.C, *arrays))[real].max() > 0.01
  wide = dataclasses.replace(toy.C, window=toy.T)
  np.testing.assert_array_equal(run(params, wide, *arrays), run(params, toy.C, *arrays))
  config = dataclasses.replace(WINDOW, attention='blockwise', block=block)
  np.testing.assert_allclose(run(params, config, *arrays), expected, atol=1e-4)
  rows = [np.pad(x, ((0, 0), (0, 32 - toy.T))) for x in arrays]
  found = on_mesh(mesh(context=4, tensor=2), params, config, *rows)[:, : toy.T]
  np.testing.assert_allclose(found[real], expected[real], atol=1e-4)


def test_rows_of_different_lengths_decode_as_if_alone(params):
  """Right padding in the prefill is overwritten, and never seen."""
  rng = np.random.default_rng(4)
  lengths, more = (3, 9, 6), 5
  tokens = rng.integers(0, toy.C.vocab_size, (3, 9 + more)).astype(np.int32)
  place = np.arange(9, dtype=np.int32)
  segment = (place < np.array(lengths)[:, None]).astype(np.int32)
  position = np.tile(place, (3, 1))
  cache = kv.create(toy.C, 3, 9 + more)
  step = jax.jit(lambda c, *a: llama.forward(params, *a, toy.C, c))
  prompt = np.where(segment > 0, tokens[:, :9], 63)
  hidden, cache = step(cache, prompt, position, segment)
  found = [np.asarray(hidden)[np.arange(3), np.array(lengths) - 1]]
  ones = np.ones((3, 1), np.int32)
  for i in range(more):
    at = np.array(lengths, np.int32)[:, None] + i
    token = np.take_along_axis(tokens, at, 1)
    hidden, cache = step(cache, token, at, ones)
    found.append(np.asarray(hidden)[:, 0])
  assert cache.length.tolist() == [n + more for n in lengths]
  for row, n in enumerate(lengths):
    alone = tokens[row : row + 1, : n + more]
    at = np.arange(n + more, dtype=np.int32)[None]
    hidden, _ = hidden_and_logits(params, toy.C, alone, at, np.ones_like(at))
    found_row = np.stack([f[row] for f in found])
    np.testing.assert_allclose(found_row, hidden[0, n - 1 :], rtol=1e-4, atol=1e-4)


def test_cache_drops_what_does_not_fit(params):
  tokens, _, _ = toy.packed()
  position = np.tile(np.arange(toy.T, dtype=np.int32), (2, 1))
  found = with_cache(params, toy.C, tokens, position, np.ones_like(position), 10)
  full = run(params, toy.C, tokens, position, np.ones_like(position))
  np.testing.assert_allclose(found[:, :10], full[:, :10], rtol=1e-4, atol=1e-4)
  assert np.all(np.isfinite(found))


def test_repeated_rows_continue_alike(params):
  tokens, position, segment = toy.packed()
  cache = kv.create(toy.C, 2, 30)
  arrays = [x[:, :5] for x in (tokens, position, segment)]
  _, cache = llama.forward(params, *arrays, toy.C, cache)
  many = kv.repeat(cache, 3)
  assert many.k.shape[1] == 6 and many.length.tolist() == [5] * 6
  np.testing.assert_array_equal(many.k[:, 0], many.k[:, 2])
  np.testing.assert_array_equal(many.k[:, 3], cache.k[:, 1])


@pytest.mark.parametrize(
  'how',
  [dict(remat='full'), dict(remat='attention,gate'), dict(unroll=9)],
  ids=['full', 'list', 'unrolled'],
)
def test_how_a_layer_is_run_does_not_change_gradients(params, how):
  tokens, position, segment = toy.packed()
  config = dataclasses.replace(toy.C, **how)

  def f(p, c):
    hidden, _ = llama.forward(p, tokens, position, segment, c)
    return jnp.sum(llama.logits(p, hidden, c) ** 2)

  a, b = (jax.jit(jax.grad(f), static_argnums=1)(params, c) for c in (config, toy.C))
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
    np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-3 * np.abs(y).max())


def test_tied_model_uses_the_embedding_as_head():
  config = dataclasses.replace(toy.C, tie_embeddings=True)
  params = jax.jit(llama.init, static_argnums=1)(jax.random.key(1), config)
  assert params.head is None
  tokens, position, segment = toy.packed()
  hidden, found = hidden_and_logits(params, config, tokens, position, segment)
  expected = np.asarray(hidden) @ np.asarray(params.embed).T
  np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
  head = params.replace(head=params.embed.T)
  untied = run(head, toy.C, tokens, position, segment)
  np.testing.assert_allclose(found, untied, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('method', ['dense', 'blockwise'])
def test_bfloat16_is_near_float32_with_float32_logits(params, method):
  config = dataclasses.replace(toy.C, dtype='bfloat16', attention=method, block=8)
  tokens, position, segment = toy.packed()
  full = run(params, toy.C, tokens, position, segment)[segment > 0]
  hidden, half = hidden_and_logits(params, config, tokens, position, segment)
  assert hidden.dtype == jnp.bfloat16 and half.dtype == jnp.float32
  half = np.asarray(half)[segment > 0]
  assert np.abs(half - full).max() < 0.06 * np.abs(full).max()
  assert np.corrcoef(half.ravel(), full.ravel())[0, 1] > 0.999


def test_apply_is_forward_of_plain_rows(params):
  tokens, _, _ = toy.packed()
  position = np.tile(np.arange(toy.T, dtype=np.int32), (2, 1))
  plain = run(params, toy.C, tokens, position, np.ones_like(tokens))
  np.testing.assert_allclose(
    llama.apply(params, tokens, toy.C), plain, rtol=1e-5, atol=1e-5
  )


def test_initial_values_depend_on_the_name_only():
  """A leaf keeps its values when others come or go (a LoRA, a reward head)."""
  tied = dataclasses.replace(toy.C, tie_embeddings=True)
  init = jax.jit(llama.init, static_argnums=1)
  a, b = (init(jax.random.key(0), c) for c in (toy.C, tied))
  np.testing.assert_array_equal(a.layers.wq, b.layers.wq)
  assert not np.array_equal(a.layers.w_gate, a.layers.w_up)
  assert np.std(a.layers.wq) == pytest.approx(32**-0.5, rel=0.1)
