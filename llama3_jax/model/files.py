"""Tensors in files, read and written one at a time: safetensors and npz (3.2)."""

import dataclasses
import json
import math
import os
import zipfile
from collections.abc import Callable
from collections.abc import Mapping
from typing import Self

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
HEADER_BYTES = 100_000_000  # the limit of the safetensors library


@dataclasses.dataclass(frozen=True)
class Tensor:
  """A tensor that is read on demand.

  Attributes:
    shape: its shape.
    dtype: its dtype.
    file: its file, for error messages.
    read: reads it; the caller may change the returned array.
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
  ) -> Self:
    """The tensor that `function` computes from this one when it is read."""
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


def short(error: Exception) -> str:
  """The message of an error, shortened to a part of one line."""
  return ' '.join(str(error).split())[:200]


def raw(x: np.ndarray) -> memoryview:
  """The bytes of a tensor in row order; copies only another layout."""
  return np.ascontiguousarray(x).reshape(-1).view(np.uint8).data


def open_safetensors(path: str) -> dict[str, Tensor]:
  """Tensors of one safetensors file by name; the header is checked.

  Tensors must follow each other without gap or overlap and fill the file, so that no
  byte is read as part of another tensor than it was written for.
  """
  header, start = _header(path)
  tensors, ends = {}, {}
  for name, entry in header.items():
    tensors[name], begin, end = _entry(path, name, entry, start)
    ends[name] = begin, end
  at = 0
  for name, (begin, end) in sorted(ends.items(), key=lambda item: item[1]):
    if begin != at:
      raise UserError(
        f'{path}: tensor {name} begins at byte {begin} of the data, the one before it '
        f'ends at {at}; the file is corrupt, get it again'
      )
    at = end
  size = os.path.getsize(path) - start
  if at != size:
    raise UserError(
      f'{path}: its tensors are {at} bytes, the file has {size}; '
      'it is cut short or corrupt, get it again'
    )
  return tensors


def _header(path: str):
  """(entries by name, offset of the data) of a safetensors file."""
  try:
    size = os.path.getsize(path)
    with open(path, 'rb') as file:
      length = int.from_bytes(file.read(8), 'little')
      if length > min(size - 8, HEADER_BYTES):
        raise ValueError
      header = json.loads(file.read(length), object_pairs_hook=_once)
    if not isinstance(header, dict) or not all(map(str.isprintable, header)):
      raise ValueError
  except (ValueError, RecursionError):
    raise UserError(f'{path}: no safetensors header; the file is corrupt, get it again')
  notes = header.pop('__metadata__', {})
  if not isinstance(notes, dict) or any(not isinstance(n, str) for n in notes.values()):
    raise UserError(f'{path}: __metadata__ is not text by name; the file is corrupt')
  return header, 8 + length


def _once(pairs):
  """A JSON object; ValueError if a name occurs twice."""
  fields = dict(pairs)
  if len(fields) != len(pairs):
    raise ValueError('a name occurs twice')
  return fields


def _entry(path: str, name: str, entry, start: int) -> tuple[Tensor, int, int]:
  """(tensor, begin, end) of one entry of a header."""
  fault = f'{path}: tensor {name} has'
  if not isinstance(entry, dict) or set(entry) != {'dtype', 'shape', 'data_offsets'}:
    raise UserError(f'{fault} not dtype, shape and data_offsets; the file is corrupt')
  kind, shape, offsets = (entry[k] for k in ('dtype', 'shape', 'data_offsets'))
  for field, values in (('shape', shape), ('data_offsets', offsets)):
    sound = isinstance(values, list) and all(
      type(n) is int and 0 <= n < 2**63 for n in values
    )
    if not sound:
      raise UserError(f'{fault} {field} {str(values)[:80]}; the file is corrupt')
  if not isinstance(kind, str) or kind not in DTYPES:
    raise UserError(
      f'{fault} dtype {str(kind)[:80]}; only {", ".join(DTYPES)} are read'
    )
  dtype = DTYPES[kind]
  nbytes = math.prod(shape) * dtype.itemsize
  if len(offsets) != 2 or offsets[1] - offsets[0] != nbytes:
    raise UserError(
      f'{fault} data_offsets {offsets}, its shape {shape} needs {nbytes} bytes; '
      'the file is corrupt'
    )
  if start + offsets[1] > os.path.getsize(path):
    raise UserError(f'{path}: tensor {name} does not fit; the file is cut short')
  if len(shape) > 8:
    raise UserError(f'{fault} {len(shape)} dims; the file is corrupt')
  shape = tuple(shape)
  read = _reader(path, start + offsets[0], shape, dtype)
  return Tensor(shape, dtype, path, read), *offsets


def write_safetensors(path: str, tensors: Mapping[str, Tensor]) -> None:
  """Writes one safetensors file, reading one tensor at a time.

  The library's own writer needs all of them in memory.
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
  except Exception as error:  # zipfile and numpy raise many kinds for a damaged file
    raise UserError(f'{path}: not a whole npz archive ({short(error)})')
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
      raise UserError(f'{path}: tensor {name} cannot be read ({short(error)})')
    return x.view(dtype) if x.dtype != dtype else x

  return read


def _reader(path: str, offset: int, shape: tuple[int, ...], dtype: np.dtype):
  return lambda: read_at(path, offset, shape, dtype)
