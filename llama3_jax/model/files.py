"""Tensors in files, read and written one at a time: safetensors and npz (3.2)."""

import dataclasses
import json
import math
import os
import zipfile
from collections.abc import Callable
from collections.abc import Mapping

import ml_dtypes
import numpy as np

from llama3_jax.base.errors import UserError

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
# Names in safetensors. Other dtypes are quantised weights that need their own reader.
DTYPES = {
  'F32': np.dtype(np.float32),
  'BF16': BFLOAT16,
  'F16': np.dtype(np.float16),
}


@dataclasses.dataclass(frozen=True)
class Tensor:
  """A tensor that is not yet read.

  Attributes:
    shape: its shape.
    dtype: its dtype.
    file: where it is, for messages.
    read: reads it; what it returns belongs to the caller.
  """

  shape: tuple[int, ...]
  dtype: np.dtype
  file: str
  read: Callable[[], np.ndarray]

  def map(
    self,
    function: Callable[[np.ndarray], np.ndarray],
    shape: tuple[int, ...],
    dtype: np.dtype | None = None,
  ) -> 'Tensor':
    """The tensor that `function` makes of this one when it is read."""
    dtype = np.dtype(dtype or self.dtype)
    return Tensor(shape, dtype, self.file, lambda: function(self.read()))


def read_at(
  path: str, offset: int, shape: tuple[int, ...], dtype: np.dtype
) -> np.ndarray:
  """A contiguous tensor at a byte offset of a file.

  Read, not memory-mapped: mapped pages stay in the process until the system needs
  them, and a conversion would seem to hold the whole file.
  """
  x = np.empty(shape, dtype)
  with open(path, 'rb') as file:
    file.seek(offset)
    n = file.readinto(x.reshape(-1).view(np.uint8).data) if x.size else 0
  if n != x.nbytes:
    raise UserError(f'{path}: ends inside a tensor; the file is cut short')
  return x


def raw(x: np.ndarray) -> memoryview:
  """The bytes of a tensor in row order; copies only if they lie otherwise."""
  return np.ascontiguousarray(x).reshape(-1).view(np.uint8).data


def open_safetensors(path: str) -> dict[str, Tensor]:
  """Tensors of one safetensors file by name."""
  size = os.path.getsize(path)
  try:
    with open(path, 'rb') as file:
      length = int.from_bytes(file.read(8), 'little')
      if length > size:
        raise ValueError
      header = json.loads(file.read(length))
    header.pop('__metadata__', None)
    entries = {
      name: (e['dtype'], tuple(e['shape']), *e['data_offsets'])
      for name, e in header.items()
    }
  except (ValueError, KeyError, TypeError, AttributeError):
    raise UserError(f'{path}: no safetensors header; the file is corrupt, get it again')
  tensors = {}
  for name, (dtype, shape, begin, end) in entries.items():
    if dtype not in DTYPES:
      raise UserError(
        f'{path}: tensor {name} has dtype {dtype}; only {", ".join(DTYPES)} are read'
      )
    dtype, start = DTYPES[dtype], 8 + length
    if end - begin != math.prod(shape) * dtype.itemsize or start + end > size:
      raise UserError(f'{path}: tensor {name} does not fit; the file is cut short')
    read = _reader(path, start + begin, shape, dtype)
    tensors[name] = Tensor(shape, dtype, path, read)
  return tensors


def write_safetensors(path: str, tensors: Mapping[str, Tensor]) -> None:
  """Writes one safetensors file, each tensor read when its turn comes.

  The library's own writer takes all of them at once.
  """
  names = {dtype: name for name, dtype in DTYPES.items()}
  header, offset = {'__metadata__': {'format': 'pt'}}, 0
  for name, t in tensors.items():
    end = offset + math.prod(t.shape) * t.dtype.itemsize
    header[name] = {
      'dtype': names[t.dtype],
      'shape': list(t.shape),
      'data_offsets': [offset, end],
    }
    offset = end
  text = json.dumps(header).encode()
  text += b' ' * (-len(text) % 8)  # aligns the data
  with open(path, 'wb') as file:
    file.write(len(text).to_bytes(8, 'little') + text)
    for t in tensors.values():
      file.write(raw(t.read()))


def open_npz(path: str) -> dict[str, Tensor]:
  """Tensors of an npz archive by name; 2-byte void is bfloat16, as numpy saves it."""
  tensors = {}
  try:
    with zipfile.ZipFile(path) as archive:
      for entry in archive.namelist():
        name = entry.removesuffix('.npy')
        with archive.open(entry) as file:
          shape, _, dtype = _npy_header(file)
        dtype = BFLOAT16 if dtype == np.dtype('V2') else dtype
        if dtype not in DTYPES.values():
          raise UserError(f'{path}: tensor {name} has dtype {dtype}, not a float')
        tensors[name] = Tensor(shape, dtype, path, _npz_reader(path, name, dtype))
  except UserError:
    raise
  except Exception as error:  # zipfile and numpy raise many kinds on a harmed file
    raise UserError(f'{path}: not a whole npz archive ({error})')
  return tensors


def _npy_header(file):
  version = np.lib.format.read_magic(file)
  if version == (1, 0):
    return np.lib.format.read_array_header_1_0(file)
  return np.lib.format.read_array_header_2_0(file)


def _npz_reader(path: str, name: str, dtype: np.dtype) -> Callable[[], np.ndarray]:
  def read():
    try:
      with np.load(path, allow_pickle=False) as archive:
        x = archive[name]
    except Exception as error:  # as above
      raise UserError(f'{path}: tensor {name} cannot be read ({error})')
    return x.view(dtype) if x.dtype != dtype else x

  return read


def _reader(path: str, offset: int, shape: tuple[int, ...], dtype: np.dtype):
  return lambda: read_at(path, offset, shape, dtype)
