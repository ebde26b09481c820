"""Scores of an evaluation as a table of text, with their intervals (5.1)."""

import collections
import os
import pathlib
import re
import typing
from collections.abc import Iterable
from collections.abc import Mapping

from llama3_jax.base import files

T = typing.TypeVar('T')
PART = re.compile(r'[A-Za-z]\w*')  # of a source: a language, a category, no file
PARTS = 12  # further scores of a task that are listed
HEAD = ('task', 'score, %', '95% interval', 'questions')


def text(found: Mapping[str, Mapping]) -> str:
  """The table, in Markdown, of what run.tasks returns; further scores are indented."""
  rows = [HEAD]
  for name, r in shown(found).items():
    low, high = (f'{100 * end:.1f}' for end in r['interval'])
    rows.append((name, f'{100 * r["score"]:.1f}', f'{low} to {high}', str(r['n'])))
    if 'perplexity' in r:
      low, high = (f'{end:.2f}' for end in r['perplexity_interval'])
      rows.append(('- perplexity', f'{r["perplexity"]:.2f}', f'{low} to {high}', ''))
    parts = r.get('summary', {})
    if len(parts) > PARTS:  # the rest is in results.json and on the page
      parts = {part: v for part, v in parts.items() if part.startswith('mean ')}
    for further, value in parts.items():
      rows.append((f'- {further}', f'{100 * value:.1f}', '', ''))
  widths = [max(map(len, column)) for column in zip(*rows)]
  lines = []
  for i, (first, *rest) in enumerate(rows):
    cells = [first.ljust(widths[0]), *map(str.rjust, rest, widths[1:])]
    lines.append(f'| {" | ".join(cells)} |')
    if not i:
      bars = ['-' * widths[0], *('-' * (w - 1) + ':' for w in widths[1:])]
      lines.append(f'| {" | ".join(bars)} |')
  return '\n'.join(lines)


def shorts(names: Iterable[str]) -> dict[str, str]:
  """{name of a task: how it is shown}: without its files, but with the part of them
  that is asked, 'flores deu_Latn eng_Latn'; files stand where two would be the same."""
  found = {name: _short(name) for name in names}
  counts = collections.Counter(found.values())
  for name, shown in found.items():
    if counts[shown] > 1:
      found[name] = f'{shown} {pathlib.Path(name.partition("=")[2]).stem}'
  counts = collections.Counter(found.values())
  return {name: n if counts[n] == 1 else name for name, n in found.items()}


def runs(folders: Iterable[str | os.PathLike]) -> list[str]:
  """Names of runs: those of their folders, whole paths where two are the same."""
  paths = [pathlib.Path(folder) for folder in folders]
  counts = collections.Counter(path.name for path in paths)
  return [path.name if counts[path.name] == 1 else str(path) for path in paths]


def shown(found: Mapping[str, T]) -> dict[str, T]:
  """What is found by task, by the names of `shorts`."""
  names = shorts(found)
  return {names[name]: value for name, value in found.items()}


def _short(name):
  task, _, source = name.partition('=')
  return ' '.join([task, *filter(PART.fullmatch, source.split(',')[1:])])


def write(path: str | os.PathLike, found: Mapping[str, Mapping]) -> None:
  """Writes the table to a file."""
  files.write_text(path, text(found) + '\n')
