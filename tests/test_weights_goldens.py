"""Meta, GGUF and HF files of our own making against a forward pass written here.

The forward pass knows the published formats only: channels 2i and 2i + 1 are a pair,
w1 is the gate of SwiGLU and w3 is what it gates.
"""

import json

import gguf
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from llama3_jax.base.errors import UserError
from llama3_jax.config import RopeScaling
from llama3_jax.model import convert
from llama3_jax.model import files
from llama3_jax.model import llama
from llama3_jax.model import meta
from llama3_jax.model import pth
from llama3_jax.train import average

L, D, N, K, H, F, V, THETA, EPS = 2, 24, 4, 2, 6, 40, 50, 321.0, 3e-5
TOKENS = np.random.default_rng(5).integers(0, V, 33)


def tensors(tied=False):
  """Meta's names; [outputs, inputs]."""
  rng = np.random.default_rng(3)
  make = lambda *shape: rng.normal(0, 0.4, shape).astype(np.float32)
  found = {'tok_embeddings.weight': make(V, D), 'norm.weight': 1 + make(D)}
  for i in range(L):
    layer = dict(
      attention_norm=1 + make(D),
      ffn_norm=1 + make(D),
      **{
        'attention.wq': make(N * H, D),
        'attention.wk': make(K * H, D),
        'attention.wv': make(K * H, D),
        'attention.wo': make(D, N * H),
        'feed_forward.w1': make(F, D),
        'feed_forward.w2': make(D, F),
        'feed_forward.w3': make(F, D),
      },
    )
    found |= {f'layers.{i}.{name}.weight': x for name, x in layer.items()}
  found['output.weight'] = found['tok_embeddings.weight'] if tied else make(V, D)
  return found


def norm(x, w):
  return x / np.sqrt(np.mean(x**2, -1, keepdims=True) + EPS) * w


def turn(x, theta):
  """RoPE of [T, heads, H]: the pair of channels 2i, 2i + 1 as one complex number."""
  z = x[..., 0::2] + 1j * x[..., 1::2]
  angle = np.arange(len(x))[:, None] * theta ** (-np.arange(0, H, 2) / H)
  z = z * np.exp(1j * angle)[:, None]
  return np.stack([z.real, z.imag], -1).reshape(x.shape)


def forward(w, theta=THETA):
  """Logits, float64 [T, V]."""
  w = {name.removesuffix('.weight'): x.astype(np.float64) for name, x in w.items()}
  x = w['tok_embeddings'][TOKENS]
  t = len(x)
  for i in range(L):
    p = lambda name, i=i: w[f'layers.{i}.{name}']
    y = norm(x, p('attention_norm'))
    q = turn((y @ p('attention.wq').T).reshape(t, N, H), theta)
    k = turn((y @ p('attention.wk').T).reshape(t, K, H), theta)
    v = (y @ p('attention.wv').T).reshape(t, K, H)
    k, v = (np.repeat(a, N // K, 1) for a in (k, v))
    scores = np.einsum('tnh,snh->nts', q, k) / np.sqrt(H)
    scores = np.where(np.tri(t, dtype=bool), scores, -np.inf)
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    scores /= scores.sum(-1, keepdims=True)
    y = np.einsum('nts,snh->tnh', scores, v).reshape(t, N * H)
    x = x + y @ p('attention.wo').T
    y = norm(x, p('ffn_norm'))
    gate = y @ p('feed_forward.w1').T
    y = gate / (1 + np.exp(-gate)) * (y @ p('feed_forward.w3').T)
    x = x + y @ p('feed_forward.w2').T
  return norm(x, w['norm']) @ w['output'].T


PARAMS = dict(dim=D, n_layers=L, n_heads=N, n_kv_heads=K, norm_eps=EPS, vocab_size=V)


def write_meta(folder, w, **changes):
  folder.mkdir()
  lazy = {n: files.Tensor(x.shape, x.dtype, '', lambda x=x: x) for n, x in w.items()}
  pth.write_pth(str(folder / 'consolidated.00.pth'), lazy)
  values = PARAMS | dict(rope_theta=THETA) | changes
  values = {k: v for k, v in values.items() if v is not None}
  (folder / 'params.json').write_text(json.dumps(values))
  return folder


def write_npz(folder, w):
  write_meta(folder, w)
  np.savez(folder / 'w.npz', **w)
  return folder / 'w.npz'


GGUF = {
  'tok_embeddings': 'token_embd',
  'norm': 'output_norm',
  'output': 'output',
  'attention_norm': 'attn_norm',
  'ffn_norm': 'ffn_norm',
  'attention.wq': 'attn_q',
  'attention.wk': 'attn_k',
  'attention.wv': 'attn_v',
  'attention.wo': 'attn_output',
  'feed_forward.w1': 'ffn_gate',
  'feed_forward.w2': 'ffn_down',
  'feed_forward.w3': 'ffn_up',
}
HF = {
  'tok_embeddings': 'model.embed_tokens',
  'norm': 'model.norm',
  'output': 'lm_head',
  'attention_norm': 'input_layernorm',
  'ffn_norm': 'post_attention_layernorm',
  'attention.wq': 'self_attn.q_proj',
  'attention.wk': 'self_attn.k_proj',
  'attention.wv': 'self_attn.v_proj',
  'attention.wo': 'self_attn.o_proj',
  'feed_forward.w1': 'mlp.gate_proj',
  'feed_forward.w2': 'mlp.down_proj',
  'feed_forward.w3': 'mlp.up_proj',
}


def renamed(w, names, prefix):
  """The tensors under another format's names."""
  found = {}
  for name, x in w.items():
    parts = name.removesuffix('.weight').split('.', 2)
    if parts[0] == 'layers':
      found[f'{prefix}.{parts[1]}.{names[parts[2]]}.weight'] = x
    else:
      found[f'{names[parts[0]]}.weight'] = x
  return found


def write_gguf(path, w, extra=lambda writer: None):
  writer = gguf.GGUFWriter(path, 'llama')
  writer.add_block_count(L)
  writer.add_embedding_length(D)
  writer.add_feed_forward_length(F)
  writer.add_head_count(N)
  writer.add_head_count_kv(K)
  writer.add_rope_freq_base(THETA)
  writer.add_layer_norm_rms_eps(EPS)
  extra(writer)
  for name, x in renamed(w, GGUF, 'blk').items():
    writer.add_tensor(name, x)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return path


def write_hf(folder, w, **changes):
  """HF pairs channel i with i + H / 2: rows 0 2 4 1 3 5 of every head of Meta's."""
  folder.mkdir()
  w = dict(w)
  for name in w:
    if name.endswith(('wq.weight', 'wk.weight')):
      heads = w[name].reshape(-1, H, D)
      w[name] = np.concatenate([heads[:, 0::2], heads[:, 1::2]], 1).reshape(-1, D)
  w = {n: np.array(x) for n, x in renamed(w, HF, 'model.layers').items()}
  safetensors.numpy.save_file(w, folder / 'model.safetensors')
  values = dict(
    model_type='llama',
    hidden_size=D,
    num_hidden_layers=L,
    num_attention_heads=N,
    num_key_value_heads=K,
    intermediate_size=F,
    vocab_size=V,
    rope_theta=THETA,
    rms_norm_eps=EPS,
  )
  (folder / 'config.json').write_text(json.dumps(values | changes))
  return folder


WRITERS = dict(meta=write_meta, npz=write_npz, gguf=write_gguf, hf=write_hf)


def logits(weights):
  params = convert.load(weights)
  tokens = jnp.asarray(TOKENS, jnp.int32)[None]
  return np.asarray(llama.apply(params, tokens, weights.config))[0]


@pytest.mark.parametrize('form', WRITERS)
def test_logits_are_those_of_the_published_formats(tmp_path, form):
  w = tensors()
  path = WRITERS[form](tmp_path / f'model.{form}', w)
  weights = convert.open_checkpoint(str(path), form)
  c = weights.config
  assert (c.n_layers, c.d_model, c.n_heads, c.n_kv_heads) == (L, D, N, K)
  assert (c.d_head, c.d_ff, c.vocab_size, c.rope_scaling) == (H, F, V, None)
  assert (c.rope_theta, c.norm_eps, c.tie_embeddings) == (THETA, EPS, False)
  np.testing.assert_allclose(logits(weights), forward(w), rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize('form', WRITERS)
def test_every_leaf_is_the_tensor_of_its_name(tmp_path, form):
  w = tensors()
  path = WRITERS[form](tmp_path / f'model.{form}', w)
  params = convert.load(convert.open_checkpoint(str(path), form))
  order = [0, 2, 4, 1, 3, 5]
  wanted = {
    'wq': ('attention.wq', lambda x: x.reshape(N, H, D)[:, order].transpose(2, 0, 1)),
    'wk': ('attention.wk', lambda x: x.reshape(K, H, D)[:, order].transpose(2, 0, 1)),
    'wv': ('attention.wv', lambda x: x.reshape(K, H, D).transpose(2, 0, 1)),
    'wo': ('attention.wo', lambda x: x.T.reshape(N, H, D)),
    'w_gate': ('feed_forward.w1', lambda x: x.T),
    'w_up': ('feed_forward.w3', lambda x: x.T),
    'w_down': ('feed_forward.w2', lambda x: x.T),
    'attn_norm': ('attention_norm', lambda x: x),
    'ff_norm': ('ffn_norm', lambda x: x),
  }
  for leaf, (name, change) in wanted.items():
    for i in range(L):
      x = change(w[f'layers.{i}.{name}.weight'])
      np.testing.assert_array_equal(getattr(params.layers, leaf)[i], x, leaf)
  np.testing.assert_array_equal(params.embed, w['tok_embeddings.weight'])
  np.testing.assert_array_equal(params.norm, w['norm.weight'])
  np.testing.assert_array_equal(params.head, w['output.weight'].T)


def test_the_forward_pass_sees_what_it_should():
  w, good = tensors(), forward(tensors())
  swapped = dict(w)
  for i in range(L):
    a, b = (f'layers.{i}.feed_forward.w{n}.weight' for n in (1, 3))
    swapped[a], swapped[b] = w[b], w[a]
  assert np.abs(forward(swapped) - good).max() > 0.1
  assert np.abs(forward(w, 500_000.0) - good).max() > 0.1


def test_meta_without_a_theta_means_ten_thousand(tmp_path):
  path = write_meta(tmp_path / 'm', tensors(), rope_theta=None)
  weights = convert.open_checkpoint(str(path))
  assert weights.config.rope_theta == 10_000
  wanted = forward(tensors(), 10_000.0)
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


@pytest.mark.parametrize('vocab', [-1, V], ids=['unsaid', 'said'])
def test_llama_2_files_split_the_embedding_by_width(tmp_path, vocab):
  w = tensors()
  write_meta(tmp_path / 'm', w, vocab_size=vocab)
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
    ('llama.rope.dimension_count', lambda w: w.add_rope_dimension_count(H - 2)),
  ],
)
def test_gguf_with_another_rope_is_refused_by_name(tmp_path, key, extra):
  path = write_gguf(tmp_path / 'm.gguf', tensors(), extra)
  with pytest.raises(UserError, match=key):
    convert.open_checkpoint(str(path))


def test_gguf_that_says_its_plain_rope_is_read(tmp_path):
  def extra(writer):
    writer.add_rope_scaling_type(gguf.RopeScalingType.NONE)
    writer.add_rope_dimension_count(H)

  path = write_gguf(tmp_path / 'm.gguf', tensors(), extra)
  found = logits(convert.open_checkpoint(str(path)))
  np.testing.assert_allclose(found, forward(tensors()), rtol=2e-4, atol=2e-4)


def test_tied_in_name_with_another_head_is_read_untied(tmp_path, caplog):
  w = tensors()
  path = write_hf(tmp_path / 'two', w, tie_word_embeddings=True)
  with caplog.at_level('WARNING'):
    weights = convert.open_checkpoint(str(path))
  assert not weights.config.tie_embeddings and 'read untied' in caplog.text
  np.testing.assert_allclose(logits(weights), forward(w), rtol=2e-4, atol=2e-4)
  caplog.clear()
  path = write_hf(tmp_path / 'one', tensors(tied=True), tie_word_embeddings=True)
  weights = convert.open_checkpoint(str(path))
  assert weights.config.tie_embeddings and not caplog.text
  wanted = forward(tensors(tied=True))
  np.testing.assert_allclose(logits(weights), wanted, rtol=2e-4, atol=2e-4)


def test_mean_of_bfloat16_models_is_summed_in_float32():
  trees = [{'w': jnp.asarray([x, 256.0], jnp.bfloat16)} for x in (256.0, 1.0, 1.0)]
  found = average.mean(trees)['w']
  assert found.dtype == jnp.float32
  np.testing.assert_allclose(found, [86.0, 256.0], rtol=1e-6)
  by_hand = jax.tree.map(lambda *x: sum(x) / 3, *trees)['w']
  assert float(by_hand[0]) != 86.0  # in bfloat16 256 + 1 is 256
