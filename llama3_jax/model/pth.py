"""PyTorch's zip checkpoints without PyTorch, read and written tensor by tensor.

A `.pth` is an uncompressed zip: `data.pkl`, a pickled dict of tensors whose storages
are named by persistent ids, and `data/<key>`, the raw storages. The pickle is read
with only the names that a dict of tensors needs; any other name is refused.
"""

import collections
import dataclasses
import io
import math
import os
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Mapping

import numpy as np

from llama3_jax.base.errors import UserError
from llama3_jax.model import files

STORAGES = {
  'FloatStorage': np.dtype(np.float32),
  'BFloat16Storage': files.BFLOAT16,
  'HalfStorage': np.dtype(np.float16),
  # RoPE tables and counters that some files have: listed, but not read.
  'DoubleStorage': np.dtype(np.float64),
  'LongStorage': np.dtype(np.int64),
  'IntStorage': np.dtype(np.int32),
  'BoolStorage': np.dtype(np.bool_),
}
INDEX_BYTES = 64 * 2**20  # of data.pkl; the 405B's has under 1 MiB
ALIGNMENT = 64  # of storages in the file, as torch writes them


@dataclasses.dataclass(frozen=True)
class _Storage:
  dtype: np.dtype
  key: str
  size: int


@dataclasses.dataclass(frozen=True)
class _View:
  """One tensor as the pickle describes it."""

  storage: _Storage
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]


def _rebuild(storage, offset, shape, strides, *unused):
  return _View(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(view, *unused):
  return view


_ALLOWED = {
  ('torch._utils', '_rebuild_tensor_v2'): _rebuild,
  ('torch._utils', '_rebuild_parameter'): _rebuild_parameter,
  ('collections', 'OrderedDict'): collections.OrderedDict,
  **{('torch', name): dtype for name, dtype in STORAGES.items()},
}


class _Unpickler(pickle.Unpickler):
  """Unpickles dicts of tensors and nothing else: no other name can be called."""

  def find_class(self, module, name):
    if (module, name) not in _ALLOWED:
      raise pickle.UnpicklingError(f'it names {module}.{name}, which is not a tensor')
    return _ALLOWED[module, name]

  def persistent_load(self, saved):
    kind, dtype, key, _, size = saved
    if kind != 'storage' or not isinstance(dtype, np.dtype):
      raise pickle.UnpicklingError('it holds an unknown storage')
    return _Storage(dtype, str(key), int(size))


def open_pth(path: str) -> dict[str, files.Tensor]:
  """Tensors of one .pth file by name, read on demand.

  Raises:
    UserError: not a .pth file, a truncated one, or one that would run code.
  """
  try:
    with zipfile.ZipFile(path) as archive:
      entries = {entry.filename: entry for entry in archive.infolist()}
      index = next(name for name in entries if name.endswith('data.pkl'))
      state = _Unpickler(io.BytesIO(_index(archive, entries[index]))).load()
  except (zipfile.BadZipFile, StopIteration):
    raise UserError(
      f'{path}: not a whole PyTorch zip checkpoint; fetch it again (files from before '
      'PyTorch 1.6 must be saved anew)'
    )
  except Exception as error:  # a hostile or truncated pickle may raise any kind
    raise UserError(f'{path}: refused: {files.short(error)}')
  folder = index.removesuffix('data.pkl')
  tensors = {}
  for name, view in state.items() if isinstance(state, dict) else ():
    if isinstance(view, _View):
      named = isinstance(name, str) and name.isprintable()
      if not named or not isinstance(view.storage, _Storage):
        raise UserError(f'{path}: refused: a tensor without a name or a storage')
      tensors[name] = _tensor(path, name, view, entries, folder)
  if not tensors:
    raise UserError(f'{path}: holds no dict of tensors')
  return tensors


def _index(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
  """The pickle of an archive; refused before it, or its memo, takes much memory."""
  if entry.file_size > INDEX_BYTES:
    raise ValueError(f'data.pkl has {entry.file_size} bytes, a dict of tensors fewer')
  with archive.open(entry) as file:
    data = file.read(INDEX_BYTES + 1)
  if len(data) > INDEX_BYTES or len(data) != entry.file_size:
    raise ValueError('data.pkl has another size than the archive says')
  # Python's unpickler allocates its memo up to the index that an opcode names.
  for code, argument, _ in pickletools.genops(data):
    if code.name in ('PUT', 'BINPUT', 'LONG_BINPUT') and int(argument) > len(data):
      raise ValueError(f'data.pkl keeps an object as number {argument}')
    if code.name in ('FRAME',) and argument > len(data):
      raise ValueError('data.pkl has a frame longer than itself')
  return data


def _tensor(path: str, name: str, view: _View, entries, folder: str) -> files.Tensor:
  entry = entries.get(f'{folder}data/{view.storage.key}')
  dtype, shape, strides = view.storage.dtype, view.shape, view.strides
  size = last = 0
  numbers = (view.offset, *shape, *strides)
  sound = (
    entry is not None
    and entry.compress_type == zipfile.ZIP_STORED
    and len(shape) == len(strides) <= 8
    and all(type(n) is int and 0 <= n < 2**62 for n in numbers)
  )
  if sound:
    size = math.prod(shape)
    last = view.offset + sum((n - 1) * s for n, s in zip(shape, strides))
    sound = size == 0 or (last + 1) * dtype.itemsize <= entry.file_size
  if not sound:
    raise UserError(f'{path}: tensor {name} lies outside its storage; file is corrupt')

  def read():
    start = _data_offset(path, entry) + view.offset * dtype.itemsize
    if strides == _row_strides(shape) or size == 0:
      return files.read_at(path, start, shape, dtype)
    x = files.read_at(path, start, (last + 1 - view.offset,), dtype)
    steps = [s * dtype.itemsize for s in strides]
    return np.lib.stride_tricks.as_strided(x, shape, steps, writeable=False)

  return files.Tensor(shape, dtype, path, read)


def _data_offset(path: str, entry: zipfile.ZipInfo) -> int:
  """Offset of an entry's data; its local header has lengths of its own."""
  with open(path, 'rb') as file:
    file.seek(entry.header_offset + 26)
    lengths = file.read(4)
  if len(lengths) < 4:
    raise UserError(f'{path}: ends inside a header; the file is cut short')
  name, extra = struct.unpack('<HH', lengths)
  return entry.header_offset + 30 + name + extra


def write_pth(path: str, tensors: Mapping[str, files.Tensor]) -> None:
  """Writes a dict of tensors as torch.save would, reading one at a time."""
  names = {dtype: name for name, dtype in STORAGES.items()}
  folder = os.path.basename(path).removesuffix('.pth')
  body = []
  for i, (name, t) in enumerate(tensors.items()):
    body += [_text(name), _pickled(t, names[t.dtype], str(i))]
  index = b'\x80\x02}(' + b''.join(body) + b'u.'
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_STORED) as archive:
    _write_entry(archive, f'{folder}/data.pkl', index)
    _write_entry(archive, f'{folder}/byteorder', b'little')
    for i, t in enumerate(tensors.values()):
      size = math.prod(t.shape) * t.dtype.itemsize
      with _open_entry(archive, f'{folder}/data/{i}', size) as file:
        file.write(files.raw(t.read()))
    _write_entry(archive, f'{folder}/version', b'3\n')


def _write_entry(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
  # A new ZipInfo has a fixed date, so that the same tensors give the same file.
  archive.writestr(zipfile.ZipInfo(name), data)


def _open_entry(archive: zipfile.ZipFile, name: str, size: int):
  entry = zipfile.ZipInfo(name)
  entry.file_size = size
  large = size > 2**31 - 1
  begin = archive.fp.tell() + 30 + len(name) + (20 if large else 0)
  pad = -(begin + 4) % ALIGNMENT
  entry.extra = struct.pack('<HH', 0x4246, pad) + b'Z' * pad  # torch's own tag, FB
  return archive.open(entry, 'w', force_zip64=large)


# The opcodes of pickle protocol 2, written by hand: the pickler of the library imports
# the names that it writes, and torch may not be installed.


def _text(s: str) -> bytes:
  data = s.encode()
  return b'X' + struct.pack('<I', len(data)) + data


def _integer(n: int) -> bytes:
  if n < 2**31:
    return b'J' + struct.pack('<i', n)
  data = n.to_bytes(n.bit_length() // 8 + 1, 'little')
  return b'\x8a' + bytes([len(data)]) + data


def _tuple(*items: bytes) -> bytes:
  return b'(' + b''.join(items) + b't'


def _pickled(t: files.Tensor, storage: str, key: str) -> bytes:
  """_rebuild_tensor_v2(storage, offset, shape, strides, False, OrderedDict())."""
  size = _integer(math.prod(t.shape))
  saved = _tuple(
    _text('storage'), b'ctorch\n%s\n' % storage.encode(), _text(key), _text('cpu'), size
  )
  shape = _tuple(*map(_integer, t.shape))
  strides = _tuple(*map(_integer, _row_strides(t.shape)))
  hooks = b'ccollections\nOrderedDict\n)R'
  arguments = _tuple(saved + b'Q', _integer(0), shape, strides, b'\x89', hooks)
  return b'ctorch._utils\n_rebuild_tensor_v2\n' + arguments + b'R'


def _row_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
  strides = [1]
  for n in reversed(shape[1:]):
    strides.append(strides[-1] * n)
  return tuple(reversed(strides)) if shape else ()
