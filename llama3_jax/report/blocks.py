"""The blocks of a report; templates/page.html renders them."""

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Interval:
  """A cell: a value and, smaller, its uncertainty, such as '[1, 2]' or '±3'."""

  value: object
  shown: str


@dataclasses.dataclass(frozen=True)
class Best:
  """A cell that is the best of its column."""

  value: object


@dataclasses.dataclass(frozen=True)
class Table:
  """Rows of cells: text, numbers (floats with 4 digits), verdicts (bool), the above.

  wide: the first column stays in place while the others scroll.
  sentences: names of the columns whose cells are sentences, which wrap.
  """

  header: Sequence[str]
  rows: Sequence[Sequence[object]]
  wide: bool = False
  sentences: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Plot:
  """A figure of report/figures.py; its name is unique in the page."""

  name: str
  figure: dict


@dataclasses.dataclass(frozen=True)
class Note:
  """A paragraph that explains what is next to it."""

  text: str


@dataclasses.dataclass(frozen=True)
class Turn:
  """A block of text that wraps, under a small head; role: 'user', 'assistant' or ''."""

  text: str
  head: str = ''
  role: str = ''


@dataclasses.dataclass(frozen=True)
class Details:
  """Blocks that are shown when the reader opens the title."""

  title: str
  blocks: Sequence[object]


@dataclasses.dataclass(frozen=True)
class Card:
  """Blocks on a sheet of their own."""

  blocks: Sequence[object]
  title: str = ''


@dataclasses.dataclass(frozen=True)
class Row:
  """Blocks in two columns, on a phone in one."""

  blocks: Sequence[object]


@dataclasses.dataclass(frozen=True)
class Stack:
  """Blocks one below the other, with a space between them."""

  blocks: Sequence[object]


@dataclasses.dataclass(frozen=True)
class Section:
  """A heading with its blocks; without blocks it is left out."""

  title: str
  blocks: Sequence[object]
  note: str = ''
  name: str = ''


@dataclasses.dataclass(frozen=True)
class Page:
  """A report: title, lines below it, headline figures (value, label), sections.

  links: to the sections, below the lines.
  """

  title: str
  sections: Sequence[Section]
  lines: Sequence[str] = ()
  tiles: Sequence[tuple[str, str]] = ()
  links: bool = False
