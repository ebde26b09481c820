"""Matrix products in int8 or float8 while training (extra `quant`: Qwix).

Both operands of a product are divided by their largest value along the summed dims and
rounded; the product runs in the small type and is scaled back. In the backward pass
the incoming gradient is rounded in the same way (float8 e5m2: range before
precision). Parameters, optimizer and residual stream keep their types.
"""

from collections.abc import Callable
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from llama3_jax.base.errors import UserError

KINDS = {
  # types of activations and weights, of gradients, and of the sums of products
  'int8': (jnp.int8, jnp.int8, jnp.int32),
  'fp8': (jnp.float8_e4m3fn, jnp.float8_e5m2, jnp.float32),
}


def check(kind: str) -> None:
  """Raises UserError when `model.quant` is unknown or Qwix is not installed."""
  if kind and kind not in KINDS:
    raise UserError(f'model.quant={kind!r} must be empty or one of {", ".join(KINDS)}')
  if kind:
    _library()


def _library():
  """Qwix, which is an extra."""
  try:
    import qwix
  except ImportError:
    raise UserError("model.quant needs Qwix: pip install -e '.[quant]'")
  return qwix


def dot(
  inputs: str,
  output: str,
  x: jax.Array,
  w: jax.Array,
  kind: str,
  gradient: bool,
  where: Mapping[str, object],
  lay: Callable[[jax.Array], jax.Array],
) -> jax.Array:
  """Einsum of two operands quantised to `kind`, float32; `gradient`: whether x is one.

  `where`: keyword arguments of the layout of the result; `lay` lays out a scale that
  broadcasts to it.
  """
  forward, backward, total = KINDS[kind]
  types = (backward if gradient else forward, forward)
  parts = []
  for letters, a, dtype in zip(inputs.split(','), (x, w), types):
    kept = [i for i, d in enumerate(letters) if d in output]
    parts.append(_library().quantize(a, dtype, channelwise_axes=kept))
  values = (p.qvalue for p in parts)
  y = jnp.einsum(
    f'{inputs}->{output}', *values, preferred_element_type=total, **where
  ).astype(jnp.float32)
  for letters, p in zip(inputs.split(','), parts):
    size = dict(zip(letters, p.scale.shape))
    y = y * lay(p.scale.astype(jnp.float32).reshape([size.get(d, 1) for d in output]))
  return y
