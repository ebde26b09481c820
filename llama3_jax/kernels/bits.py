"""bfloat16 as the integers with its bits, where a CPU writes parts of an array.

XLA of jax 0.10 widens the whole array to float32 for each part that is written, and
narrows it again: the time grows with the square of the number of parts.
"""

import jax
import jax.numpy as jnp

from llama3_jax import axes


def dtype(kind: jax.typing.DTypeLike) -> jnp.dtype:
  """The dtype in which values of dtype `kind` are kept."""
  half = axes.platform() == 'cpu' and jnp.dtype(kind) == jnp.bfloat16
  return jnp.dtype(jnp.uint16 if half else kind)


def kept(x: jax.Array) -> jax.Array:
  """`x` in the dtype in which it is kept."""
  into = dtype(x.dtype)
  return x if into == x.dtype else jax.lax.bitcast_convert_type(x, into)


def used(x: jax.Array) -> jax.Array:
  """The values of what `kept` gave."""
  return jax.lax.bitcast_convert_type(x, jnp.bfloat16) if x.dtype == jnp.uint16 else x
