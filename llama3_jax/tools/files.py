"""The tool `files`: reads your own files, of many kinds, part by part (4.3.5).

`files=FOLDER` shows what is in a folder and nothing outside of it.
"""

import pathlib

from llama3_jax.base.errors import UserError
from llama3_jax.data import office
from llama3_jax.data import readers
from llama3_jax.tools import registry
from llama3_jax.tools.agent import Failed
from llama3_jax.tools.registry import Tool

PART, MOST = 3000, 200  # characters of a part; files that are listed
# What is read as it stands: its form tells as much as its words.
AS_IT_IS = ('.csv', '.tsv', '.json', '.jsonl', '.xml', '.yaml', '.toml', '.ini', '.log')
AS_IT_IS += ('.py', '.js', '.c', '.h', '.cpp', '.java', '.rs', '.go', '.sh', '.sql')
KINDS = (*readers.PLAIN, *readers.PAGES, '.pdf', *office.KINDS, *AS_IT_IS)


def create(source: str = '') -> list[Tool]:
  """The tools list_files and read_file over a folder; UserError where it is none."""
  if not source:
    raise UserError('tools: files needs a folder: write files=FOLDER')
  folder = pathlib.Path(source).expanduser().resolve()
  if not folder.is_dir():
    raise UserError(f'tools: files={source}: no such folder')

  def list_files() -> str:
    """Lists the files that read_file can read, with their sizes in bytes."""
    rows = [f'{name} ({size:,} bytes)' for name, size in listed(folder)]
    more = [f'... and {len(rows) - MOST:,} more'] if len(rows) > MOST else []
    return '\n'.join([*rows[:MOST], *more]) or 'there are no files'

  def read_file(name: str, part: int = 1) -> str:
    """Reads a file: text, PDF, Word, Excel, PowerPoint, HTML, CSV, JSON or code. \
Long files have several parts.

    Args:
      name: as list_files has it.
      part: which part of a long file, from 1.
    """
    text = read(folder, name)
    parts = max(1, -(-len(text) // PART))
    if not 1 <= part <= parts:
      raise Failed(f'{name} has parts 1 to {parts}, and no part {part}')
    piece = text[(part - 1) * PART : part * PART]
    return piece if parts == 1 else f'[part {part} of {parts}]\n{piece}'

  return [registry.of(list_files), registry.of(read_file)]


def listed(folder: pathlib.Path) -> list[tuple[str, int]]:
  """(name, bytes) of the files of a folder at any depth that can be read."""
  found = []
  for path in sorted(folder.rglob('*')):
    name = path.relative_to(folder).as_posix()
    hidden = any(part.startswith('.') for part in name.split('/'))
    if not hidden and path.suffix.lower() in KINDS and _inside(folder, path):
      found.append((name, path.stat().st_size))
  return found


def read(folder: pathlib.Path, name: str) -> str:
  """The text of a file; Failed where it is not in the folder or has none."""
  try:
    path = (folder / name).resolve()
    there = _inside(folder, path)
  except (OSError, ValueError, RuntimeError):  # no name of a file, a loop of links
    there = False
  if not there:
    raise Failed(f'there is no file {name!r}: list_files has the names')
  ending = path.suffix.lower()
  if ending not in KINDS:
    raise Failed(f'{name} is of a kind that is not read')
  try:
    if ending in office.KINDS:
      return office.text(path)
    return readers.whole(path, ending in AS_IT_IS)
  except readers.NotText as reason:
    raise Failed(f'{name} cannot be read: {reason}') from None


def _inside(folder, path):
  """Whether a path leads to a file in the folder, links followed."""
  return path.is_file() and path.resolve().is_relative_to(folder)
