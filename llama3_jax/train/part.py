"""Which parameters a stage trains: all, those of some names, or low-rank ones (LoRA).

The others are frozen: sharded over the mesh, but not differentiated, without optimizer
state and without a copy in the saves.
"""

import dataclasses
import fnmatch
import math
import zlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import struct
from ml_collections import ConfigDict

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

  trainable: tuple[str, ...] = ()  # patterns of trained ones; (): all, none with LoRA
  rank: int = 0  # of low-rank adapters (LoRA) of frozen products; 0: no adapters
  lora: tuple[str, ...] = ('*',)  # patterns of those products: ('layers.w[qkvo]',)
  alpha: float = 16.0  # adapters are scaled by alpha / rank


@struct.dataclass
class Trained:
  """own: parameters that are trained directly, None elsewhere; low: {path: (a, b)} of
  the adapters a [L,O,R], b [L,R,O]."""

  own: object
  low: dict


@dataclasses.dataclass(frozen=True)
class Part:
  """Which of the parameters with these `letters` (a tree of strings) are trained.

  new: patterns of parameters that the stage adds to the model; always trained.
  """

  letters: object
  config: PartConfig
  new: tuple[str, ...] = ()
  seed: int = 0

  def split(self, params: object) -> tuple[Trained, object]:
    """(Trained, frozen parameters with None in place of the trained ones)."""
    paths, products, low = self._own(), self._products(), {}
    if not paths and not products:
      raise UserError('part: nothing is trained: name products in part.lora')

    def own(path, x):
      if path in products:
        low[path] = self._adapter(path, products[path], x)
      return x if path in paths else None

    trained = _map(own)(params)
    frozen = _map(lambda path, x: None if path in paths else x)(params)
    return Trained(trained, low), frozen

  def join(self, trained: Trained, frozen: object) -> object:
    """The parameters for a loss; frozen products are Adapted."""
    products = _products(self.letters)

    def one(path, own, kept):
      if own is not None or path not in products:
        return kept if own is None else own
      a, b = trained.low.get(path, (None, None))
      return Adapted(kept, a, b, self.config.alpha / max(self.config.rank, 1))

    return _map(one)(trained.own, frozen)

  def whole(self, trained: Trained, frozen: object) -> object:
    """Plain parameters, with the adapters added to their products."""

    def one(path, own, kept):
      if path not in trained.low:
        return kept if own is None else own
      a, b = trained.low[path]
      letters = self._products()[path]
      # The side of the residual stream stays sharded: no device holds the whole sum.
      first = letters[1] == 'D'
      a = axes.shard(a, f'L{_cut(a.shape[1])}R' if first else '___')
      b = axes.shard(b, '___' if first else f'LR{_cut(b.shape[2])}')
      added = axes.shard((a @ b).reshape(kept.shape), letters)
      return kept + (added * self.config.alpha / self.config.rank).astype(kept.dtype)

    return _map(one)(trained.own, frozen)

  def _own(self):
    """Paths of the parameters that are trained directly."""
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
    products, own = _products(self.letters), self._own()
    for pattern in self.config.lora:
      if not fnmatch.filter(products, pattern):
        raise UserError(
          f'part.lora: no product is {pattern!r}: there are {", ".join(products)}'
        )
    return {
      path: letters
      for path, letters in products.items()
      if path not in own and any(fnmatch.fnmatch(path, p) for p in self.config.lora)
    }

  def _adapter(self, path, letters, w):
    """(a, b) of the product `w`: random and zero, so that their product starts at 0."""
    layers, inputs, outputs = _sizes(letters, w.shape)
    key = jax.random.fold_in(jax.random.key(self.seed), zlib.crc32(path.encode()))
    shape = (layers, inputs, self.config.rank)
    a = inputs**-0.5 * jax.random.truncated_normal(key, -3, 3, shape)
    b = jnp.zeros((layers, self.config.rank, outputs), jnp.float32)
    return axes.shard(a, f'L{_cut(inputs)}R'), axes.shard(b, f'LR{_cut(outputs)}')


def of(config: ConfigDict, letters: object, new: Sequence[str] = ()) -> Part | None:
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
  """(layers, input size, output size) of a product with letters such as 'LDNH'."""
  first = letters[1] == 'D'  # the residual stream is its input, else its output
  return shape[0], *(
    (shape[1], math.prod(shape[2:])) if first else (math.prod(shape[1:-1]), shape[-1])
  )


def _cut(n):
  """Letter of a dim of size `n`: sharded where the mesh divides it."""
  return '_' if n % axes.parts('O') else 'O'


def _map(f):
  """Maps f(path, *leaves) over trees of one structure, in which None is a leaf."""

  def run(*trees):
    one = lambda path, *leaves: f(digest.name(path), *leaves)
    empty = lambda x: x is None
    return jax.tree_util.tree_map_with_path(one, *trees, is_leaf=empty)

  return run
