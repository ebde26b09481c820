"""Meta, GGUF and HF files of our own making against a forward pass written here.

The forward pass knows the published formats only: channels 2i and 2i + 1 are a pair,
w1 is the gate of SwiGLU and w3 is what it gates.
"""

import gguf
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_files as toy

from llama3_jax.base.errors import UserError
from llama3_jax.config import RopeScaling
from llama3_jax.model import convert
from llama3_jax.model import files
from llama3_jax.model import llama
from llama3_jax.model import meta
from llama3_jax.model import pth
from llama3_jax.train import average

TOKENS = np.random.default_rng(5).integers(0, toy.V, 33)


def norm(x, w):
  return x / np.sqrt(np.mean(x**2, -1, keepdims=True) + toy.EPS) * w


def turn(x, theta):
  """RoPE of [T, heads, H]: the pair of channels 2i, 2i + 1 as one complex number."""
  z = x[..., 0::2] + 1j * x[..., 1::2]
  angle = np.arange(len(x))[:, None] * theta ** (-np.arange(0, toy.H, 2) / toy.H)
  z = z * np.exp(1j * angle)[:, None]
  return np.stack([z.real, z.imag], -1).reshape(x.shape)


def forward(w, theta=toy.THETA):
  """Logits, float64 [T, V]."""
  w = {name.removesuffix('.weight'): x.astype(np.float64) for name, x in w.items()}
  x = w['tok_embeddings'][TOKENS]
  t = len(x)
  for i in range(toy.L):
    p = lambda name, i=i: w[f'layers.{i}.{name}']
    y = norm(x, p('attention_norm'))
    q = turn((y @ p('attention.wq').T).reshape(t, toy.N, toy.H), theta)
    k = turn((y @ p('attention.wk').T).reshape(t, toy.K, toy.H), theta)
    v = (y @ p('attention.wv').T).reshape(t, toy.K, toy.H)
    k, v = (np.repeat(a, toy.N // toy.K, 1) for a in (k, v))
    scores = np.einsum('tnh,snh->nts', q, k) / np.sqrt(toy.H)
    scores = np.where(np.tri(t, dtype=bool), scores, -np.inf)
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    scores /= scores.sum(-1, keepdims=True)
    y = np.einsum('nts,snh->tnh', scores, v).reshape(t, toy.N * toy.H)
    x = x + y @ p('attention.wo').T
    y = norm(x, p('ffn_norm'))
    gate = y @ p('feed_forward.w1').T
    y = gate / (1 + np.exp(-gate)) * (y @ p('feed_forward.w3').T)
    x = x + y @ p('feed_forward.w2').T
  return norm(x, w['norm']) @ w['output'].T


def logits(weights):
  params = convert.load(weights)
  tokens = jnp.asarray(TOKENS, jnp.int32)[None]
  return np.asarray(llama.apply(params, tokens, weights.config))[0]


@pytest.mark.parametrize('form', toy.WRITERS)
def test_logits_are_those_of_the_published_formats(tmp_path, form):
  w = toy.tensors()
  path = toy.WRITERS[form](tmp_path / f'model.{form}', w)
  weights = convert.open_checkpoint(str(path), form)
  c = weights.config
  assert (c.n_layers, c.d_model, c.n_heads, c.n_kv_heads) == (
    toy.L,
    toy.D,
    toy.N,
    toy.K,
  )
  assert (c.d_head, c.d_ff, c.vocab_size, c.rope_scaling) == (
    toy.H,
    toy.F,
    toy.V,
    None,
  )
  assert (c.rope_theta, c.norm_eps, c.tie_embeddings) == (
    toy.THETA,
    toy.EPS,
    False,
  )
  np.testing.assert_allclose(logits(weights), forward(w), rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize('form', toy.WRITERS)
def test_every_leaf_is_the_tensor_of_its_name(tmp_path, form):
  w = toy.tensors()
  path = toy.WRITERS[form](tmp_path / f'model.{form}', w)
  params = convert.load(convert.open_checkpoint(str(path), form))
  order = [0, 2, 4, 1, 3, 5]
  wanted = {
    'wq': (
      'attention.wq',
      lambda x: x.reshape(toy.N, toy.H, toy.D)[:, order].transpose(2, 0, 1),
    ),
    'wk': (
      'attention.wk',
      lambda x: x.reshape(toy.K, toy.H, toy.D)[:, order].transpose(2, 0, 1),
    ),
    'wv': (
      'attention.wv',
      lambda x: x.reshape(toy.K, toy.H, toy.D).transpose(2, 0, 1),
    ),
    'wo': (
      'attention.wo',
      lambda x: x.T.reshape(toy.N, toy.H, toy.D),
    ),
    'w_gate': ('feed_forward.w1', lambda x: x.T),
    'w_up': ('feed_forward.w3', lambda x: x.T),
    'w_down': ('feed_forward.w2', lambda x: x.T),
    'attn_norm': ('attention_norm', lambda x: x),
    'ff_norm': ('ffn_norm', lambda x: x),
  }
  for leaf, (name, change) in wanted.items():
    for i in range(toy.L):
      x = change(w[f'layers.{i}.{name}.weight'])
      np.testing.assert_array_equal(getattr(params.layers, leaf)[i], x, leaf)
  np.testing.assert_array_equal(params.embed, w['tok_embeddings.weight'])
  np.testing.assert_array_equal(params.norm, w['norm.weight'])
  np.testing.assert_array_equal(params.head, w['output.weight'].T)


def test_the_forward_pass_sees_what_it_should():
  w, good = toy.tensors(), forward(toy.tensors())
  swapped = dict(w)
  for i in range(toy.L):
    a, b = (f'layers.{i}.feed_forward.w{n}.weight' for n in (1, 3))
    swapped[a], swapped[b] = w[b], w[a]
  assert np.abs(forward(swapped) - good).max() > 0.1
  assert np.abs(forward(w, 500_000.0) - good).max() > 0.1


def test_meta_without_a_theta_means_ten_thousand(tmp_path):
  path = toy.write_meta(tmp_path / 'm', toy.tensors(), rope_theta=None)
  weights = convert.open_checkpoint(str(path))
  assert weights.config.rope_theta == 10_000
  wanted = forward(toy.tensors(), 10_000.0)
  np.testing.assert_allclose(logits(weights), wanted, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize(
  'name, factor', [('1b', 32.0), ('3b', 32.0), ('8b', 8.0), ('70b', 8.0)]
)
def test_released_params_json_says_the_factor_by_its_sizes(name, factor):
  c = llama.SIZES[name]
  values = dict(dim=c.d_model, n_layers=c.n_layers, n_heads=c.n_heads)
  values |= dict(n_kv_heads=c.n_kv_heads, norm_eps=1e-5, rope_theta=500_000.0)
  read = lambda **more: meta.read_params_json(
    values | more, c.d_ff, 128_256, c.tie_embeddings
  )
  assert read(use_scaled_rope=True).rope_scaling == RopeScaling(factor)
  assert read(use_scaled_rope=False).rope_scaling is None
  assert read().rope_scaling is None


@pytest.mark.parametrize('vocab', [-1, toy.V], ids=['unsaid', 'said'])
def test_llama_2_files_split_the_embedding_by_width(tmp_path, vocab):
  w = toy.tensors()
  toy.write_meta(tmp_path / 'm', w, vocab_size=vocab)
  for i in range(2):
    part = {}
    for name, x in w.items():
      dim = 1 if name.endswith(('wo.weight', 'w2.weight')) else 0
      dim = 1 if name == 'tok_embeddings.weight' else dim
      x = x if 'norm' in name else np.split(x, 2, dim)[i]
      part[name] = files.Tensor(x.shape, x.dtype, '', lambda x=x: x)
    pth.write_pth(str(tmp_path / f'm/consolidated.0{i}.pth'), part)
  weights = convert.open_checkpoint(str(tmp_path / 'm'))
  np.testing.assert_allclose(logits(weights), forward(w), rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize(
  'key, extra',
  [
    (
      'llama.rope.scaling.type',
      lambda w: w.add_rope_scaling_type(gguf.RopeScalingType.LINEAR),
    ),
    (
      'llama.rope.scaling.type',
      lambda w: w.add_rope_scaling_type(gguf.RopeScalingType.YARN),
    ),
    ('llama.rope.scaling.factor', lambda w: w.add_rope_scaling_factor(4.0)),
    ('llama.rope.scale_linear', lambda w: w.add_float32('llama.rope.scale_linear', 2)),
    (
      'llama.rope.dimension_count',
      lambda w: w.add_rope_dimension_count(toy.H - 2),
    ),
  ],
)
def test_gguf_with_another_rope_is_refused_by_name(tmp_path, key, extra):
  path = toy.write_gguf(tmp_path / 'm.gguf', toy.tensors(), extra)
  with pytest.raises(UserError, match=key):
    convert.open_checkpoint(str(path))


def test_gguf_that_says_its_plain_rope_is_read(tmp_path):
  def extra(writer):
    writer.add_rope_scaling_type(gguf.RopeScalingType.NONE)
    writer.add_rope_dimension_count(toy.H)

  path = toy.write_gguf(tmp_path / 'm.gguf', toy.tensors(), extra)
  found = logits(convert.open_checkpoint(str(path)))
  np.testing.assert_allclose(found, forward(toy.tensors()), rtol=2e-4, atol=2e-4)


def test_tied_in_name_with_another_head_is_read_untied(tmp_path, caplog):
  w = toy.tensors()
  path = toy.write_hf(tmp_path / 'two', w, tie_word_embeddings=True)
  with caplog.at_level('WARNING'):
    weights = convert.open_checkpoint(str(path))
  assert not weights.config.tie_embeddings and 'read untied' in caplog.text
  np.testing.assert_allclose(logits(weights), forward(w), rtol=2e-4, atol=2e-4)
  caplog.clear()
  path = toy.write_hf(
    tmp_path / 'one', toy.tensors(tied=True), tie_word_embeddings=True
  )
  weights = convert.open_checkpoint(str(path))
  assert weights.config.tie_embeddings and not caplog.text
  wanted = forward(toy.tensors(tied=True))
  np.testing.assert_allclose(logits(weights), wanted, rtol=2e-4, atol=2e-4)


def test_mean_of_bfloat16_models_is_summed_in_float32():
  trees = [{'w': jnp.asarray([x, 256.0], jnp.bfloat16)} for x in (256.0, 1.0, 1.0)]
  found = average.mean(trees)['w']
  assert found.dtype == jnp.float32
  np.testing.assert_allclose(found, [86.0, 256.0], rtol=1e-6)
  by_hand = jax.tree.map(lambda *x: sum(x) / 3, *trees)['w']
  assert float(by_hand[0]) != 86.0  # in bfloat16 256 + 1 is 256
