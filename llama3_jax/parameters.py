"""Structs of parameters: a field declares its letters and its initial spread."""

import dataclasses
import math
import zlib

import jax
import jax.numpy as jnp
from flax import struct

from llama3_jax import axes


def weight(dims, std=None):
  """Field of a parameter struct: its dims and its initial spread.

  `std`: a number, 'ones', or the name of a rule in `_spread`.
  """
  return struct.field(metadata=dict(dims=dims, std=std))


def stack(cls, dims):
  """Field that holds a struct whose every leaf has the leading `dims`."""
  return struct.field(metadata=dict(dims=dims, of=cls))


def build(cls, leaf, prefix='', lead=''):
  """The parameter struct `cls` filled with leaf(name, dims, std)."""
  values = {}
  for field in dataclasses.fields(cls):
    m, name = field.metadata, prefix + field.name
    if 'of' in m:
      values[field.name] = build(m['of'], leaf, name + '.', lead + m['dims'])
    else:
      values[field.name] = leaf(name, lead + m['dims'], m['std'])
  return cls(**values)


def shape(dims, sizes):
  return tuple(sizes[d] for d in dims)


def _spread(std, dims, sizes):
  if std == 'in':  # keeps the size of a normed input; 0.0156 for the 8B
    return sizes['D'] ** -0.5
  if std == 'out':  # residual branches: the sum of 2L of them keeps its size
    fan_in = math.prod(sizes[d] for d in dims if d not in 'LD')
    return (fan_in * 2 * sizes['L']) ** -0.5
  return std


def init_leaf(key, name, dims, std, sizes):
  """One float32 leaf; its values depend on the key and its name only."""
  if std == 'ones':
    x = jnp.ones(shape(dims, sizes), jnp.float32)
  else:
    key = jax.random.fold_in(key, zlib.crc32(name.encode()))
    x = jax.random.truncated_normal(key, -3, 3, shape(dims, sizes), jnp.float32)
    x = x * _spread(std, dims, sizes)
  return axes.shard(x, dims)
