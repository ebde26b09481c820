"""Structs of parameters: a field declares its letters and its initial spread."""

import dataclasses
import math
import typing
import zlib
from collections.abc import Callable
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import struct

from llama3_jax import axes

Struct = typing.TypeVar('Struct')  # of parameters
Spread = float | str | None  # initial, see `weight`


def weight(dims: str, std: Spread = None) -> dataclasses.Field:
  """Field of a parameter struct: its dims and its initial standard deviation.

  `std`: a number, 'ones', or the name of a rule in `_spread`.
  """
  return struct.field(metadata=dict(dims=dims, std=std))


def stack(cls: type, dims: str) -> dataclasses.Field:
  """Field of a struct `cls` whose leaves all have the leading `dims`."""
  return struct.field(metadata=dict(dims=dims, of=cls))


def build(
  cls: type[Struct],
  leaf: Callable[[str, str, Spread], object],
  prefix: str = '',
  lead: str = '',
) -> Struct:
  """The parameter struct `cls` filled with leaf(name, dims, std)."""
  values = {}
  for field in dataclasses.fields(cls):
    m, name = field.metadata, prefix + field.name
    if 'of' in m:
      values[field.name] = build(m['of'], leaf, name + '.', lead + m['dims'])
    else:
      values[field.name] = leaf(name, lead + m['dims'], m['std'])
  return cls(**values)


def shape(dims: str, sizes: Mapping[str, int]) -> tuple[int, ...]:
  """The shape of an array whose dims are the letters `dims`."""
  return tuple(sizes[d] for d in dims)


def _spread(std, dims, sizes):
  if std == 'in':  # keeps the norm of a normalised input; 0.0156 for the 8B
    return sizes['D'] ** -0.5
  if std == 'out':  # residual branches: the sum of 2L of them keeps its norm
    fan_in = math.prod(sizes[d] for d in dims if d not in 'LD')
    return (fan_in * 2 * sizes['L']) ** -0.5
  return std


def init_leaf(
  key: jax.Array, name: str, dims: str, std: Spread, sizes: Mapping[str, int]
) -> jax.Array:
  """One float32 leaf with `dims`; its values depend only on the key and its name."""
  if std == 'ones':
    x = jnp.ones(shape(dims, sizes), jnp.float32)
  else:
    key = jax.random.fold_in(key, zlib.crc32(name.encode()))
    x = jax.random.truncated_normal(key, -3, 3, shape(dims, sizes), jnp.float32)
    x = x * _spread(std, dims, sizes)
  return axes.shard(x, dims)
