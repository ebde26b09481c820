"""Rotary position embedding and the Llama 3.1 frequency scaling (section 3.2)."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from llama3_jax.config import ModelConfig


def frequencies(config: ModelConfig) -> np.ndarray:
  """Angular frequencies, float32 [H/2]: theta^(-2i/H), scaled by config.rope_scaling.

  Scaling (released 3.1 code): wavelengths under original/high are kept, those over
  original/low are slowed by `factor`, those between are blended. At head size 128 and
  theta 500,000, 29 are kept, 6 blended and 29 divided.
  """
  i = np.arange(0, config.d_head, 2, dtype=np.float64)
  f = config.rope_theta ** (-i / config.d_head)
  s = config.rope_scaling
  if s is None:
    return f.astype(np.float32)
  wavelength = 2 * math.pi / f
  blend = (s.original / wavelength - s.low) / (s.high - s.low)
  blend = np.clip(blend, 0, 1)
  return ((1 - blend) * f / s.factor + blend * f).astype(np.float32)


def angles(position: jax.Array, config: ModelConfig) -> tuple[jax.Array, jax.Array]:
  """cos and sin, float32 [B,T,H/2] each, of int32 positions [B,T]."""
  a = position[..., None].astype(jnp.float32) * frequencies(config)
  return jnp.cos(a), jnp.sin(a)


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
  """Rotates x [B,T,N,H] in float32; channel i is paired with i + H/2 (as Hugging Face).

  Halves are contiguous, so the rotation is two wide multiplies. Files in Meta's order
  (2i with 2i+1) are permuted once when they are read (`model/convert.py`).
  """
  a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  cos, sin = cos[:, :, None], sin[:, :, None]
  return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(x.dtype)


def rotate_adjacent(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
  """The same rotation in Meta's channel order; the reference for the importer."""
  a, b = x[..., 0::2].astype(jnp.float32), x[..., 1::2].astype(jnp.float32)
  cos, sin = cos[:, :, None], sin[:, :, None]
  turned = jnp.stack([a * cos - b * sin, b * cos + a * sin], -1)
  return turned.reshape(x.shape).astype(x.dtype)
