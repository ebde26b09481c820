"""AdamW with the paper's values; those it leaves open are Llama 2's (3.4.1)."""

import dataclasses
import fnmatch
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax
from flax import struct
from ml_collections import ConfigDict

from llama3_jax import config as configs
from llama3_jax.base.errors import UserError
from llama3_jax.train import schedule

BYTES = dict(float32=4, bfloat16=2, int8=1)  # of a stored moment


@dataclasses.dataclass(frozen=True)
class OptimConfig:
  """The `optim` part of a config: AdamW and its schedule (3.4.1)."""

  peak: float = 3e-4  # highest learning rate
  warmup: int = 8000  # steps of a linear rise to it
  decay: int = 1_200_000  # step at which the cosine reaches the floor; 0: none
  floor: float = 0.01  # of the peak
  anneal_start: int = 0  # step from which the rate falls linearly to 0 (3.4.3)
  anneal_steps: int = 0  # length of that fall; 0: no annealing
  b1: float = 0.9  # decay of the first moment a step
  b2: float = 0.95  # decay of the second
  eps: float = 1e-5  # added to the root of the second moment
  weight_decay: float = 0.1  # of matrices, times the learning rate
  clip: float = 1.0  # largest global norm of the gradients
  mu_dtype: str = 'float32'  # of the first moment: float32 | bfloat16 | int8
  nu_dtype: str = 'float32'  # of the second
  groups: tuple = ()  # ((pattern, factor of the rate), ...): ('embed', 0.1)

  @property
  def schedule(self) -> schedule.Schedule:
    """The Schedule of these fields."""
    names = [f.name for f in dataclasses.fields(schedule.Schedule)]
    return schedule.Schedule(**{n: getattr(self, n) for n in names})


def decayed(params: object) -> object:
  """Mask of weight decay, a tree of bool: all but norm scales (names end in norm)."""

  def matrix(path, _):
    return not jax.tree_util.keystr(path, simple=True, separator='.').endswith('norm')

  return jax.tree_util.tree_map_with_path(matrix, params)


@struct.dataclass
class Int8:
  """A quantised array: int8 or uint8 [..., n] and a float32 scale a row [..., 1]."""

  values: jax.Array
  scale: jax.Array


@struct.dataclass
class Moments:
  """State of AdamW: number of updates int32, first and second moments."""

  count: jax.Array
  mu: object
  nu: object


def _pack_mu(x, dtype):
  if dtype != 'int8':
    return x.astype(dtype)
  scale = jnp.max(jnp.abs(x), -1, keepdims=True) / 127
  values = jnp.round(x / jnp.maximum(scale, 1e-30)).astype(jnp.int8)
  return Int8(values, scale)


def _pack_nu(x, dtype):
  """int8 stores the square root, rounded up: a zero would divide the update by eps."""
  if dtype != 'int8':
    return x.astype(dtype)
  root = jnp.sqrt(x)
  scale = jnp.max(root, -1, keepdims=True) / 255
  values = jnp.ceil(root / jnp.maximum(scale, 1e-30) - 1e-3)
  values = jnp.maximum(values, root > 0)
  return Int8(values.astype(jnp.uint8), scale)


def _open_mu(x):
  if isinstance(x, Int8):
    return x.values.astype(jnp.float32) * x.scale
  return x.astype(jnp.float32)


def _open_nu(x):
  return jnp.square(_open_mu(x)) if isinstance(x, Int8) else x.astype(jnp.float32)


def _is_packed(x):
  return isinstance(x, Int8)


def scale_by_adam(c: OptimConfig) -> optax.GradientTransformation:
  """optax transformation m / (sqrt(v) + eps), both moments stored in a chosen dtype.

  The arithmetic is float32; the stored moments take 8 bytes a parameter in float32, 4
  in bfloat16, 2 in int8.
  """

  def init(params):
    zero = lambda pack, dtype: jax.tree.map(
      lambda p: pack(jnp.zeros_like(p, jnp.float32), dtype), params
    )
    return Moments(jnp.int32(0), zero(_pack_mu, c.mu_dtype), zero(_pack_nu, c.nu_dtype))

  def update(grads, state, params=None):
    count = state.count + 1
    t = count.astype(jnp.float32)

    def moment(open_, b):
      return lambda old, g: b * open_(old) + (1 - b) * g

    mu = jax.tree.map(moment(_open_mu, c.b1), state.mu, grads, is_leaf=_is_packed)
    squares = jax.tree.map(jnp.square, grads)
    nu = jax.tree.map(moment(_open_nu, c.b2), state.nu, squares, is_leaf=_is_packed)
    unbias = lambda b: 1 / (1 - b**t)
    m, v = unbias(c.b1), unbias(c.b2)
    updates = jax.tree.map(lambda a, b: a * m / (jnp.sqrt(b * v) + c.eps), mu, nu)
    pack = lambda f, dtype, tree: jax.tree.map(lambda x: f(x, dtype), tree)
    kept = Moments(
      count, pack(_pack_mu, c.mu_dtype, mu), pack(_pack_nu, c.nu_dtype, nu)
    )
    return updates, kept

  return optax.GradientTransformation(init, update)


def of(config: ConfigDict) -> optax.GradientTransformation:
  """The optimizer of the `optim` part of a config."""
  return create(configs.fill(OptimConfig(), config.optim, 'optim'))


@functools.cache
def create(c: OptimConfig) -> optax.GradientTransformation:
  """optax transformation: clip by global norm, AdamW, learning rate of the schedule.

  Cached by config, so that a second run does not compile its step again.
  """
  for field in ('mu_dtype', 'nu_dtype'):
    if getattr(c, field) not in BYTES:
      raise UserError(
        f'optim.{field}={getattr(c, field)!r} must be one of {", ".join(BYTES)}'
      )
  return optax.chain(
    optax.clip_by_global_norm(c.clip),
    scale_by_adam(c),
    optax.add_decayed_weights(c.weight_decay, decayed),
    scale_groups(c.groups),
    optax.scale_by_learning_rate(lambda n: schedule.learning_rate(n, c.schedule)),
  )


def scale_groups(groups: Sequence[tuple[str, float]]) -> optax.GradientTransformation:
  """optax transformation: multiplies an update by the factor of the first pattern that
  matches its path, else by 1.

  A pattern without a match is a UserError: a misspelt one would have no effect.
  """

  def names(tree):
    flat = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [jax.tree_util.keystr(p, simple=True, separator='.') for p, _ in flat]

  def init(params):
    known = names(params)
    for pattern, _ in groups:
      if not fnmatch.filter(known, pattern):
        raise UserError(
          f'optim.groups: no parameter is {pattern!r}: there are {", ".join(known)}'
        )
    return optax.EmptyState()

  def factor(name):
    return next((f for p, f in groups if fnmatch.fnmatch(name, p)), 1.0)

  def update(updates, state, params=None):
    leaves, tree = jax.tree.flatten(updates)
    scaled = [x * factor(name) for x, name in zip(leaves, names(updates))]
    return jax.tree.unflatten(tree, scaled), state

  return optax.GradientTransformation(init, update)
