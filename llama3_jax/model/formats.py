"""Names, layouts and checks that the checkpoint formats share.

In files a weight is [outputs, inputs]; ours is inputs first, with heads split. Meta
and GGUF pair channels (2i, 2i+1) for RoPE; Hugging Face and we pair (i, i + H/2).
"""

import dataclasses
import hashlib
import math
import re
from collections.abc import Callable
from collections.abc import Mapping

import numpy as np

from llama3_jax import config as configuration
from llama3_jax import parameters
from llama3_jax.base import files as base_files
from llama3_jax.base.errors import UserError
from llama3_jax.config import ModelConfig
from llama3_jax.model import files
from llama3_jax.model import llama
from llama3_jax.model.files import Tensor


@dataclasses.dataclass(frozen=True)
class Format:
  """Tensor names by our leaf; `{}` is the number of the layer.

  Attributes:
    name: of the format.
    interleaved: whether RoPE pairs channels (2i, 2i+1).
    names: {our leaf: tensor name}.
    ignored: endings of the names of derived tables, which are not read.
  """

  name: str
  interleaved: bool
  names: Mapping[str, str]
  ignored: tuple[str, ...]


MAX_SIZE = 2**24  # of a dim or a count; larger than in any model

LEAVES = (
  'embed',
  'layers.attn_norm',
  'layers.wq',
  'layers.wk',
  'layers.wv',
  'layers.wo',
  'layers.ff_norm',
  'layers.w_gate',
  'layers.w_up',
  'layers.w_down',
  'norm',
  'head',
)


@dataclasses.dataclass(frozen=True)
class Weights:
  """A model that is read on demand: {(leaf, layer): tensor in our shape, without L}."""

  config: ModelConfig
  tensors: Mapping[tuple[str, int | None], Tensor]


def leaves(config: ModelConfig) -> list[tuple[str, int | None]]:
  """(leaf, layer) of every tensor of a checkpoint, layer by layer."""
  names = [n for n in LEAVES if n != 'head' or not config.tie_embeddings]
  stacked = [n for n in names if n.startswith('layers.')]
  layers = [(n, i) for i in range(config.n_layers) for n in stacked]
  rest = [(n, None) for n in names if n not in stacked]
  return rest[:1] + layers + rest[1:]


def tensor_name(form: Format, leaf: str, layer: int | None) -> str:
  """Name of a leaf of one layer in the files of a format."""
  return form.names[leaf].format(layer)


def leaf_of(form: Format, name: str) -> str | None:
  """Our leaf of a file's tensor, of any layer; None if there is none."""
  pattern = re.sub(r'\.\d+\.', '.{}.', name, count=1)
  return next((leaf for leaf, n in form.names.items() if n == pattern), None)


def letters(config: ModelConfig, leaf: str) -> str:
  """Dims of one layer's leaf, e.g. 'DNH'."""
  dims = llama.dims(config)
  return (
    getattr(dims.layers, leaf.removeprefix('layers.'))[1:]
    if leaf.startswith('layers.')
    else getattr(dims, leaf)
  )


def our_shape(config: ModelConfig, leaf: str) -> tuple[int, ...]:
  """Shape of one layer's leaf."""
  return parameters.shape(letters(config, leaf), config.sizes)


def file_shape(config: ModelConfig, leaf: str) -> tuple[int, ...]:
  """[outputs, inputs] of a weight; the embedding and norms are as ours."""
  shape = our_shape(config, leaf)
  if leaf == 'embed' or len(shape) == 1:
    return shape
  n = _inputs(leaf)
  return math.prod(shape[n:]), math.prod(shape[:n])


def from_file(
  x: np.ndarray, form: Format, leaf: str, config: ModelConfig
) -> np.ndarray:
  """A file's tensor in our shape; a view, except for interleaved q and k."""
  if leaf == 'embed' or x.ndim == 1:
    return x
  if form.interleaved and leaf in ('layers.wq', 'layers.wk'):
    pairs = x.reshape(-1, config.d_head // 2, 2, x.shape[-1])
    x = pairs.swapaxes(1, 2).reshape(x.shape)
  return x.T.reshape(our_shape(config, leaf))


def to_file(x: np.ndarray, form: Format, leaf: str, config: ModelConfig) -> np.ndarray:
  """The inverse of `from_file`."""
  if leaf == 'embed' or x.ndim == 1:
    return x
  x = x.reshape(math.prod(x.shape[: _inputs(leaf)]), -1).T
  if form.interleaved and leaf in ('layers.wq', 'layers.wk'):
    halves = x.reshape(-1, 2, config.d_head // 2, x.shape[-1])
    x = halves.swapaxes(1, 2).reshape(x.shape)
  return x


def _inputs(leaf: str) -> int:
  """Number of our leading dims that are inputs of the weight."""
  return 2 if leaf == 'layers.wo' else 1


def collect(
  config: ModelConfig, found: Mapping[str, Tensor], form: Format, path: str
) -> Weights:
  """Checks every name and shape of a checkpoint and maps it to our leaves."""
  tensors, expected = {}, {}
  if not all(map(str.isprintable, found)):
    raise UserError(f'{path}: a tensor has a name that is not text; it is corrupt')
  for leaf, layer in leaves(config):
    expected[tensor_name(form, leaf, layer)] = leaf, layer
  for name, key in expected.items():
    if name not in found:
      raise UserError(f'{path}: tensor {name} is missing')
    shape = file_shape(config, key[0])
    if found[name].shape != shape:
      raise UserError(
        f'{found[name].file}: tensor {name} is {found[name].shape}, '
        f'the config says {shape}'
      )
    tensors[key] = ours(found[name], form, key[0], config)
  tied = tensor_name(form, 'head', None) if config.tie_embeddings else None
  for name in found:
    if name not in expected and name != tied and not name.endswith(form.ignored):
      raise UserError(f'{found[name].file}: tensor {name} is not part of a Llama model')
  # A checkpoint of 16 bits was trained in bfloat16, and is computed in it.
  half = tensors['embed', None].dtype.itemsize == 2
  config = dataclasses.replace(config, dtype='bfloat16' if half else 'float32')
  return Weights(config, tensors)


def ours(t: Tensor, form: Format, leaf: str, config: ModelConfig) -> Tensor:
  """A file's tensor as our leaf, converted when it is read."""
  shape = our_shape(config, leaf)
  return t.map(lambda x: from_file(x, form, leaf, config), shape)


def theirs(weights: Weights, form: Format, key: tuple[str, int | None]) -> Tensor:
  """The inverse of `ours`: the tensor of (leaf, layer) as it is in files."""
  config, leaf = weights.config, key[0]
  shape = file_shape(config, leaf)
  return weights.tensors[key].map(lambda x: to_file(x, form, leaf, config), shape)


def digest(t: Tensor) -> bytes:
  """sha256 of a tensor's bytes; the whole tensor is read into memory."""
  return hashlib.sha256(files.raw(t.read())).digest()


Values = Mapping[str, object]  # of a JSON object


class Fields:
  """The values of a JSON object, checked for type and range.

  A fault is a ValueError that names the key; `read_config` turns it into a UserError.
  A missing or null value is the default, where there is one.
  """

  def __init__(self, values: Values) -> None:
    self.values = values

  def size(self, key: str, default: int | None = None) -> int:
    """A whole number from 1 to MAX_SIZE, such as a dim of an array."""
    value = self._get(key, default)
    if type(value) is float and value == int(min(max(value, 0), MAX_SIZE)):
      value = int(value)  # some writers write 1.0
    if type(value) is not int or not 1 <= value <= MAX_SIZE:
      self._refuse(key, value, f'a whole number from 1 to {MAX_SIZE}')
    return value

  def number(self, key: str, default: float | None = None) -> float:
    """A finite number above 0."""
    value = self._get(key, default)
    if type(value) not in (int, float) or not 0 < value < 1e30:
      self._refuse(key, value, 'a number above 0')
    return float(value)

  def flag(self, key: str, default: bool) -> bool:
    """True or false."""
    value = self._get(key, default)
    if not isinstance(value, bool):
      self._refuse(key, value, 'true or false')
    return value

  def object(self, *keys: str) -> Values:
    """The first object of `keys` that is not empty; an empty one if all are."""
    for key in keys:
      value = self.values.get(key)
      if value is not None and not isinstance(value, dict):
        self._refuse(key, value, 'an object')
      if value:
        return value
    return {}

  def _get(self, key, default):
    value = self.values.get(key)
    if value is None and default is None:
      raise KeyError(key)
    return default if value is None else value

  def _refuse(self, key, value, expected):
    raise ValueError(f'{key} is {str(value)[:60]!r}; it must be {expected}')


def read_json(path: str) -> dict[str, object]:
  """The JSON object in a file; UserError where there is none."""
  try:
    values = base_files.read_json(path)
  except RecursionError:
    raise UserError(f'{path}: nested too deeply for a config')
  if not isinstance(values, dict):
    raise UserError(f'{path}: not a JSON object')
  return values


def read_config(path: str, read: Callable[[], ModelConfig]) -> ModelConfig:
  """The ModelConfig that `read` returns; a fault is a UserError that names `path`."""
  try:
    return configuration.checked(read())
  except KeyError as error:
    raise UserError(f'{path}: field {error} is missing')
  except (TypeError, ValueError, ArithmeticError, UserError) as error:
    message = str(error)
    raise UserError(message if path in message else f'{path}: {message}')


def without(values: Values, path: str, plain: Values) -> None:
  """Raises UserError for the first field whose value is not that of `plain`, or null.

  `plain` has the values of fields with which a model is Llama 3's.
  """
  for field, expected in plain.items():
    value = values.get(field)
    if value is not None and value != expected:
      raise UserError(
        f'{path}: {field} is {str(value)[:60]!r}; only {expected!r} is read'
      )
