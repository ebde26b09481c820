"""Weights in and out: Meta, Hugging Face, GGUF and npz checkpoints (3.2).

A tensor is read when it is needed and then dropped: a conversion from file to file
holds one tensor at a time, whatever the size of the model.
"""

import dataclasses
import math
import os
import pathlib
import shutil

import jax
import numpy as np

from llama3_jax.base.errors import UserError
from llama3_jax.config import ModelConfig
from llama3_jax.model import files
from llama3_jax.model import formats
from llama3_jax.model import gguf_in
from llama3_jax.model import gguf_out
from llama3_jax.model import hf
from llama3_jax.model import llama
from llama3_jax.model import meta
from llama3_jax.model.files import Tensor
from llama3_jax.model.formats import Weights
from llama3_jax.text import store
from llama3_jax.text.library import Library
from llama3_jax.text.tokenizer import Tokenizer

SHARD_BYTES = 5 * 10**9  # of a Hugging Face file, as its own writer splits


def open_checkpoint(
  path: str, form: str = 'auto', params_json: str | None = None
) -> Weights:
  """Opens a checkpoint; reads headers, and in Meta's format the embedding and output
  (only their equality says that they are tied).

  Args:
    path: a folder (Meta, Hugging Face) or a file (.gguf, .npz with Meta's names).
    form: 'auto', 'meta', 'hf', 'gguf' or 'npz'.
    params_json: Meta's params.json, if it is not beside the weights.

  Raises:
    UserError: missing file; a tensor that is missing, unexpected or of a wrong
      shape (names tensor and file).
  """
  if not os.path.exists(path):
    raise UserError(f'source {path}: no such file or folder')
  form = detect(path) if form == 'auto' else form
  try:
    if form == 'hf':
      return hf.open_checkpoint(path)
    if form == 'gguf':
      return gguf_in.open_checkpoint(path)
    if form in ('meta', 'npz'):
      return meta.open_checkpoint(path, form, params_json)
  except OSError as error:
    raise UserError(f'source {error.filename or path}: {error.strerror}')
  raise UserError(f'source_format={form}: use auto, meta, hf, gguf or npz')


def detect(path: str) -> str:
  """Format of a checkpoint, by the names of its files."""
  p = pathlib.Path(path)
  if p.suffix in ('.gguf', '.npz'):
    return p.suffix[1:]
  if p.is_dir() and any(p.glob('consolidated.*.pth')):
    return 'meta'
  if p.is_dir() and any(p.glob('*.safetensors*')):
    return 'hf'
  raise UserError(
    f'source {path}: no consolidated.*.pth, no *.safetensors, and not a .gguf or .npz'
  )


def from_params(params: llama.Params, config: ModelConfig) -> Weights:
  """Weights of parameters in memory; a leaf is fetched when it is written."""

  def tensor(leaf, layer):
    x = _leaf(params, leaf)
    shape = formats.our_shape(config, leaf)
    read = (lambda: np.asarray(x)) if layer is None else (lambda: np.asarray(x[layer]))
    return Tensor(shape, np.dtype(x.dtype), leaf, read)

  return Weights(config, {key: tensor(*key) for key in formats.leaves(config)})


def load(weights: Weights, abstract: llama.Params | None = None) -> llama.Params:
  """Parameters from files, leaf by leaf.

  Args:
    weights: an open checkpoint.
    abstract: `llama.abstract(config, dtype, mesh)`: the dtype of every leaf and,
      with a mesh, its sharding; each process then keeps its own parts only. Without
      it leaves are float32 on the default device.

  Peak memory on the host: the local part of one stacked leaf and one tensor.
  """
  config = weights.config
  abstract = abstract or llama.abstract(config)
  if (abstract.head is None) != config.tie_embeddings:
    raise UserError(
      f'the checkpoint has tie_embeddings={config.tie_embeddings}, the model config '
      f'{abstract.head is None}: set model.tie_embeddings'
    )

  def fill(path, target):
    leaf = '.'.join(p.name for p in path)
    stacked = leaf.startswith('layers.')
    layers = range(config.n_layers) if stacked else [None]
    tensors = [weights.tensors[leaf, layer] for layer in layers]
    shape = (len(tensors),) * stacked + tensors[0].shape
    if shape != target.shape:
      raise UserError(
        f'{tensors[0].file}: {leaf} is {shape}, the model config says {target.shape}'
      )
    return _place(tensors, target, stacked)

  return jax.tree_util.tree_map_with_path(fill, abstract)


def _place(tensors: list[Tensor], target: jax.ShapeDtypeStruct, stacked: bool):
  """One leaf on its devices: every tensor is read once, each device gets its part."""
  sharding = target.sharding or jax.sharding.SingleDeviceSharding(jax.devices()[0])
  parts = sharding.addressable_devices_indices_map(target.shape)
  # Devices that hold the same part share a buffer.
  buffers = {}
  for index in parts.values():
    if repr(index) not in buffers:
      shape = [len(range(*s.indices(n))) for s, n in zip(index, target.shape)]
      buffers[repr(index)] = index, np.empty(shape, target.dtype)
  for layer, tensor in enumerate(tensors):
    x = tensor.read()
    for index, buffer in buffers.values():
      if stacked:
        rows = range(*index[0].indices(len(tensors)))
        if layer in rows:
          buffer[layer - rows.start] = x[index[1:]]
      else:
        buffer[...] = x[index]
  local = [jax.device_put(buffers[repr(i)][1], device) for device, i in parts.items()]
  return jax.make_array_from_single_device_arrays(target.shape, sharding, local)


def write(
  weights: Weights,
  path: str,
  form: str,
  dtype: str | None = None,
  shards: int = 1,
  shard_bytes: int = SHARD_BYTES,
  tokenizer: Tokenizer | Library | None = None,
  length: int = 0,
) -> dict[str, int]:
  """Writes a checkpoint folder, complete or not at all.

  Peak memory: the largest tensor and, of one tensor at a time, the part that is being
  joined from files, permuted or cast.

  Args:
    weights: what to write.
    path: folder that does not exist yet.
    form: 'meta', 'hf' or 'gguf' (a file model.gguf in the folder).
    dtype: of the tensors: 'bfloat16', 'float16', 'float32'; None keeps each.
    shards: tensor-parallel files of the Meta format.
    shard_bytes: largest size of a file of the Hugging Face format.
    tokenizer: that of the model; its files are written too.
    length: of the rows the model was trained on, tokens; 0 if unknown.

  Returns:
    {'files', 'tensors', 'parameters', 'bytes'} that were written.
  """
  _writable(weights, path, form)
  if dtype is not None:
    weights = _cast(weights, dtype)
  partial = f'{os.fspath(path).rstrip("/")}.partial'
  try:
    shutil.rmtree(partial, ignore_errors=True)
    os.makedirs(partial)
    if form == 'meta':
      written = meta.write(weights, partial, shards)
      if tokenizer is not None:
        store.write(tokenizer, partial)
    elif form == 'gguf':
      name = os.path.join(partial, 'model.gguf')
      written = gguf_out.write(weights, name, tokenizer, length)
    else:
      written = hf.write(weights, partial, shard_bytes, tokenizer, length)
    os.replace(partial, path)
  except OSError as error:
    raise UserError(f'target {path}: {error.strerror}; nothing was written there')
  finally:
    shutil.rmtree(partial, ignore_errors=True)
  tensors = [t for file in written for t in file.values()]
  sizes = [math.prod(t.shape) for t in tensors]
  return dict(
    files=len(written),
    tensors=len(tensors),
    parameters=sum(sizes),
    bytes=sum(n * t.dtype.itemsize for n, t in zip(sizes, tensors)),
  )


def _writable(weights, path, form):
  """Raises UserError where the model or the target cannot be written."""
  if form not in ('meta', 'hf', 'gguf'):
    raise UserError(f'target_format={form}: use meta, hf or gguf')
  if weights.config.window:
    raise UserError(
      f'the model sees {weights.config.window} positions (model.window), which a '
      f'Llama of format {form} cannot say: keep it as target_format=run'
    )
  if os.path.exists(path):
    raise UserError(f'target {path} exists: remove it or name another folder')


def _cast(weights: Weights, dtype: str) -> Weights:
  known = {str(d): d for d in files.DTYPES.values()}
  if dtype not in known:
    raise UserError(f'dtype={dtype}: use one of {", ".join(known)}')
  kind = known[dtype]

  def cast(key, t):
    name = key[0] if key[1] is None else f'{key[0]} of layer {key[1]}'
    name = name if t.file == key[0] else f'{t.file}: {name}'  # else it is in memory
    return t.map(lambda x: _cast_one(x, kind, name), t.shape, kind)

  tensors = {key: cast(key, t) for key, t in weights.tensors.items()}
  return dataclasses.replace(weights, tensors=tensors)


def _cast_one(x: np.ndarray, kind: np.dtype, name: str) -> np.ndarray:
  """`x` as `kind`; UserError where a number is too large for `kind`."""
  with np.errstate(over='ignore'):
    y = x.astype(kind, copy=False)
  if kind.itemsize == x.dtype.itemsize == 4 or kind == x.dtype:
    return y
  step = max(1, 2**17 * len(x) // max(x.size, 1))  # rows: masks stay small
  for i in range(0, len(x), step):
    lost = np.isinf(y[i : i + step]) & ~np.isinf(x[i : i + step])
    if lost.any():
      value = float(x[i : i + step][lost][0])
      raise UserError(
        f'{name} holds {value:g}, which {kind} cannot: use --config.dtype=bfloat16 '
        'or float32'
      )
  return y


def _leaf(params: llama.Params, leaf: str) -> jax.Array:
  owner = params.layers if leaf.startswith('layers.') else params
  return getattr(owner, leaf.removeprefix('layers.'))
