"""Products in eight bits with a scale for every row (section 6.2).

Weights are float8 e4m3 (or int8) with a scale for each output; activations are scaled
for each token while they are used, from their largest value, which counts as `cap` at
most: the huge activations of a few tokens would push all others of their row below the
smallest number of the type.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import struct

from llama3_jax import axes
from llama3_jax.base.errors import UserError

CAP = 1200.0  # of the paper
# {name: (dtype, largest value, whether activations are in it too)}
KINDS = {
  'fp8': (jnp.float8_e4m3fn, 448.0, True),
  'fp8_weights': (jnp.float8_e4m3fn, 448.0, False),
  'int8': (jnp.int8, 127.0, True),
  'int8_weights': (jnp.int8, 127.0, False),
}
TINY = 1e-12  # instead of the scale of a row of zeros


@struct.dataclass
class Rowwise:
  """A weight as scale * q; its outputs are the first dims, and those that are summed
  the last, as GPUs multiply float8; along those scale is 1.

  kind: a name of KINDS; cap: bound on the largest value that scales an activation.
  """

  q: jax.Array
  scale: jax.Array
  kind: str = struct.field(pytree_node=False)
  cap: float = struct.field(pytree_node=False, default=CAP)


def check(kind: str) -> None:
  """UserError for a name that is not of KINDS; '' is none."""
  if kind and kind not in KINDS:
    raise UserError(f'weights={kind!r}: it must be empty or one of {", ".join(KINDS)}')


def rounded(
  x: jax.Array, dims: tuple[int, ...], kind: str, cap: float = 0.0
) -> tuple[jax.Array, jax.Array]:
  """(values in the small type, float32 scale) of x, one scale for all along `dims`.

  cap: bound on the absolute maximum that scales; what is above it is cut. 0: none.
  """
  dtype, most, _ = KINDS[kind]
  x = x.astype(jnp.float32)
  largest = jnp.max(jnp.abs(x), dims, keepdims=True)
  largest = jnp.minimum(largest, cap) if cap else largest
  scale = jnp.maximum(largest, TINY) / most
  scaled = jnp.clip(x / scale, -most, most)
  if dtype == jnp.int8:
    scaled = jnp.round(scaled)
  return scaled.astype(dtype), scale


def weight(w: jax.Array, expression: str, kind: str, cap: float = CAP) -> Rowwise:
  """A weight of a product such as 'BTD,DF->BTF' with a scale for every output."""
  inputs, output = expression.split('->')
  right = inputs.split(',')[1]
  turned, count = _turned(right, output)
  w = jnp.transpose(w, [right.index(d) for d in turned])
  summed = tuple(range(count, w.ndim))
  return Rowwise(*rounded(w, summed, kind), kind=kind, cap=cap)


def _turned(letters, output):
  """(letters with those of the output first, how many these are)."""
  first = [d for d in letters if d in output]
  return ''.join(first + [d for d in letters if d not in output]), len(first)


def einsum(
  expression: str,
  x: jax.Array,
  w: Rowwise,
  dtype: jax.typing.DTypeLike,
  place: str | None = None,
) -> jax.Array:
  """Einsum of an activation with a weight of few bits, summed in float32, as `dtype`.

  place: letters of the layout of the result; None: those of the expression.
  """
  inputs, output = expression.split('->')
  left, right = inputs.split(',')
  right, _ = _turned(right, output)
  used = axes.gather(w.q, right, w.q.dtype)
  place = place or output
  where = {} if axes.mesh() is None else dict(out_sharding=axes.spec(place))
  lay = lambda s, dims: axes.shard_scale(_aligned(s, dims, output), place)
  scale = lay(axes.shard_scale(w.scale, right), right)
  _, _, both = KINDS[w.kind]
  if both:
    summed = tuple(i for i, d in enumerate(left) if d not in output)
    x, own = rounded(x, summed, w.kind, w.cap)
    scale = scale * lay(own, left)
  wide, total = (used.dtype if both else x.dtype), jnp.float32
  if wide == jnp.int8:
    total = jnp.int32
  if axes.platform() == 'cpu':  # which has no products of these: all values are exact
    wide = total = jnp.float32
  y = jnp.einsum(
    f'{left},{right}->{output}',
    x.astype(wide),
    used.astype(wide),
    preferred_element_type=total,
    **where,
  )
  return (y * scale).astype(dtype)


def _aligned(scale, letters, output):
  """A scale with the dims of the output; those that it lacks have size 1."""
  size = dict(zip(letters, scale.shape))
  kept = [d for d in output if d in letters]
  order = [letters.index(d) for d in kept]
  rest = [i for i in range(len(letters)) if i not in order]
  turned = jnp.transpose(scale, order + rest)
  return turned.reshape([size.get(d, 1) if d in letters else 1 for d in output])


# The products of a layer that are in few bits: the paper's w1, w3, w2.
PRODUCTS = {'w_gate': 'BTD,DF->BTF', 'w_up': 'BTD,DF->BTF', 'w_down': 'BTF,FD->BTD'}


def layer(p: object, kind: str, cap: float = CAP) -> object:
  """A layer's parameters with its feed-forward weights in few bits; attention stays."""
  given = {n: weight(getattr(p, n), e, kind, cap) for n, e in PRODUCTS.items()}
  return dataclasses.replace(p, **given)


def capped(params: object, cap: float) -> object:
  """Parameters whose weights of few bits cut activations at another cap; 0: nowhere."""
  few = lambda x: isinstance(x, Rowwise)
  change = lambda x: x.replace(cap=cap) if few(x) else x
  return jax.tree.map(change, params, is_leaf=few)
