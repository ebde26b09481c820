"""The one reader of JSONL: every fault is one line with file, line and way out."""

import contextlib
import difflib
import functools
import gzip
import io
import json
import pathlib
import zlib
from collections.abc import Iterator
from collections.abc import Sequence

import zstandard
from absl import logging

from llama3_jax.base import files
from llama3_jax.base.errors import UserError

BOM = b'\xef\xbb\xbf'


def read(path, field: str, empty: bool = False) -> Iterator[tuple[str, dict]]:
  """Yields (where, row) of every line that is not blank: `where` is 'FILE, line N'.

  Args:
    path: a .jsonl file, also .gz or .zst; a byte order mark at its start is skipped.
    field: config field that named the file, for the errors.
    empty: a file without a line is as good as others.

  Raises:
    UserError: no such file, a folder, cut short, a line that is no UTF-8, no JSON, or
      no object; a number that is not finite; a field that is there twice; no line.
  """
  where = None
  for where, line in lines(path, field):
    yield where, parse(line, where)
  if where is None and not empty:
    raise UserError(f'{field}: {path} holds no rows: give one with a row a line')


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


def documents(path, field: str) -> Iterator[dict]:
  """Rows of a file of documents, each with its `text`; there may be none."""
  for where, row in read(path, field, empty=True):
    text(row, 'text', where)
    yield row


def parse(line: bytes | str, where: str, finite: bool = True) -> dict:
  """The object of one line; UserError that opens with `where`.

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


def known(row: dict, names: Sequence[str], where: str) -> None:
  """Checks that every field of a row is used: others are named, once a file.

  Raises UserError for one that looks like a misspelling of a field in `names`.
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
  """The bytes of all zstd frames of a file, never more of them than are asked for.

  After the last whole byte: EOFError where a frame is cut, ZstdError at what is none.
  """

  def __init__(self, file):
    self._walk = _Walk(file)
    reader = zstandard.ZstdDecompressor().stream_reader(
      self._walk, read_across_frames=True
    )
    self._reader = reader

  def readable(self):
    return True

  def readinto(self, buffer):
    n = self._reader.readinto(buffer)
    if not n and self._walk.garbage:
      raise zstandard.ZstdError('what follows the last frame is no frame of zstd')
    if not n and not self._walk.whole:
      raise EOFError('the zstd frame is cut short')
    return n


class _Walk:
  """A file of zstd that knows where its frames end, and ends before what is none.

  The library gives the same end of file at the end of a frame and within one. The
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
      # A magic number is passed on when it is known to be one.
      self._kept = self._held if self._state == 'magic' else b''
      ready = ready[: len(ready) - len(self._kept)]
      if ready:
        return ready
    return b''

  def _walk(self, data):
    """How many of the bytes belong to frames."""
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
    """Goes on behind a number of the format; False where it is no magic number."""
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


def write(path, rows) -> int:
  """Writes a .jsonl or .jsonl.gz file, whole or not at all; returns how many rows."""
  count = 0
  with files.renamed(path) as partial, open(partial, 'wb') as raw:
    packed = pathlib.Path(path).suffix == '.gz'
    # Without a name and a time, so that the same rows give the same bytes.
    with gzip.GzipFile('', 'wb', 6, raw, 0) if packed else raw as file:
      for row in rows:
        count += 1
        line = json.dumps(row, ensure_ascii=False) + '\n'
        # Half a character, as JSON's escapes may spell one, is written as one again.
        file.write(line.encode('utf-8', 'backslashreplace'))
  return count
