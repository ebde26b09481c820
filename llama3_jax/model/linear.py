"""Products of activations with weights: gathered, quantised, differentiated (3.3.2)."""

import functools
import math
import typing

import jax
import jax.numpy as jnp
from flax import struct

from llama3_jax import axes
from llama3_jax import quant
from llama3_jax.model import rowwise


@struct.dataclass
class Adapted:
  """A frozen weight with a low-rank adapter: w + scale * a b (LoRA).

  a is [O,R] and b [R,O], where O is all inputs, or all outputs, of the product as one
  dim, cut as D is; without a and b the weight is only frozen. The gradient of `w` is
  not computed.
  """

  w: jax.Array
  a: jax.Array | None
  b: jax.Array | None
  scale: float = struct.field(pytree_node=False)


def einsum(
  expression: str,
  x: jax.Array,
  w: jax.Array | Adapted | rowwise.Rowwise,
  dtype: jax.typing.DTypeLike | None = None,
  place: str | None = None,
  keep: bool = False,
  reduce: str = 'float32',
  quant: str = '',
) -> jax.Array:
  """Einsum of an activation with a weight: casts and gathers it, lays out the result.

  The weight is cast to the activation's dtype while it is cut, then gathered over the
  axes of D, so that the gather moves the small dtype.

  Args:
    expression: letters of the dims, such as 'BTD,DF->BTF'.
    x: the activation.
    w: the weight, cut as its letters say; one of few bits has no gradient.
    dtype: of the result; None: as `x`. float32 for logits.
    place: letters of the layout of the result; None: those of the expression.
    keep: whether the gathered weight is kept for the backward pass (the paper's FSDP,
      section 3.3.2); else it is gathered a second time.
    reduce: dtype in which the weight's gradient is computed and summed over devices;
      float32 in section 3.3.2.
    quant: '', or the small type of the products (quant.py).
  """
  inputs, output = expression.split('->')
  left, right = inputs.split(',')
  dtype = dtype or x.dtype.name
  if isinstance(w, rowwise.Rowwise):
    return rowwise.einsum(expression, x, w, dtype, place)
  frozen = isinstance(w, Adapted)
  full = w.w if frozen else w
  kind = full.dtype.name
  how = _How(expression, place or output, dtype, keep, reduce, quant, kind, frozen)
  y = _linear(x, axes.shard(full, right), how)
  if not frozen or w.a is None:
    return y
  # Ranks are small: both factors are gathered; their product in between is cut by rows.
  summed, given = (''.join(d for d in right if (d in output) == g) for g in (0, 1))
  rows = ''.join(d for d in left if d not in summed)
  sizes = dict(zip(right, full.shape))
  shape = lambda dims: tuple(sizes[d] for d in dims)
  a = axes.shard(w.a, '__').reshape(*shape(summed), -1)
  b = axes.shard(w.b, '__').reshape(-1, *shape(given))
  low = einsum(f'{left},{summed}R->{rows}R', x, a, reduce=reduce)
  more = einsum(f'{rows}R,R{given}->{output}', low, b, dtype, place, reduce=reduce)
  return y + (w.scale * more).astype(y.dtype)


class _How(typing.NamedTuple):
  """Static arguments of `_linear`: a key of the compilation cache."""

  expression: str
  place: str
  dtype: str  # of the result
  keep: bool
  reduce: str
  quant: str
  kind: str  # dtype of the parameter
  frozen: bool = False  # its gradient is not computed


def _dot(inputs, output, x, w, dtype, place, kind, gradient=False):
  """Einsum that accumulates in float32 and is laid out by `place`, then cast."""
  where = {} if axes.mesh() is None else dict(out_sharding=axes.spec(place))
  if kind:
    lay = functools.partial(axes.shard_scale, dims=place)
    return quant.dot(inputs, output, x, w, kind, gradient, where, lay).astype(dtype)
  # Chips sum in float32 for any output dtype; a CPU is twice as fast with float32.
  written = jnp.float32 if axes.platform() == 'cpu' else dtype
  expression = f'{inputs}->{output}'
  y = jnp.einsum(expression, x, w, preferred_element_type=written, **where)
  return y.astype(dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _linear(x, w, how):
  return _linear_forward(x, w, how)[0]


def _linear_forward(x, w, how):
  inputs, output = how.expression.split('->')
  used = axes.gather(w, inputs.split(',')[1], x.dtype)
  y = _dot(inputs, output, x, used, how.dtype, how.place, how.quant)
  return y, (x, used if how.keep else w)


def _by_sections(product, g, x, letters, shape, dtype):
  """product(g, x), the gradient [shape] of a weight, by sections of F (axes.sections).

  Args: letters: of g, x and the weight; dtype: of the gradient.
  """
  n, (_, _, right) = 1, letters
  if 'F' in right and axes.parts('F') == 1:
    width = shape[right.index('F')]
    n = axes.sections(math.prod(shape) * jnp.dtype(dtype).itemsize, width)
  if n == 1:
    return product(g, x)
  found = []
  for i in range(n):
    limits = width * i // n, width * (i + 1) // n
    cut = [
      jax.lax.slice_in_dim(a, *limits, axis=dims.index('F')) if 'F' in dims else a
      for a, dims in zip((g, x), letters)
    ]
    # The next section begins when this one is summed.
    g, x, section = jax.lax.optimization_barrier((g, x, product(*cut)))
    found.append(section)
  return jnp.concatenate(found, right.index('F'))


def _linear_backward(how, saved, g):
  """The gradient of the weight is computed in `reduce` and sharded as the weight."""
  inputs, output = how.expression.split('->')
  left, right = inputs.split(',')
  x, w = saved
  g = axes.shard(g.astype(x.dtype), output)
  used = w if how.keep else axes.gather(w, right, x.dtype)

  if how.frozen:
    dx = _dot(f'{output},{right}', left, g, used, x.dtype, left, how.quant, True)
    return dx, jnp.zeros_like(w, how.kind)

  def input_gradient(g):
    return _dot(f'{output},{right}', left, g, used, x.dtype, left, how.quant, True)

  def product(g, x):
    return _dot(f'{output},{left}', right, g, x, how.reduce, right, how.quant, True)

  def weight_gradient(g):
    return _by_sections(product, g, x, (output, left, right), used.shape, how.reduce)

  # A large gathered weight is freed before its gradient is made: without this order the
  # 405B on 1,024 chips takes 50.2 to 51.0 GiB a chip instead of 48.7. The others have
  # none, so that an asynchronous sum may overlap the product after it.
  if 'F' in right:
    dx = input_gradient(g)
    g, dx = jax.lax.optimization_barrier((g, dx))
    return dx, weight_gradient(g).astype(how.kind)
  dw = weight_gradient(g)
  return input_gradient(g), dw.astype(how.kind)


_linear.defvjp(_linear_forward, _linear_backward)
