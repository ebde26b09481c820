"""Chooses the blocks of a page that are its text (3.1.1).

resiliparse keeps 98% of an article, but captions, by-lines, teasers and notices too.
Its reduced HTML is cut into blocks here; each gets a few measures of itself and of its
neighbours; a sum of steps over these measures (block_model.py) decides whether it is
kept. Code, formulas, and tables and lists of plain words inside the article always are.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Sequence

import numpy as np

LINK = re.compile(r'<a href="[^"]*">(.*?)</a>')
LEAD = re.compile(r'\s*(?:<(?:ul|ol|li|br)>\s*)*<(h[1-6]|p|li|pre)>|\s*<(ul|ol)>')
TAG = re.compile(r'</?(?:h[1-6]|p|ul|ol|li|pre|br|a)(?: href="[^"]*")?>')
MARK = re.compile('\ue000(\\d+)\ue001')  # in place of code or a formula
ENDS = '.!?。！？…"”»।؟'
# Words of notices around articles; looked for in short blocks only.
NOTICES = (
  'newsletter|subscri|sign up|inbox|e-mail|email|follow us|twitter|facebook|instagram|'
  'share |whatsapp|copyright|©|all rights reserved|terms of|privacy|cookie|read more|'
  'more:|related|also on|see also|recommended|click here|photo|image|getty|credit|'
  'courtesy|video|advertis|sponsor|promot|affiliate|donat|support us|published|updated|'
  'posted|min read|comment|reply|log in|login|sign in|register|account|reporting by|'
  'editing by|contributed|reached at|about the|tags|categor|filed under|source:|topics'
).split('|')
SHORT = 300  # characters
MEASURES = ('chars', 'link', 'end', 'p', 'heading', 'item', 'bare', 'notice')
PLACES = ('before', 'first', 'last', 'start', 'finish', 'total')
# Measures of the two blocks before (-2, -1) and after (1, 2) that a block also gets.
NEAR = tuple(MEASURES.index(name) for name in ('chars', 'link', 'end', 'p', 'notice'))
NAMES = (
  *MEASURES,
  *PLACES,
  *(f'{MEASURES[i]}{side}' for side in ('-1', '+1', '-2', '+2') for i in NEAR),
)


@dataclasses.dataclass(frozen=True)
class Block:
  """A paragraph, heading, item, row or piece of code.

  Fields:
    tag: h1 to h6, p, li, pre; '' for text in any other element.
    text: without markup, with marks in place of code and formulas.
    link: characters inside links.
    gap: whether an empty line is before it.
  """

  tag: str
  text: str
  link: int
  gap: bool


def parse(reduced: str) -> list[Block]:
  """Blocks of resiliparse's minimal HTML."""
  result, gap = [], False
  for line in reduced.replace('<br>\n', '<br>').split('\n'):
    if not line or line.isspace():
      gap = True
      continue
    lead = LEAD.match(line)
    tag = (lead[1] or '') if lead else ''
    link = 0
    if '<a ' in line:
      link = sum(map(len, LINK.findall(line)))
    text = TAG.sub('', line.replace('<br>', '\n')).strip() if '<' in line else line
    if '&' in text:
      text = text.replace('&lt;', '<').replace('&gt;', '>').replace('&quot;', '"')
      text = text.replace('&amp;', '&')
    text = text.strip()
    if text:
      result.append(Block(tag, text, min(link, len(text)), gap))
      gap = False
  return result


def join(found: Sequence[Block]) -> str:
  """The text of blocks, with a line break or an empty line between two."""
  parts = []
  for block in found:
    if parts:
      parts.append('\n\n' if block.gap else '\n')
    parts.append(block.text)
  return ''.join(parts)


def keep(
  found: Sequence[Block], model: tuple[float, tuple[tuple[str, float, float], ...]]
) -> list[Block]:
  """The blocks that are the page's text.

  Args:
    found: list of Block.
    model: (bias, ((measure out of NAMES, threshold, value), ...)); a value counts where
      the measure is above the threshold.
  """
  if not found:
    return []
  x, solid = measures(found)
  bias, steps = model
  column, threshold, value = _columns(steps)
  score = bias + (x[:, column] > threshold) @ value
  inside = _inside(found, solid)
  return [b for b, s, i in zip(found, score, inside) if s > 0 or i]


@functools.cache
def _columns(steps):
  names, threshold, value = zip(*steps)
  column = np.array([NAMES.index(name) for name in names])
  return column, np.array(threshold), np.array(value)


def measures(found: Sequence[Block]) -> tuple[np.ndarray, np.ndarray]:
  """(float64 [blocks, NAMES], bool [blocks]: long sentences without links)."""
  own = np.array([_own(block) for block in found], float)
  chars, link, end = own[:, 0], own[:, 1], own[:, 2]
  solid = (chars > np.log(80)) & (link < 0.33) & (end > 0)
  mass = np.where(solid, np.exp(chars), 0.0)
  before = np.cumsum(mass) - mass
  total = max(before[-1] + mass[-1], 1.0)
  index, rows = np.arange(len(found)), np.flatnonzero(solid)
  first, last = (rows[0], rows[-1]) if len(rows) else (0, len(found) - 1)
  position = np.empty((len(found), len(PLACES)))
  position[:, 0] = before / total  # share of the solid text that is before it
  position[:, 1] = index - first
  position[:, 2] = last - index
  position[:, 3] = index
  position[:, 4] = index[::-1]
  position[:, 5] = np.log(total)
  near = own[:, NEAR]
  beside = [_shift(near, step) for step in (1, -1, 2, -2)]
  return np.concatenate([own, position, *beside], 1), solid


def _own(block):
  """MEASURES of one block alone."""
  text, tag, chars = block.text, block.tag, len(block.text)
  return (
    math.log(chars),
    block.link / chars,
    text[-1] in ENDS,
    tag == 'p',
    tag[:1] == 'h',
    tag == 'li',
    tag == '',
    chars <= SHORT and _notice(text.lower()),
  )


def _notice(text):
  for word in NOTICES:
    if word in text:
      return True
  return False


def _shift(x, step):
  """Rows moved down by `step`, zeros at the border."""
  moved = np.zeros_like(x)
  if step > 0:
    moved[step:] = x[:-step]
  else:
    moved[:step] = x[-step:]
  return moved


def _inside(found, solid):
  """bool [blocks]: code, formulas; rows and items of words next to solid text."""
  rows = np.flatnonzero(solid)
  first, last = (rows[0], rows[-1]) if len(rows) else (len(found), -1)
  result, follows = [], False
  for index, block in enumerate(found):
    words = block.link <= 0.3 * len(block.text)
    listed = words and (block.tag == 'li' or '\t' in block.text)
    # A list at the end of an article follows its last paragraph without a break.
    follows = index == last or (follows and listed)
    kept = block.tag == 'pre' or MARK.search(block.text) is not None
    result.append(kept or (listed and (first <= index <= last or follows)))
  return result
