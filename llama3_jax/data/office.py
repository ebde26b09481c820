"""The text in files of Word, Excel and PowerPoint (extra `tools`)."""

import importlib
import pathlib
import zipfile
from collections.abc import Iterator

from llama3_jax.data.readers import NotText

KINDS = ('.docx', '.xlsx', '.pptx')
PACKAGES = {'.docx': 'docx', '.xlsx': 'openpyxl', '.pptx': 'pptx'}
LARGEST = 200_000_000  # bytes of a file that is unpacked
ROWS = 10_000  # of a sheet


def text(path: pathlib.Path) -> str:
  """The text of a file: paragraphs and tables, sheets, slides, in their order.

  Raises:
    NotText: it is damaged, too large, holds no text, or its package is missing.
  """
  ending = path.suffix.lower()
  try:
    package = importlib.import_module(PACKAGES[ending])
  except ModuleNotFoundError:
    what = PACKAGES[ending]
    raise NotText(f"{ending} needs {what}: pip install -e '.[tools]'") from None
  try:
    with zipfile.ZipFile(path) as file:
      size = sum(one.file_size for one in file.infolist())
    if size > LARGEST:
      raise NotText(f'it has {size:,} bytes unpacked')
    lines = {'.docx': _word, '.xlsx': _sheets, '.pptx': _slides}[ending](package, path)
    found = '\n'.join(lines).strip()
  except NotText:
    raise
  except Exception as error:  # of many kinds: such a file is not trusted
    reason = ' '.join(str(error).split())[:80] or type(error).__name__
    raise NotText(f'it is damaged ({reason})') from None
  if not found:
    raise NotText('there is no text in it')
  return found


def _word(package, path) -> Iterator[str]:
  for block in package.Document(str(path)).iter_inner_content():
    if hasattr(block, 'rows'):
      yield from _table(block)
    elif block.text.strip():
      yield block.text


def _table(table):
  for row in table.rows:
    yield ' | '.join(' '.join(cell.text.split()) for cell in row.cells)


def _sheets(package, path) -> Iterator[str]:
  book = package.load_workbook(path, read_only=True, data_only=True)
  try:
    for sheet in book.worksheets:
      yield f'# {sheet.title}'
      for i, row in enumerate(sheet.iter_rows(values_only=True)):
        if i == ROWS:
          yield f'... more than {ROWS:,} rows'
          break
        if any(cell is not None for cell in row):
          yield ' | '.join('' if cell is None else str(cell) for cell in row)
  finally:
    book.close()


def _slides(package, path) -> Iterator[str]:
  for i, slide in enumerate(package.Presentation(str(path)).slides, 1):
    yield f'# slide {i}'
    for shape in slide.shapes:
      if shape.has_text_frame and shape.text_frame.text.strip():
        yield shape.text_frame.text
      if getattr(shape, 'has_table', False):
        yield from _table(shape.table)
