"""The text in a file of any kind, part by part (3.1)."""

import codecs
import io
import pathlib
import unicodedata
import zlib
from collections.abc import Iterator

import zstandard
from absl import logging

from llama3_jax.base import jsonl
from llama3_jax.base import rows
from llama3_jax.base.errors import UserError
from llama3_jax.curate.extraction import extract
from llama3_jax.curate.reading import encoding

PLAIN = ('.txt', '.text', '.md', '.markdown', '.rst')
PAGES = ('.html', '.htm', '.xhtml')
TABLES = (*rows.LINES, '.parquet', '.csv')
KINDS = (*PLAIN, *PAGES, *TABLES, '.pdf')
# Columns that hold the text of a document, the first that a row has.
COLUMNS = ('text', 'content', 'document', 'body', 'markdown', 'article', 'html')
CHUNK = 1 << 20  # bytes read at a time
WHOLE = 10_000_000  # bytes of a file whose encoding is found from all of it, or a page
STRANGE = 0.02  # share of control characters from which a file is no text


class NotText(Exception):
  """Why a file holds no text that can be read, as a clause."""


def kind(path: pathlib.Path) -> str:
  """The suffix in KINDS of a file's name, without that of a packed file; '' if none."""
  name = path.name.lower()
  stem = name.removesuffix('.gz').removesuffix('.zst')
  found = pathlib.Path(stem).suffix
  packed = stem != name
  return found if found in KINDS and not (packed and found in ('.pdf',)) else ''


def texts(path: pathlib.Path, column: str, field: str) -> Iterator[Iterator[str]]:
  """Yields every document of a file, each as an iterator of its parts, in order, which
  is read to its end before the next document.

  Args:
    path: a file of a kind in KINDS.
    column: of the text in rows; '': the first of COLUMNS that a row has.
    field: of the config that named the file, for errors.

  Raises:
    NotText: the file is no text of its kind.
    UserError: rows are damaged or have no text.
  """
  ending = kind(path)
  if ending in TABLES:
    return _of_rows(path, column, field)
  try:
    with open(path, 'rb') as file:
      if not file.read(1):
        raise NotText('it is empty')
  except OSError as error:
    raise NotText(f'it cannot be read ({error.strerror})') from None
  if ending in PAGES:
    return _of_page(path)
  return _of_pdf(path) if ending == '.pdf' else _of_plain(path)


def whole(path: pathlib.Path, plain: bool = False) -> str:
  """The text of one file, a page or a PDF; plain: whatever its kind, as it stands.

  Raises:
    NotText: it holds none that can be read.
  """
  ending = kind(path)
  try:
    if not plain and ending in PAGES:
      documents = _of_page(path)
    elif not plain and ending == '.pdf':
      documents = _of_pdf(path)
    else:
      documents = _of_plain(path)
    return ''.join(part for document in documents for part in document)
  except OSError as error:
    raise NotText(f'it cannot be read ({error.strerror})') from None


def _of_rows(path, column, field):
  found = None  # the column of the rows before: one that lacks it has an empty cell
  for where, row in rows.read(path, field):
    same = found in row or kind(path) in ('.csv', '.parquet')  # a table has columns
    name = column or (found if same else None)
    name = name or next((n for n in COLUMNS if row.get(n) is not None), None)
    if found and same and row.get(found) is None:
      continue
    if name is None or row.get(name) is None:
      have = ', '.join(list(row)[:8]) or 'nothing'
      raise UserError(
        f'{where}: no {column or ", ".join(COLUMNS)} among {have}: name the column of '
        'the text with --config.column=NAME'
      )
    found, text = name, jsonl.text(row, name, where)
    if name == 'html':
      try:
        text = _page(text.encode('utf-8', 'replace'))
      except NotText as reason:
        logging.warning('%s is left out: %s', where, reason)
        continue
    if text.strip():
      yield iter([text])


def _of_plain(path):
  """One document: small files in any encoding, large ones in UTF-8 or with a mark."""
  with jsonl.opened(path) as file:
    head = _read(file, CHUNK)
    codec = next((c for mark, c in encoding.BOMS if head.startswith(mark)), None)
    _check(head, codec)
    if codec is None and not _utf8(head):
      body = head + _read(file, WHOLE)
      if len(body) > WHOLE:
        raise NotText('it is not in UTF-8 and too large to guess its encoding')
      text = encoding.decode(body)
      _printable(text)
      yield iter([_lines(text)])
      return
    decoder = codecs.getincrementaldecoder(codec or 'utf-8')('replace')
    _printable(codecs.getincrementaldecoder(codec or 'utf-8')('replace').decode(head))
    yield _decoded(file, head, decoder, path)


def _decoded(file, head, decoder, path):
  # A line may end in two characters that are read one after the other.
  lines = io.IncrementalNewlineDecoder(decoder, translate=True)
  data, first, broken = head, True, 0
  while data:
    text = lines.decode(data)
    broken += text.count('\ufffd')
    yield text.removeprefix('\ufeff') if first else text
    data, first = _read(file, CHUNK), False
  end = lines.decode(b'', True)
  yield end
  if broken := broken + end.count('\ufffd'):
    logging.warning('%s: %d characters that are not UTF-8 are U+FFFD', path, broken)


def _check(head, codec):
  """Raises NotText for bytes of a file that is no text, whatever its name says."""
  if not head.strip():
    raise NotText('it is empty')
  if codec is None and b'\0' in head:
    raise NotText('it is binary, not text')


def _printable(text):
  controls = sum(
    unicodedata.category(c) == 'Cc' and c not in '\t\n\r\f\v\x85\x1b' for c in text
  )
  if controls > STRANGE * len(text):
    raise NotText('it is binary, not text')


def _utf8(head):
  """Whether bytes are UTF-8, a character at their end cut off or not."""
  try:
    codecs.getincrementaldecoder('utf-8')('strict').decode(head)
  except UnicodeDecodeError:
    return False
  return True


def _lines(text):
  return text.replace('\r\n', '\n').replace('\r', '\n') if '\r' in text else text


def _of_page(path):
  with jsonl.opened(path) as file:
    body = _read(file, WHOLE + 1)
  if len(body) > WHOLE:
    raise NotText(f'a page of more than {WHOLE:,} bytes')
  _check(body, next((c for mark, c in encoding.BOMS if body.startswith(mark)), None))
  text = _page(body)
  if not text.strip():
    raise NotText('there is no text in the page')
  yield iter([text])


def _page(body):
  """The main text of a page, or what there is where extraction finds none."""
  found = extract.refuse(body)
  if isinstance(found, tuple):
    raise NotText(f'the page costs too much to read ({found[0]})')
  try:
    return extract.extract(encoding.decode(body), found=found).text
  except (ValueError, RuntimeError):
    raise NotText('it is no HTML that can be read') from None


def _of_pdf(path):
  try:
    import pypdf
  except ModuleNotFoundError:
    raise NotText("PDF needs pypdf: pip install -e '.[pdf]'") from None
  try:
    reader = pypdf.PdfReader(path)
    if reader.is_encrypted and not reader.decrypt(''):
      raise NotText('it is encrypted')
    found = [page.extract_text() for page in reader.pages]
  except NotText:
    raise
  except Exception as error:  # of many kinds: a PDF is not trusted
    reason = ' '.join(str(error).split())[:80]
    raise NotText(f'the PDF cannot be read ({reason})') from None
  text = '\n\n'.join(part.strip() for part in found if part.strip())
  if not text:
    raise NotText('there is no text in the PDF, only pictures')
  yield iter([text])


def _read(file: io.BufferedIOBase, size: int) -> bytes:
  """Up to `size` bytes; none at the end."""
  try:
    return file.read(size)
  except (OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
    raise NotText(f'it is damaged ({" ".join(str(error).split())[:80]})') from None
