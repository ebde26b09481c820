"""The Llama 3 decoder (section 3.2): parameters, sizes, forward, logits.

Norms, RoPE, softmax and logits are float32; the rest is `config.dtype`.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
from flax import struct
from jax.ad_checkpoint import checkpoint_name

from llama3_jax import axes
from llama3_jax import parameters
from llama3_jax.config import ModelConfig
from llama3_jax.config import RopeScaling
from llama3_jax.model import attention
from llama3_jax.model import cache as kv
from llama3_jax.model import embedding
from llama3_jax.model import linear
from llama3_jax.model import remat
from llama3_jax.model import rope

B8 = ModelConfig(32, 4096, 32, 8, 128, 14336, rope_scaling=RopeScaling())
TINY = ModelConfig(4, 128, 4, 2, 32, 384, vocab_size=2048, dtype='float32', block=64)
SIZES = {
  '8b': B8,  # 3.1; the April 2024 models have no RoPE scaling
  '70b': dataclasses.replace(B8, n_layers=80, d_model=8192, n_heads=64, d_ff=28672),
  '405b': dataclasses.replace(B8, n_layers=126, d_model=16384, n_heads=128, d_ff=53248),
  '8b_april': dataclasses.replace(B8, rope_scaling=None),
  '1b': ModelConfig(
    16, 2048, 32, 8, 64, 8192, rope_scaling=RopeScaling(32.0), tie_embeddings=True
  ),
  '3b': ModelConfig(
    28, 3072, 24, 8, 128, 8192, rope_scaling=RopeScaling(32.0), tie_embeddings=True
  ),
  # The shapes of SmolLM2.
  '135m': ModelConfig(
    30, 576, 9, 3, 64, 1536, 49_152, 1e5, norm_eps=1e-5, tie_embeddings=True
  ),
  '360m': ModelConfig(
    32, 960, 15, 5, 64, 2560, 49_152, 1e5, norm_eps=1e-5, tie_embeddings=True
  ),
  'tiny': TINY,
  'small': ModelConfig(8, 512, 8, 2, 64, 1536, vocab_size=32_000, dtype='float32'),
}


NORMS = ('attn_norm', 'ff_norm')


@struct.dataclass
class Layer:
  attn_norm: jax.Array = parameters.weight('D', 'ones')
  wq: jax.Array = parameters.weight('DNH', 'in')
  wk: jax.Array = parameters.weight('DKH', 'in')
  wv: jax.Array = parameters.weight('DKH', 'in')
  wo: jax.Array = parameters.weight('NHD', 'out')
  ff_norm: jax.Array = parameters.weight('D', 'ones')
  w_gate: jax.Array = parameters.weight('DF', 'in')
  w_up: jax.Array = parameters.weight('DF', 'in')
  w_down: jax.Array = parameters.weight('FD', 'out')


@struct.dataclass
class Params:
  embed: jax.Array = parameters.weight('VD', 1.0)
  layers: Layer = parameters.stack(Layer, 'L')
  norm: jax.Array = parameters.weight('D', 'ones')
  head: jax.Array | None = parameters.weight('DV', 'in')  # None: tied to the embedding


def _build(config, leaf):
  def tied(name, dims, std):
    if config.tie_embeddings and name == 'head':
      return None
    if config.tie_embeddings and name == 'embed':
      std = 'in'  # as a head: with its own spread the first loss of the 1B is 1,800
    return leaf(name, dims, std)

  return parameters.build(Params, tied)


def init(key: jax.Array, config: ModelConfig) -> Params:
  """Random float32 parameters, laid out over the ambient mesh; call under jit."""
  return _build(config, lambda *a: parameters.init_leaf(key, *a, config.sizes))


def dims(config: ModelConfig) -> Params:
  """Params whose leaves are the letters of each parameter."""
  return _build(config, lambda name, letters, std: letters)


def abstract(
  config: ModelConfig,
  dtype: jax.typing.DTypeLike = jnp.float32,
  mesh: jax.sharding.Mesh | jax.sharding.AbstractMesh | None = None,
) -> Params:
  """Params of jax.ShapeDtypeStruct; with `mesh` each carries its NamedSharding."""

  def leaf(name, letters, std):
    sharding = mesh and jax.sharding.NamedSharding(mesh, axes.spec(letters))
    shape = parameters.shape(letters, config.sizes)
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding or None)

  return _build(config, leaf)


def count(config: ModelConfig) -> int:
  """Number of parameters, without allocating any."""
  return sum(math.prod(x.shape) for x in jax.tree.leaves(abstract(config)))


def rms_norm(x: jax.Array, scale: jax.Array, eps: float) -> jax.Array:
  """x / rms(x) over the last dim D in float32, cast back, times `scale` [D]."""
  y = x.astype(jnp.float32)
  y = y * jax.lax.rsqrt(jnp.mean(y * y, -1, keepdims=True) + eps)
  return y.astype(x.dtype) * axes.shard(scale.astype(x.dtype), '_')


def _linear(expression, x, w, config, place=None):
  return linear.einsum(
    expression,
    x,
    w,
    place=place,
    keep=not config.reshard,
    reduce=config.reduce_dtype,
    quant=config.quant,
  )


def _queries_keys_values(p, y, config):
  """q [B,T,N,H], k, v [B,T,K,H]; k and v are one product: their weights are small."""
  if isinstance(p.wk, linear.Adapted) or isinstance(p.wv, linear.Adapted):
    k, v = (_linear('BTD,DKH->BTKH', y, w, config) for w in (p.wk, p.wv))
    return _linear('BTD,DNH->BTNH', y, p.wq, config), k, v
  w = jnp.stack([p.wk.astype(y.dtype), p.wv.astype(y.dtype)], 2)
  kv = _linear('BTD,DKGH->BTKGH', y, w, config)
  q = _linear('BTD,DNH->BTNH', y, p.wq, config)
  return q, kv[..., 0, :], kv[..., 1, :]


def _attention(p, x, angles, attend, place, config):
  y = axes.shard(rms_norm(x, p.attn_norm, config.norm_eps), 'BTD')
  q, k, v = _queries_keys_values(p, y, config)
  q, k = rope.rotate(q, *angles), rope.rotate(k, *angles)
  q, k, v = (checkpoint_name(a, n) for a, n in ((q, 'q'), (k, 'k'), (v, 'v')))
  y, stored = attend(q, k, v)
  y = _linear('BTNH,NHD->BTD', y, p.wo, config, place)
  return checkpoint_name(y, 'out'), stored


def _feed_forward(p, x, config, place='BTD'):
  y = axes.shard(rms_norm(x, p.ff_norm, config.norm_eps), 'BTD')
  gate = checkpoint_name(_linear('BTD,DF->BTF', y, p.w_gate, config), 'gate')
  up = checkpoint_name(_linear('BTD,DF->BTF', y, p.w_up, config), 'up')
  return _linear('BTF,FD->BTD', jax.nn.silu(gate) * up, p.w_down, config, place)


def layer(
  p: Layer,
  x: jax.Array,
  angles: tuple[jax.Array, jax.Array],
  attend: attention.Attend,
  place: str,
  config: ModelConfig,
) -> tuple[jax.Array, object]:
  """One decoder layer: x [B,T,D] -> x [B,T,D], and what `attend` keeps.

  place: letters of the layout of x, see embedding.stream.
  """
  x = checkpoint_name(x, 'input')
  with jax.named_scope('attention'):
    y, stored = _attention(p, x, angles, attend, place, config)
    x = x + y
  with jax.named_scope('feed_forward'):
    return x + _feed_forward(p, x, config, place), stored


def forward(
  params: Params,
  tokens: jax.Array,
  position: jax.Array,
  segment: jax.Array,
  config: ModelConfig,
  cache: kv.Cache | None = None,
  splice: embedding.Splice | None = None,
  branches: bool = False,
) -> tuple[jax.Array, kv.Cache | None]:
  """Hidden states after the final norm [B,T,D], and the filled cache (or None).

  Args: tokens, position, segment: int32 [B,T]; segment 0 is padding. Position is that
  of RoPE and, inside a segment, of causality. With a cache the tokens are appended.
  splice: hidden states in the place of tokens (model/embedding.Splice).
  branches: documents may split (kernels/rule.py); without a cache.
  """
  x = embedding.embed(params, tokens, config, cache, splice)
  angles = rope.angles(position, config)
  place, stored = embedding.stream(x, cache), None
  attend = lambda _: attention.among((position, segment), config, branches)
  if cache is not None:
    stored = (cache.k, cache.v)
    attend, cache = kv.appending(cache, position, segment, config)

  def body(x, scanned):
    p, old = scanned
    return layer(p, x, angles, attend(old), place, config)

  # The scales of all norms are gathered at once, not in every layer.
  norms = {n: getattr(params.layers, n).astype(config.dtype) for n in NORMS}
  norms = {n: axes.shard(x, 'L_') for n, x in norms.items()}
  layers = params.layers.replace(**norms)
  body = remat.remat(body, config)
  x, stored = jax.lax.scan(body, x, (layers, stored), unroll=config.unroll)
  if cache is not None:
    cache = cache.replace(k=stored[0], v=stored[1])
  return axes.shard(rms_norm(x, params.norm, config.norm_eps), 'BTD'), cache


def head(params: Params) -> tuple[jax.Array, str]:
  """(output projection, its letters); the embedding [V,D] if tied, else head [D,V]."""
  weight, letters = params.embed, 'VD'
  if params.head is not None:
    weight, letters = params.head, 'DV'
  return axes.shard(weight, letters), letters


def logits(params: Params, hidden: jax.Array, config: ModelConfig) -> jax.Array:
  """float32 [B,T,V] of hidden states [B,T,D]."""
  weight, letters = head(params)
  return linear.einsum(f'BTD,{letters}->BTV', hidden, weight, dtype=jnp.float32)


@functools.partial(jax.jit, static_argnames='config')
def apply(params: Params, tokens: jax.Array, config: ModelConfig) -> jax.Array:
  """Logits of plain unpacked rows, int32 [B,T] -> float32 [B,T,V]: for notebooks."""
  position = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
  hidden, _ = forward(params, tokens, position, jnp.ones_like(tokens), config)
  return logits(params, hidden, config)
