"""Cross entropy over a large vocabulary, a chunk of tokens at a time (section 3.3.2).

Every device has its own tokens and its own columns of the vocabulary, and never more
logits than those of one chunk. `total` computes its gradients in the forward pass, so
that logits are computed once; `logprobs`, whose cotangents are not known then,
computes the logits again in the backward pass.
"""

import functools
import math

import jax
import jax.numpy as jnp

from llama3_jax import axes

How = tuple[str, float, int, str]  # letters, z_loss, chunk, dtype: see `total`


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def total(
  hidden: jax.Array, head: jax.Array, targets: jax.Array, weight: jax.Array, how: How
) -> tuple[jax.Array, jax.Array]:
  """Sums over all tokens, float32: (cross entropy with the z-loss, without it).

  w (log Z - logit[target]) + z_loss w (log Z)^2, summed. Args: hidden [B,T,D]; head: a
  weight; targets int32 [B,T]; weight float32 [B,T]; how: (letters of the head, 'DV' or
  'VD'; z_loss; tokens a device whose logits exist at one time, 0: all; dtype in which
  the head's gradient is summed). Only the first result has a gradient.
  """
  return _sums(hidden, head, targets, weight, how, False)[:2]


def _total_forward(hidden, head, targets, weight, how):
  loss, plain, dx, dw = _sums(hidden, head, targets, weight, how, True)
  # The gradient of the head is summed, and its buffers freed, before the layers'.
  dx, dw = jax.lax.optimization_barrier((dx, dw))
  return (loss, plain), (dx, dw.astype(head.dtype))


def _total_backward(how, saved, g):
  dx, dw = (d * g[0].astype(d.dtype) for d in saved)
  return dx, dw, None, None


total.defvjp(_total_forward, _total_backward)


def _sums(hidden, head, targets, weight, how, differentiate):
  dims, z_loss, chunk, reduce = how
  results = ((), ()) + (('BTD', dims) if differentiate else ())

  def local(hidden, head, targets, weight):
    parts, shape = _parts((hidden, targets, weight), chunk), hidden.shape
    kept = differentiate and _kept(hidden, head, reduce)
    zero = jnp.zeros(() if kept or not differentiate else head.shape, reduce)

    def one(carry, part):
      loss, plain, dw = carry
      x, target, w = part
      logits, logz, picked, hit = _softmax(x, head, dims, target)
      plain_part = jnp.sum(w * (logz - picked))
      loss_part = plain_part + z_loss * jnp.sum(w * logz * logz)
      dx, slope = (), ()
      if differentiate:
        p = jnp.exp(logits - logz[:, None]) * (1 + 2 * z_loss * logz)[:, None]
        slope = ((p - hit) * w[:, None]).astype(x.dtype)
        dx = _inputs(head, dims, slope)
        if not kept:
          dw, slope = dw + _head(x, dims, slope).astype(reduce), ()
      return (loss + loss_part, plain + plain_part, dw), (dx, slope)

    start = (jnp.float32(0), jnp.float32(0), zero)
    (loss, plain, dw), (dx, slope) = jax.lax.scan(one, start, parts)
    loss, plain = axes.device_sum((loss, plain), 'BT')
    if not differentiate:
      return loss, plain
    dw = _scatter((parts[0], slope) if kept else dw, head.shape, dims, reduce)
    return loss, plain, _whole(dx, shape), dw

  letters = ('BTD', dims, 'BT', 'BT')
  used = axes.gather(head, dims, hidden.dtype)
  arrays = (hidden, used, targets, weight)
  return axes.local(local, letters, results, weights=(1,))(*arrays)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def logprobs(
  hidden: jax.Array, head: jax.Array, targets: jax.Array, how: How
) -> tuple[jax.Array, jax.Array]:
  """(log-probability of each target, log Z), float32 [B,T] each.

  Args: hidden [B,T,D]; head: a weight; targets int32 [B,T]; how: as in `total`.
  """
  return _logprobs(hidden, head, targets, how)


def _logprobs(hidden, head, targets, how):
  dims, _, chunk, _ = how

  def local(hidden, head, targets):
    def one(_, part):
      _, logz, picked, _ = _softmax(part[0], head, dims, part[1])
      return None, (picked - logz, logz)

    _, results = jax.lax.scan(one, None, _parts((hidden, targets), chunk))
    return tuple(_whole(x, targets.shape) for x in results)

  used = axes.gather(head, dims, hidden.dtype)
  return axes.local(local, ('BTD', dims, 'BT'), ('BT', 'BT'), weights=(1,))(
    hidden, used, targets
  )


def _logprobs_forward(hidden, head, targets, how):
  return _logprobs(hidden, head, targets, how), (hidden, head, targets)


def _logprobs_backward(how, saved, g):
  dims, _, chunk, reduce = how
  hidden, head, targets = saved

  def local(hidden, head, targets, *g):
    def one(dw, part):
      x, target, dlogp, dlogz = part
      logits, logz, _, hit = _softmax(x, head, dims, target)
      p = jnp.exp(logits - logz[:, None])
      slope = hit * dlogp[:, None] + p * (dlogz - dlogp)[:, None]
      slope = slope.astype(x.dtype)
      dx = _inputs(head, dims, slope)
      if not kept:
        dw, slope = dw + _head(x, dims, slope).astype(reduce), ()
      return dw, (dx, slope)

    kept = _kept(hidden, head, reduce)
    parts = _parts((hidden, targets, *g), chunk)
    zero = jnp.zeros(() if kept else head.shape, reduce)
    dw, (dx, slope) = jax.lax.scan(one, zero, parts)
    dw = _scatter((parts[0], slope) if kept else dw, head.shape, dims, reduce)
    return _whole(dx, hidden.shape), dw

  used = axes.gather(head, dims, hidden.dtype)
  letters = ('BTD', dims, 'BT', 'BT', 'BT')
  dx, dw = axes.local(local, letters, ('BTD', dims), weights=(1,))(
    hidden, used, targets, *g
  )
  return dx, dw.astype(head.dtype), None


logprobs.defvjp(_logprobs_forward, _logprobs_backward)


def _parts(arrays, chunk):
  """[B,T,...] -> [chunks,tokens,...]; padded with zeros (weight 0)."""
  n = arrays[0].shape[0] * arrays[0].shape[1]
  chunks = -(-n // chunk) if chunk else 1
  size = -(-n // chunks)

  def one(x):
    x = x.reshape(n, *x.shape[2:])
    if chunks * size > n:
      x = jnp.pad(x, [(0, chunks * size - n)] + [(0, 0)] * (x.ndim - 1))
    return x.reshape(chunks, size, *x.shape[1:])

  return jax.tree.map(one, arrays)


def _whole(x, shape):
  """[chunks,tokens,...] -> `shape`, without the padding."""
  x = x.reshape(-1, *x.shape[2:])
  return x[: shape[0] * shape[1]].reshape(shape)


def _softmax(x, head, dims, target):
  """Of a chunk [C,D]: logits [C,V], log Z [C], the target's logit [C], its mask [C,V].

  float32. V is the device's part of the vocabulary; log Z and the target's logit are
  over the whole vocabulary.
  """
  logits = jnp.einsum(f'CD,{dims}->CV', x, head, preferred_element_type=jnp.float32)
  first = axes.device_index('V') * logits.shape[1]
  hit = jax.lax.broadcasted_iota(jnp.int32, logits.shape, 1) == target[:, None] - first
  top = axes.device_max(jnp.max(logits, -1), 'V')
  sums = jnp.sum(jnp.exp(logits - top[:, None]), -1)
  picked = jnp.sum(jnp.where(hit, logits, 0), -1)
  sums, picked = axes.device_sum((sums, picked), 'V')
  return logits, top + jnp.log(sums), picked, hit


def _inputs(head, dims, slope):
  """Gradient of a chunk's inputs [C,D], over the whole vocabulary."""
  dx = jnp.einsum(f'CV,{dims}->CD', slope, head, preferred_element_type=jnp.float32)
  return axes.device_sum(dx.astype(slope.dtype), 'V')


def _head(x, dims, slope):
  """Gradient of the device's head, float32, from a chunk [C,D] and its slope [C,V]."""
  return jnp.einsum(f'CD,CV->{dims}', x, slope, preferred_element_type=jnp.float32)


def _kept(hidden, head, reduce):
  """Whether slopes of all tokens take less memory than a whole gradient of the head."""
  slopes = hidden.shape[0] * hidden.shape[1] * hidden.dtype.itemsize
  return axes.parts('D') > 1 and slopes < hidden.shape[2] * jnp.dtype(reduce).itemsize


def _scatter(found, shape, dims, reduce):
  """The head's gradient, summed over devices and cut as the head, by sections of V.

  found: the sum over the device's tokens, or (x [chunks,C,D], slope [chunks,C,V]).
  """
  at = dims.index('V')
  n = axes.sections(math.prod(shape) * jnp.dtype(reduce).itemsize, shape[at])
  width = shape[at] // n

  def one(i):
    cut = lambda a, dim: jax.lax.dynamic_slice_in_dim(a, i * width, width, dim)
    if isinstance(found, tuple):
      x, slope = (a.reshape(-1, a.shape[-1]) for a in found)
      part = _head(x, dims, cut(slope, 1)).astype(reduce)
    else:
      part = cut(found, at)
    return axes.device_scatter(part, dims, 'BT')

  if n == 1:
    return one(0)
  parts = jnp.moveaxis(jax.lax.map(one, jnp.arange(n)), 0, at)
  return parts.reshape(*parts.shape[:at], shape[at], *parts.shape[at + 2 :])
