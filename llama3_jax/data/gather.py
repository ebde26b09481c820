"""Your own files as documents: text, Markdown, HTML, PDF and rows of tables (3.1)."""

import collections
import dataclasses
import glob
import itertools
import os
import pathlib
import shutil
from collections.abc import Iterator
from collections.abc import Sequence

from absl import logging

from llama3_jax.base import files
from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError
from llama3_jax.data import readers

PART_BYTES = 1 << 26  # of text in one file of documents
SHORTEST, LONGEST = 2_000, 100_000  # characters of a piece of a long document
PIECES = 200  # a text becomes so many, within these limits


@dataclasses.dataclass
class Count:
  """What was read of one kind of files."""

  files: int = 0
  documents: int = 0
  characters: int = 0


def write(
  given: Sequence[str], folder: str | os.PathLike, column: str = '', field: str = 'text'
) -> dict[str, object]:
  """Writes all documents of your files into `folder`/general/*.jsonl.zst.

  A file that cannot be read as text is left out with a line in the log; one that was
  named itself is refused. A long document is cut at the ends of its paragraphs, so
  that some of it can be held out. Memory does not grow with the files.

  Args:
    given: files, folders (read at any depth) or patterns.
    folder: path; what an unfinished call left in it is replaced.
    column: of the text in rows; '': one of readers.COLUMNS.
    field: of the config that named the files, for errors.

  Returns:
    {'kinds': {suffix: {files, documents, characters}}, 'documents', 'characters',
    'left_out': [[file or '*.suffix', reason], ...]}.

  Raises:
    UserError: there is no such file, or nothing is left.
  """
  folder = pathlib.Path(folder)
  marker = folder / 'gathered.json'
  if marker.exists():
    return files.read_json(marker)
  paths, named, left_out = find(given, field)
  size = sum(path.stat().st_size for path in paths)
  piece = min(max(size // PIECES, SHORTEST), LONGEST)
  logging.info('reading %d files, %.1f MB', len(paths), size / 1e6)
  kinds, refused = collections.defaultdict(Count), []
  reading = _documents(paths, named, column, field, piece, kinds, refused)
  try:
    _write(reading, folder / 'general')
  except UserError:
    shutil.rmtree(folder)  # a run that read nothing has no claim on its workdir
    raise
  kinds = {name: count for name, count in kinds.items() if count.documents}
  total = sum(count.documents for count in kinds.values())
  left_out += refused
  if not total:
    shutil.rmtree(folder)
    why = f' ({left_out[0][0]}: {left_out[0][1]})' if left_out else ''
    raise UserError(f'{field}={_shown(given)}: there is no text in these files{why}')
  result = {
    'kinds': {name: dataclasses.asdict(count) for name, count in kinds.items()},
    'documents': total,
    'characters': sum(count.characters for count in kinds.values()),
    'left_out': left_out,
  }
  files.write_json(marker, result)
  return result


def _documents(paths, named, column, field, piece, kinds, refused):
  """Yields the rows of all files; counts in `kinds` what was read, and adds to
  `refused` what cannot be."""
  for path in paths:
    count = kinds[readers.kind(path)]
    try:
      for text in readers.texts(path, column, field):
        yield from _rows(cut(text, piece), path, count)
      count.files += 1
    except (readers.NotText, UserError) as reason:
      if path in named and isinstance(reason, UserError):
        raise
      if path in named:
        raise UserError(f'{field}: {path}: {reason}') from None
      logging.warning('%s is left out: %s', path, reason)
      refused.append([str(path), str(reason)])


def find(
  given: Sequence[str], field: str
) -> tuple[list[pathlib.Path], set[pathlib.Path], list[list[str]]]:
  """(files to read in order, those that were named themselves, [[what, reason]] left
  out) of files, folders and patterns. UserError where there is nothing to read."""
  paths, named, others, unread = [], set(), collections.Counter(), []
  for name in given:
    path = pathlib.Path(name).expanduser()
    if path.is_dir():
      inside = _below(path, unread)
      paths += [p for p in inside if readers.kind(p)]
      others.update(p.suffix.lower() or p.name for p in inside if not readers.kind(p))
      if not any(readers.kind(p) for p in inside):
        kinds = ', '.join(readers.KINDS)
        what = ', '.join(f'{n} of {s}' for s, n in others.most_common(3)) or 'no files'
        raise UserError(f'{field}={name}: the folder holds {what}; read are {kinds}')
      continue
    matches = [path] if path.exists() else _matching(path)
    if path.exists() and not path.is_file():
      raise UserError(f'{field}={name}: it is neither a file nor a folder')
    if not matches:
      raise UserError(f'{field}={name}: no such file or folder, and no file like it')
    for match in matches:
      if not readers.kind(match):
        raise UserError(
          f'{field}: {match}: files are read as {", ".join(readers.KINDS)}, also .gz '
          'and .zst; rename it if it is one of these'
        )
    paths += matches
    named.update(matches if path.exists() else ())
  if not paths:
    raise UserError(f'{field} is empty: name a folder, files or a pattern')
  left_out = [[f'*{s}', f'{n} of another kind'] for s, n in others.most_common()]
  for path, reason in unread:
    logging.warning('%s is left out: %s', path, reason)
  once = {}  # {file: the first of its names}
  for path in paths:
    once.setdefault(path.resolve(), path)
  return list(once.values()), named, left_out + unread


def cut(parts: Iterator[str], most: int) -> Iterator[str]:
  """Pieces of a text of at most `most` characters, cut where a paragraph ends, else a
  line, else a word; `parts` are consecutive parts of the text, of any lengths."""
  rest = ''
  for part in itertools.chain(parts, [None]):
    text, at = rest + (part or ''), 0
    while len(text) - at > most or (part is None and at < len(text)):
      end = len(text) if len(text) - at <= most else _end(text, at, most)
      if piece := text[at:end].strip():
        yield piece
      at = end
    rest = text[at:]


def _end(text, start, most):
  """Where the last paragraph, line or word ends in the second half of the piece of
  `most` characters from `start`."""
  for mark in ('\n\n', '\n', ' '):
    if (at := text.rfind(mark, start + most // 2, start + most)) >= 0:
      return at + len(mark)
  return start + most


def _rows(pieces, path, count):
  for text in pieces:
    count.documents += 1
    count.characters += len(text)
    yield {'text': text, 'source': path.name}


def _write(documents, folder):
  """Writes documents to numbered files of PART_BYTES."""
  folder.mkdir(parents=True, exist_ok=True)
  for path in folder.iterdir():
    path.unlink()
  for number in itertools.count():
    first = next(documents, None)
    if first is None:
      return
    jsonl.write(folder / f'{number:05d}.jsonl.zst', _part(first, documents))


def _part(first, documents):
  size = 0
  for row in itertools.chain([first], documents):
    yield row
    size += len(row['text'])
    if size >= PART_BYTES:
      return


def _below(folder, unread):
  """Files of a folder at any depth, in order; none that is hidden. Adds [folder,
  reason] to `unread` for one that cannot be read, or is a link and may be a loop."""
  found = []
  failed = lambda error: unread.append([str(error.filename), str(error.strerror)])
  for place, folders, names in os.walk(folder, onerror=failed):
    folders[:] = sorted(name for name in folders if not name.startswith('.'))
    links = (os.path.join(place, name) for name in folders)
    why = 'a link to a folder: name it beside the others'
    unread += [[path, why] for path in links if os.path.islink(path)]
    paths = [pathlib.Path(place, name) for name in sorted(names) if name[0] != '.']
    found += [path for path in paths if path.is_file()]
  return sorted(found)


def _matching(pattern):
  found = glob.glob(str(pattern), recursive=True)
  return sorted(path for path in map(pathlib.Path, found) if path.is_file())


def _shown(given):
  return given[0] if len(given) == 1 else str(tuple(given))
