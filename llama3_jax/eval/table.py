"""Scores of an evaluation as a table of text, with their intervals (5.1)."""

import os
from collections.abc import Mapping

from llama3_jax.base import files

HEAD = ('task', 'score, %', '95% interval', 'questions')


def text(found: Mapping[str, Mapping]) -> str:
  """The table, in Markdown, of what run.tasks returns; further scores are indented."""
  rows = [HEAD]
  for name, r in found.items():
    low, high = (f'{100 * end:.1f}' for end in r['interval'])
    rows.append(
      (short(name), f'{100 * r["score"]:.1f}', f'{low} to {high}', str(r['n']))
    )
    if 'perplexity' in r:
      low, high = (f'{end:.2f}' for end in r['perplexity_interval'])
      rows.append(('- perplexity', f'{r["perplexity"]:.2f}', f'{low} to {high}', ''))
    for further, value in r.get('summary', {}).items():
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


def short(name: str) -> str:
  """A task's name, and what follows its folder: 'flores deu_Latn eng_Latn'."""
  task, _, source = name.partition('=')
  more = [part for part in source.split(',')[1:] if os.sep not in part]
  return ' '.join([task, *more]) if len(more) < 4 else task


def write(path: str | os.PathLike, found: Mapping[str, Mapping]) -> None:
  """Writes the table to a file."""
  files.write_text(path, text(found) + '\n')
