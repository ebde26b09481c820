"""FLOPs of a training token and the utilisation they give (sections 3.2.1, 3.3.2)."""

import functools
import time

import jax
import jax.numpy as jnp

from llama3_jax.config import ModelConfig
from llama3_jax.kernels.rule import Rule
from llama3_jax.model import llama

# Dense bf16 FLOP/s of one chip, from the vendors' data sheets.
PEAK = {
  'TPU v4': 275e12,
  'TPU v5 lite': 197e12,
  'TPU v5': 459e12,
  'TPU v6 lite': 918e12,
  'NVIDIA H100': 989e12,
  'NVIDIA H200': 989e12,
  'NVIDIA A100': 312e12,
}
FORMULA = 'MFU = tokens/s x (6 x matmul parameters + 12 L N H seen) / (devices x peak)'


def per_token(config: ModelConfig, length: int) -> float:
  """Forward + backward FLOPs a token of a row of `length` tokens.

  6 for every parameter in a matrix product (the embedding look-up is not one), and for
  attention 12 L N H times the keys a query sees: half of the row, less with a window.
  """
  c = config
  look_up = 0 if c.tie_embeddings else c.vocab_size * c.d_model
  matmul = llama.count(c) - look_up
  seen = Rule(c.window).seen(length)
  return 6 * matmul + 12 * c.n_layers * c.n_heads * c.d_head * seen


CONVENTIONS = ('6nd', '6nd_non_embedding', 'exact')


def non_embedding(config: ModelConfig) -> int:
  """Number of parameters outside the embedding and the head (405B: 401.65e9)."""
  tables = 1 if config.tie_embeddings else 2
  return llama.count(config) - tables * config.vocab_size * config.d_model


def training(config: ModelConfig, length: int, convention: str = 'exact') -> float:
  """FLOPs of a training token under one of CONVENTIONS (section 3.2.1).

  The paper does not say how it counts: 6 for every parameter, 6 for those outside
  embedding and head, or `per_token` with the attention of rows of `length` tokens.
  """
  if convention == 'exact':
    return per_token(config, length)
  return 6 * (llama.count(config) if convention == '6nd' else non_embedding(config))


@functools.cache
def peak() -> tuple[float, str]:
  """(FLOP/s of one device, source of the figure); a device not in PEAK is measured."""
  kind = jax.devices()[0].device_kind
  for name in sorted(PEAK, key=len, reverse=True):
    if kind.startswith(name):
      return PEAK[name], f'data sheet, {name}, bf16'
  n = 1024
  x = jnp.ones((n, n), jnp.float32)
  multiply = jax.jit(lambda x: x @ x)
  multiply(x).block_until_ready()
  times = []
  for _ in range(5):
    start = time.perf_counter()
    multiply(x).block_until_ready()
    times.append(time.perf_counter() - start)
  return 2 * n**3 / min(times), f'measured, {n} cubed matmul, float32'
