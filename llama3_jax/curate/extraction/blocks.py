"""Which blocks of a page are its text (3.1.1).

Trees score every block (trees.py). Then tables and lists are kept whole or not at all,
code and formulas always, and a page of which next to nothing would be left gets the
text that is no link in the element that holds most of it.
"""

import dataclasses
import math
import re

import numpy as np

from llama3_jax.curate.extraction import cut
from llama3_jax.curate.extraction import trees
from llama3_jax.curate.machine import compiled

MARK = re.compile('\ue000(\\d+)\ue001')  # in place of code or a formula
MARK_BYTES = '\ue000'.encode()
LEAST = 0.12  # share of a page's sentences; where less would stay, rules are too strict
FENCE = np.array([cut.TAG[name] for name in ('nav', 'footer', 'aside', 'header')])
LISTS = np.array([cut.TAG[name] for name in ('ul', 'ol', 'dl')])
T_LI, T_DT, T_DD = (cut.TAG[name] for name in ('li', 'dt', 'dd'))
LINKED, SOLID, MARKED, HEADING, FENCED, COLON = range(6)  # of facts


@dataclasses.dataclass(frozen=True)
class Text:
  """The text of the blocks that are kept.

  Fields:
    text: without markup, with marks in place of code and formulas; a line break or an
      empty line between two blocks.
    blocks: number of blocks.
    size: characters of the blocks.
    link: characters inside links.
  """

  text: str
  blocks: int
  size: int
  link: int


def text(found: cut.Cut, keep: np.ndarray) -> Text:
  """The text of kept blocks: bool [blocks] says which."""
  data, parts, link = found.text.tobytes(), [], 0
  rows = np.flatnonzero(keep)
  gaps = np.diff(np.cumsum(found.blocks[:, cut.GAP])[rows], prepend=0) > 0
  kept = found.blocks[np.ix_(rows, (cut.START, cut.END, cut.LINK))]
  for (start, end, linked), gap in zip(kept.tolist(), gaps.tolist()):
    part = data[start:end]
    parts += (b'\n\n' if gap else b'\n'), part
    if linked:
      count = len(part.decode('utf-8', 'replace'))
      link += round(count * linked / (end - start))
  joined = b''.join(parts[1:]).decode('utf-8', 'replace')
  between = len(rows) - 1 + int(gaps[1:].sum()) if len(rows) else 0
  return Text(joined, len(rows), len(joined) - between, link)


def prose(found: cut.Cut, title: bytes, heading: bool) -> np.ndarray:
  """bool [blocks]: the text of an article.

  Args:
    found: cut.Cut with a block or more.
    title: of the page.
    heading: whether its <h1> is kept.
  """
  return decide(found, trees.scores(found, title), heading)


def decide(found: cut.Cut, score: np.ndarray, heading: bool) -> np.ndarray:
  """bool [blocks], from the scores of the blocks."""
  facts = _facts(found.text, found.blocks, found.nodes)
  return _decide(score, facts, found.blocks, found.nodes, heading)


def recall(found: cut.Cut, title: bytes) -> np.ndarray:
  """bool [blocks]: all but lists of links and what is around the page's text."""
  score = trees.scores(found, title)
  facts = _facts(found.text, found.blocks, found.nodes)
  link, solid, marked, head, fenced = facts[:, :COLON].T
  plain = (link <= 0.6) & ((score > -2.5) | (head > 0)) & ((fenced == 0) | (score > 0))
  return _whole(plain | (marked > 0), found.blocks) | (marked > 0)


@compiled.kernel(compiled.FLAGS, compiled.ROWS)
def _whole(keep, blocks):
  """Tables whole where most of their rows are kept, else none of them."""
  n, i = len(keep), 0
  while i < n:
    j, count = i, 0
    while j < n and blocks[j, cut.ROW] == blocks[i, cut.ROW]:
      count += keep[j]
      j += 1
    if blocks[i, cut.ROW]:
      _put(keep, i, j, 2 * count >= j - i)
    i = j
  return keep


@compiled.inner
def _put(keep, first, last, value):
  for k in range(first, last):
    keep[k] = value


@compiled.kernel(compiled.TEXT, compiled.ROWS, compiled.ROWS)
def _facts(text, blocks, nodes):
  """float32 [blocks, 6]: link share, sentences, mark, heading, fenced, colon."""
  n = len(blocks)
  facts = np.zeros((n, 6), np.float32)
  for i in range(n):
    start, end = blocks[i, cut.START], blocks[i, cut.END]
    facts[i, LINKED] = blocks[i, cut.LINK] / (end - start)
    facts[i, COLON] = text[end - 1] == 58  # :
    long = end - start >= 60 and facts[i, LINKED] < 0.4
    facts[i, SOLID] = end - start if long else 0
    for k in range(start, end - 2):
      if text[k] == 0xEE and text[k + 1] == 0x80 and text[k + 2] == 0x80:
        facts[i, MARKED] = 1
        break
    node = blocks[i, cut.NODE]
    while node > 0:
      kind = nodes[node, cut.KIND]
      if cut.TAG_H1 <= kind <= cut.TAG_H6 and end - start < 300:
        facts[i, HEADING] = kind - cut.TAG_H1 + 1
      small = nodes[node, cut.LAST] - nodes[node, cut.FIRST] < n // 3
      for k in range(len(FENCE)):
        if kind == FENCE[k] and small:
          facts[i, FENCED] = 1
      node = nodes[node, cut.PARENT]
  return facts


@compiled.kernel(
  compiled.FLOATS_F, compiled.TABLE_F, compiled.ROWS, compiled.ROWS, compiled.BOOL
)
def _decide(score, facts, blocks, nodes, heading):
  n = len(score)
  keep = np.zeros(n, np.bool_)
  for i in range(n):
    keep[i] = score[i] > 0
  _groups(keep, score, facts, blocks, nodes)
  page, kept, some = 0.0, 0.0, False
  for i in range(n):
    if not facts[i, FENCED]:
      page += facts[i, SOLID]
    if keep[i]:
      kept += facts[i, SOLID]
      some = True
  if kept < LEAST * page or not some:
    _fallback(keep, score, facts, blocks, nodes)
  h1, seen = 0, False
  for i in range(n):
    h1 += facts[i, HEADING] == 1
  for i in range(n):
    if facts[i, HEADING] == 1 and (h1 < 3 or not seen):
      first = not seen and heading
      keep[i] = first and not facts[i, FENCED] or (first and h1 == 1)
    seen |= facts[i, HEADING] == 1
    keep[i] |= facts[i, MARKED] > 0
  return keep


@compiled.once
def _groups(keep, score, facts, blocks, nodes):
  """Tables and lists as wholes: by the mean score, or by the text they stand in."""
  n, i = len(keep), np.int64(0)
  first, last = n, -1
  for k in range(n):
    if keep[k]:
      first, last = min(first, k), k
  while i < n:
    group = _group(i, blocks, nodes)
    j, total, size, link = i, 0.0, 0.0, 0.0
    while j < n and group and _group(j, blocks, nodes) == group:
      weight = math.sqrt(blocks[j, cut.END] - blocks[j, cut.START])
      total += weight * min(3.0, max(-3.0, score[j]))
      link += weight * facts[j, LINKED]
      size += weight
      j += 1
    if not group or (j - i < 2 and group < 0):
      i += 1
      continue
    mean, row = total / size, group > 0
    near = i > 0 and keep[i - 1] and first < i
    closed = near and (j <= last or (row and j == n))
    both = near and row and j < n and keep[j]
    inside = closed and (both or link < (0.95 if row else 0.3) * size)
    inside = inside and (both or mean > (-2.5 if row else -1.0))
    inside |= row and mean > -2.0 and link < 0.5 * size and _around(i, j, score, blocks)
    led = near and mean > -2.0 and link < 0.5 * size and facts[i - 1, COLON] > 0
    most = row and j - i >= 0.4 * n and not facts[i, FENCED]
    _put(keep, i, j, mean > 0 or inside or led or most)
    i = j


@compiled.inner
def _around(i, j, score, blocks):
  """Whether a block right before or after is text and none is far from it."""
  before = i > 0 and score[i - 1] > 0
  after = j < len(score) and score[j] > 0
  return (before and after) or ((before or after) and j - i >= 0.4 * len(score))


@compiled.inner
def _group(i, blocks, nodes):
  """Number of a block's table, minus the element of its innermost list; 0 outside."""
  if blocks[i, cut.ROW]:
    return blocks[i, cut.ROW]
  node = blocks[i, cut.NODE]
  for _ in range(4):
    if nodes[node, cut.KIND] == T_LI or nodes[node, cut.KIND] == T_DD:
      return -nodes[node, cut.PARENT]
    if nodes[node, cut.KIND] == T_DT:
      return -nodes[node, cut.PARENT]
    node = nodes[node, cut.PARENT]
  return 0


@compiled.once
def _fallback(keep, score, facts, blocks, nodes):
  """Text without links in the smallest element that holds half of the page's."""
  n = len(keep)
  sums = np.zeros(n + 1)
  for i in range(n):
    value = facts[i, SOLID] * (not facts[i, FENCED])
    sums[i + 1] = sums[i] + value
  if sums[n] == 0:
    some = False
    for i in range(n):
      size = blocks[i, cut.END] - blocks[i, cut.START]
      keep[i] = size >= 25 and facts[i, LINKED] < 0.4 and not facts[i, FENCED]
      some |= keep[i]
    for i in range(n):  # a page of a few words, of which a menu's are none
      node, menu = blocks[i, cut.NODE], False
      while node > 0:
        for k in range(len(FENCE)):
          menu |= nodes[node, cut.KIND] == FENCE[k]
        node = nodes[node, cut.PARENT]
      keep[i] |= not some and facts[i, LINKED] < 0.4 and not menu
    return
  best, least = 0, n + 1
  for k in range(len(nodes)):
    first, last = nodes[k, cut.FIRST], nodes[k, cut.LAST]
    if 2 * (sums[last] - sums[first]) >= sums[n] and last - first <= least:
      best, least = k, last - first
  for i in range(nodes[best, cut.FIRST], nodes[best, cut.LAST]):
    heading = facts[i, HEADING] > 0 and not facts[i, FENCED]
    keep[i] = facts[i, LINKED] < 0.4 and (sums[i + 1] > sums[i] or score[i] > -1.0)
    keep[i] |= heading and facts[i, LINKED] < 0.4
