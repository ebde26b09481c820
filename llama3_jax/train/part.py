"""Which parameters a stage trains: all, those of some names, or low-rank ones (LoRA).

The rest is frozen: carried and cut over the mesh, not differentiated, without a state
of the optimizer and without a copy in the saves.
"""

import dataclasses
import fnmatch
import math
import zlib

import jax
import jax.numpy as jnp
from flax import struct

from llama3_jax import axes
from llama3_jax import config as configs
from llama3_jax.base.errors import UserError
from llama3_jax.model.linear import Adapted
from llama3_jax.train import digest


@dataclasses.dataclass(frozen=True)
class PartConfig:
  """The `part` section of a config.

  Patterns are of paths such as 'layers.wq', '*norm' or 'layers.*'.
  """

  trainable: tuple[str, ...] = ()  # of what is trained; (): all, with a rank none
  rank: int = 0  # of low-rank adapters (LoRA) beside frozen products; 0: none
  lora: tuple[str, ...] = ('*',)  # of those products: ('layers.w[qkvo]',)
  alpha: float = 16.0  # adapters count alpha / rank


@struct.dataclass
class Trained:
  """own: parameters that are trained themselves, None elsewhere; low: {path: (a, b)} of
  the adapters a [L,O,R], b [L,R,O]."""

  own: object
  low: dict


@dataclasses.dataclass(frozen=True)
class Part:
  """Which of the parameters with these `letters` (a tree of strings) are trained.

  new: patterns of what the stage adds to the model, which is always trained.
  """

  letters: object
  config: PartConfig
  new: tuple[str, ...] = ()
  seed: int = 0

  def split(self, params):
    """(Trained, the frozen parameters: None where they are trained)."""
    wanted, products, low = self._own(), self._products(), {}
    if not wanted and not products:
      raise UserError('part: nothing is trained: name products in part.lora')

    def own(path, x):
      if path in products:
        low[path] = self._adapter(path, products[path], x)
      return x if path in wanted else None

    trained = _map(own)(params)
    frozen = _map(lambda path, x: None if path in wanted else x)(params)
    return Trained(trained, low), frozen

  def join(self, trained, frozen):
    """The parameters as a loss takes them: products that are frozen say so."""
    products = _products(self.letters)

    def one(path, own, kept):
      if own is not None or path not in products:
        return kept if own is None else own
      a, b = trained.low.get(path, (None, None))
      return Adapted(kept, a, b, self.config.alpha / max(self.config.rank, 1))

    return _map(one)(trained.own, frozen)

  def whole(self, trained, frozen):
    """Plain parameters: the adapters are added to their products."""

    def one(path, own, kept):
      if path not in trained.low:
        return kept if own is None else own
      a, b = trained.low[path]
      letters = self._products()[path]
      # The side of the stream stays cut: the whole sum is on no device.
      first = letters[1] == 'D'
      a = axes.shard(a, f'L{_cut(a.shape[1])}R' if first else '___')
      b = axes.shard(b, '___' if first else f'LR{_cut(b.shape[2])}')
      added = axes.shard((a @ b).reshape(kept.shape), letters)
      return kept + (added * self.config.alpha / self.config.rank).astype(kept.dtype)

    return _map(one)(trained.own, frozen)

  def _own(self):
    """Paths of the parameters that are trained themselves."""
    paths = _paths(self.letters)
    patterns = [*self.config.trainable, *self.new]
    if not self.config.trainable and not self.config.rank:
      patterns = ['*']
    for pattern in patterns:
      if not fnmatch.filter(paths, pattern):
        raise UserError(
          f'part.trainable: no parameter is {pattern!r}: there are {", ".join(paths)}'
        )
    return {p for pattern in patterns for p in fnmatch.filter(paths, pattern)}

  def _products(self):
    """{path: letters} of the products that have adapters."""
    if not self.config.rank:
      return {}
    found, own = _products(self.letters), self._own()
    for pattern in self.config.lora:
      if not fnmatch.filter(found, pattern):
        raise UserError(
          f'part.lora: no product is {pattern!r}: there are {", ".join(found)}'
        )
    return {
      path: letters
      for path, letters in found.items()
      if path not in own and any(fnmatch.fnmatch(path, p) for p in self.config.lora)
    }

  def _adapter(self, path, letters, w):
    """(a, b) of the product `w`: random and zero, so that nothing is added at first."""
    layers, inputs, outputs = _sizes(letters, w.shape)
    key = jax.random.fold_in(jax.random.key(self.seed), zlib.crc32(path.encode()))
    shape = (layers, inputs, self.config.rank)
    a = inputs**-0.5 * jax.random.truncated_normal(key, -3, 3, shape)
    b = jnp.zeros((layers, self.config.rank, outputs), jnp.float32)
    return axes.shard(a, f'L{_cut(inputs)}R'), axes.shard(b, f'LR{_cut(outputs)}')


def of(config, letters, new=()):
  """The Part of a config's `part`; None where all parameters are trained."""
  c = configs.fill(PartConfig(), config.get('part', {}), 'part')
  if not c.rank and not c.trainable:
    return None
  return Part(letters, c, tuple(new), config.get('seed', 0))


def _paths(letters):
  flat = jax.tree_util.tree_flatten_with_path(letters)[0]
  return {digest.name(path): dims for path, dims in flat}


def _products(letters):
  """{path: letters} of the linear products of the layers."""
  return {
    p: dims for p, dims in _paths(letters).items() if dims[0] == 'L' and len(dims) > 2
  }


def _sizes(letters, shape):
  """(layers, what a product sums over, what it gives) of 'LDNH' and its shape."""
  first = letters[1] == 'D'  # the stream is its input, else its output
  return shape[0], *(
    (shape[1], math.prod(shape[2:])) if first else (math.prod(shape[1:-1]), shape[-1])
  )


def _cut(n):
  """The letter of a dim of `n`, which is cut where the mesh divides it."""
  return '_' if n % axes.parts('O') else 'O'


def _map(f):
  """f(path, *leaves) over trees of one form, of which None is a leaf."""

  def run(*trees):
    one = lambda path, *leaves: f(digest.name(path), *leaves)
    empty = lambda x: x is None
    return jax.tree_util.tree_map_with_path(one, *trees, is_leaf=empty)

  return run
