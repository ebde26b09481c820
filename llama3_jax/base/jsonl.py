"""The one reader of JSONL: every fault is one line with file, line and way out."""

import contextlib
import gzip
import io
import json
import pathlib
import zlib
from collections.abc import Iterator

import zstandard

from llama3_jax.base.errors import UserError

BOM = b'\xef\xbb\xbf'


def read(path, field: str) -> Iterator[tuple[str, dict]]:
  """Yields (where, row) of every line that is not blank: `where` is 'FILE, line N'.

  Args:
    path: a .jsonl file, also .gz or .zst; a byte order mark at its start is skipped.
    field: config field that named the file, for the errors.

  Raises:
    UserError: no such file, a folder, cut short, a line that is no UTF-8, no JSON, or
      no object; a number that is not finite.
  """
  for where, line in lines(path, field):
    yield where, parse(line, where)


def lines(path, field: str) -> Iterator[tuple[str, bytes]]:
  """(where, bytes) of every line that is not blank."""
  path = pathlib.Path(path)
  if path.is_dir():
    raise UserError(f"{field}: {path} is a folder: write '{path}/*.jsonl'")
  number = 0
  try:
    with _open(path) as file:
      for number, line in enumerate(file, 1):
        line = line.removeprefix(BOM) if number == 1 else line
        if line.strip():
          yield f'{path}, line {number}', line
  except FileNotFoundError:
    raise UserError(f'{field}: {path} does not exist: name a JSONL file') from None
  except (OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
    reason = getattr(error, 'strerror', None) or str(error) or 'cut short'
    raise UserError(
      f'{path}: unreadable after line {number} ({reason}): get the whole file'
    ) from None


def parse(line: bytes | str, where: str) -> dict:
  """The object of one line; UserError that opens with `where`."""
  try:
    text = line if isinstance(line, str) else line.decode('utf-8')
    row = json.loads(text, parse_constant=_constant)
  except UnicodeDecodeError as error:
    raise UserError(
      f'{where}: byte {error.start + 1} is not UTF-8 ({error.reason}): write the file '
      'in UTF-8'
    ) from None
  except RecursionError:
    raise UserError(f'{where}: nested too deep for JSON: remove the line') from None
  except ValueError as error:
    raise UserError(f'{where}: not JSON ({error}): repair or remove it') from None
  if not isinstance(row, dict):
    raise UserError(
      f'{where}: a {kind(row)}, not an object: each line is {{"field": value, ...}}'
    )
  return row


def kind(value) -> str:
  """What JSON calls a value: null, boolean, number, text, list or object."""
  names = {bool: 'boolean', int: 'number', float: 'number', str: 'text', list: 'list'}
  return 'null' if value is None else names.get(type(value), 'object')


def text(row: dict, name: str, where: str, default: str | None = None) -> str:
  """The text in a field; UserError when it is missing (no default) or is no text."""
  value = row.get(name, default)
  if not isinstance(value, str):
    what = 'is missing' if name not in row else f'is a {kind(value)}, not text'
    raise UserError(f'{where}: field {name!r} {what}')
  return value


def _constant(name):
  raise ValueError(f'{name} is no number of JSON')


@contextlib.contextmanager
def _open(path):
  """Lines of bytes; a frame of zstd that ends early raises EOFError."""
  if path.suffix == '.gz':
    with gzip.open(path, 'rb') as file:
      yield file
  elif path.suffix == '.zst':
    with open(path, 'rb') as file:
      yield io.BufferedReader(Frames(file))
  else:
    with open(path, 'rb') as file:
      yield file


class Frames(io.RawIOBase):
  """The bytes of all zstd frames of a file; EOFError where the last one is cut."""

  def __init__(self, file, size: int = 1 << 17):
    self._file, self._size = file, size
    self._frame, self._rest, self._ready, self._whole = None, b'', b'', True

  def readable(self):
    return True

  def readinto(self, buffer):
    while not self._ready:
      chunk = self._rest or self._file.read(self._size)
      self._rest = b''
      if not chunk:
        if not self._whole:
          raise EOFError('the zstd frame is cut short')
        return 0
      if self._whole:
        self._frame, self._whole = zstandard.ZstdDecompressor().decompressobj(), False
      self._ready = self._frame.decompress(chunk)
      if self._frame.eof:
        self._rest, self._whole = self._frame.unused_data, True
    n = min(len(buffer), len(self._ready))
    buffer[:n], self._ready = self._ready[:n], self._ready[n:]
    return n
