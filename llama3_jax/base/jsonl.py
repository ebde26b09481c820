"""The reader of all JSONL files: an error names the file, the line and a remedy."""

import contextlib
import difflib
import functools
import gzip
import io
import json
import os
import pathlib
import typing
import zlib
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence

import zstandard
from absl import logging

from llama3_jax.base import files
from llama3_jax.base.errors import UserError

BOM = b'\xef\xbb\xbf'


def read(
  path: str | os.PathLike,
  field: str,
  empty: bool = False,
  bad: Callable[[UserError], None] | None = None,
) -> Iterator[tuple[str, dict]]:
  """Yields (where, row) of every line that is not blank: `where` is 'FILE, line N'.

  Args:
    path: a .jsonl file, also .gz or .zst; a byte order mark at its start is skipped.
    field: config field that named the file, for the errors.
    empty: accept a file without lines.
    bad: is called with the error of a bad line, which is left out; None: it raises.

  Raises:
    UserError: the file is missing, a folder, truncated or empty; or a line is not
      UTF-8, not JSON or not an object, or has a field twice or a number not finite.
  """
  where = None
  for where, line in lines(path, field):
    try:
      row = parse(line, where)
    except UserError as error:
      if bad is None:
        raise
      bad(error)
      continue
    yield where, row
  if where is None and not empty:
    raise UserError(f'{field}: {path} holds no rows: give one with a row a line')


def lines(path: str | os.PathLike, field: str) -> Iterator[tuple[str, bytes]]:
  """Yields (where, bytes) of every line that is not blank."""
  path = pathlib.Path(path)
  if path.is_dir():
    raise UserError(f"{field}: {path} is a folder: write '{path}/*.jsonl'")
  number = 0
  try:
    with opened(path) as file:
      for number, line in enumerate(file, 1):
        line = line.removeprefix(BOM) if number == 1 else line
        if line.strip():
          yield f'{path}, line {number}', line
  except FileNotFoundError:
    raise UserError(f'{field}: {path} does not exist') from None
  except (OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
    reason = getattr(error, 'strerror', None) or str(error) or 'cut short'
    raise UserError(
      f'{path}: unreadable after line {number} ({reason}): get the whole file'
    ) from None


def documents(path: str | os.PathLike, field: str) -> Iterator[dict]:
  """Yields the rows of a file of documents, each with its `text`; it may be empty."""
  for where, row in read(path, field, empty=True):
    text(row, 'text', where)
    yield row


def parse(line: bytes | str, where: str, finite: bool = True) -> dict:
  """The object of one line; a UserError begins with `where`.

  finite: refuse NaN and Infinity, which JSON does not have and pandas writes.
  """
  try:
    text = line if isinstance(line, str) else line.decode('utf-8')
    constant = _constant if finite else None
    row = json.loads(text, parse_constant=constant, object_pairs_hook=_once)
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


def kind(value: object) -> str:
  """JSON's name of a value's type: null, boolean, number, text, list or object."""
  names = {bool: 'boolean', int: 'number', float: 'number', str: 'text', list: 'list'}
  return 'null' if value is None else names.get(type(value), 'object')


def text(row: dict, name: str, where: str, default: str | None = None) -> str:
  """The text in a field; UserError if it is missing (no default) or not a text."""
  value = row.get(name, default)
  if not isinstance(value, str):
    what = 'is missing' if name not in row else f'is a {kind(value)}, not text'
    raise UserError(f'{where}: field {name!r} {what}')
  return value


def known(row: dict, names: Sequence[str], where: str) -> None:
  """Warns of every field of a row that is not in `names`, once a file.

  Raises UserError for a field that looks like a misspelling of a field in `names`.
  """
  for name in row:
    if name in names:
      continue
    if near := difflib.get_close_matches(name, [n for n in names if n not in row], 1):
      raise UserError(f'{where}: field {name!r} is unknown: is it {near[0]!r}?')
    _unused(name, ', '.join(names), where.rpartition(', line ')[0] or where)


@functools.cache
def _unused(name, names, file):
  logging.warning('%s: field %r is not used; used are %s', file, name, names)


def _once(pairs):
  row = dict(pairs)
  if len(row) < len(pairs):
    names = [name for name, _ in pairs]
    twice = next(name for name in row if names.count(name) > 1)
    raise ValueError(f'field {twice!r} is there twice')
  return row


def _constant(name):
  raise ValueError(f'{name} is no number of JSON')


@contextlib.contextmanager
def opened(path: pathlib.Path) -> Iterator[typing.BinaryIO]:
  """A file of bytes, decompressed; a truncated zstd frame raises EOFError."""
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
  """The decompressed bytes of all zstd frames of a file, as many as a read requests.

  After the last whole byte it raises EOFError for a truncated frame, and ZstdError for
  data that is not a frame.
  """

  def __init__(self, file: typing.BinaryIO) -> None:
    self._walk = _Walk(file)
    reader = zstandard.ZstdDecompressor().stream_reader(
      self._walk, read_across_frames=True
    )
    self._reader = reader

  def readable(self) -> bool:
    return True

  def readinto(self, buffer: bytearray | memoryview) -> int:
    n = self._reader.readinto(buffer)
    if not n and self._walk.garbage:
      raise zstandard.ZstdError('what follows the last frame is no frame of zstd')
    if not n and not self._walk.whole:
      raise EOFError('the zstd frame is cut short')
    return n


class _Walk:
  """A zstd file that tracks where frames end, and stops before data that is no frame.

  The library reports the same end of file after a frame and inside one. The
  format is RFC 8878, 3.1.1: a frame is a header and blocks, each with its size.
  """

  MAGIC, SKIPPABLE = 0xFD2FB528, 0x184D2A50

  def __init__(self, file):
    self._file, self._kept, self._held, self._skip = file, b'', b'', 0
    self._state, self._need, self._sum = 'magic', 4, 0
    self.garbage = False

  @property
  def whole(self):
    return self._state == 'magic' and not self._held and not self._skip

  def read(self, size=-1):
    while not self.garbage and (data := self._file.read(size)):
      end = self._walk(data)
      ready = (self._kept + data)[: len(self._kept) + end]
      # A magic number is passed on only once it is known to be valid.
      self._kept = self._held if self._state == 'magic' else b''
      ready = ready[: len(ready) - len(self._kept)]
      if ready:
        return ready
    return b''

  def _walk(self, data):
    """Number of the bytes that belong to frames."""
    at = 0
    while at < len(data):
      if self._skip:
        step = min(self._skip, len(data) - at)
        self._skip, at = self._skip - step, at + step
        continue
      part = data[at : at + self._need - len(self._held)]
      self._held, at = self._held + part, at + len(part)
      if len(self._held) == self._need:
        value, self._held = int.from_bytes(self._held, 'little'), b''
        if not self._header(value):
          self.garbage = True
          return at - 4
    return at

  def _header(self, value):
    """Advances the state past one field; False for an invalid magic number."""
    if self._state == 'magic':
      self._state, self._need = 'descriptor', 1
      if value & ~15 == self.SKIPPABLE:
        self._state, self._need = 'size', 4
      return self._state == 'size' or value == self.MAGIC
    if self._state == 'descriptor':
      single, self._sum = value >> 5 & 1, 4 * (value >> 2 & 1)
      self._skip = (1 - single) + (0, 1, 2, 4)[value & 3]
      self._skip += (single, 2, 4, 8)[value >> 6]
      self._state, self._need = 'block', 3
    elif self._state == 'block':
      self._skip = 1 if value >> 1 & 3 == 1 else value >> 3
      if value & 1:  # the last
        self._skip += self._sum
        self._state, self._need = 'magic', 4
    else:
      self._skip, self._state, self._need = value, 'magic', 4
    return True


def write(path: str | os.PathLike, rows: Iterable[Mapping[str, object]]) -> int:
  """Writes a .jsonl, .jsonl.gz or .jsonl.zst file atomically; returns its rows."""
  count = 0
  with files.renamed(path) as partial, open(partial, 'wb') as raw:
    with _packed(raw, pathlib.Path(path).suffix) as file:
      for row in rows:
        count += 1
        line = json.dumps(row, ensure_ascii=False) + '\n'
        # A lone surrogate, which JSON escapes may encode, becomes an escape again.
        file.write(line.encode('utf-8', 'backslashreplace'))
  return count


def _packed(raw, suffix):
  if suffix == '.gz':  # without name and time: the same rows give the same bytes
    return gzip.GzipFile('', 'wb', 6, raw, 0)
  if suffix == '.zst':
    return zstandard.ZstdCompressor(3).stream_writer(raw, closefd=False)
  return contextlib.nullcontext(raw)
