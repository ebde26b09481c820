"""A field of a config: its range, its description, and what is wrong with a value."""

import dataclasses
import math

KINDS = {'i': 'a whole number', 'f': 'a number', 's': 'a text', 'p': 'a name'}


@dataclasses.dataclass(frozen=True)
class Field:
  """The values a field may have.

  Attributes:
    range: an interval such as '[0, 1)' for a number, or for each number of a list.
    text: description of the field.
    rows: for a list of lists, the kinds of each entry: i a whole number, f any number,
      s a text, p a text that is not empty (a path, a name). One letter: for a plain
      list, the kind of all entries.
    free: whether the field may change between two starts of one run.
  """

  range: str
  text: str = ''
  rows: str = ''
  free: bool = False

  def fault(self, value: object) -> str:
    """Description of the fault of `value`; '' when there is none."""
    if isinstance(value, (tuple, list)):
      for entry in value:
        if self.rows and not self._entry(entry):
          due = KINDS.get(self.rows, f'{len(self.rows)} values of kinds {self.rows}')
          return f'{entry!r} is not {due}'
        if fault := dataclasses.replace(self, rows='').fault(entry):
          return fault
      return ''
    if isinstance(value, bool) or not isinstance(value, (int, float)):
      return ''
    return (
      ''
      if not self.range or _inside(value, self.range)
      else f'it must be in {self.range}'
    )

  def _entry(self, entry):
    if len(self.rows) == 1:
      entry = (entry,)
    kinds = {'i': (int,), 'f': (int, float), 's': (str,), 'p': (str,)}
    return (
      isinstance(entry, (tuple, list))
      and len(entry) == len(self.rows)
      and all(type(v) in kinds[kind] for v, kind in zip(entry, self.rows))
      and all(v.strip() for v, kind in zip(entry, self.rows) if kind == 'p')
    )


def _inside(value, interval):
  low, high = (float(part) for part in interval[1:-1].split(','))
  if math.isnan(value):
    return False
  above = value >= low if interval[0] == '[' else value > low
  below = value <= high if interval[-1] == ']' else value < high
  return above and below
