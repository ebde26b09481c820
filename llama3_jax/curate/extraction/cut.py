"""Cuts the HTML that a parser wrote out into blocks of text and a tree of elements.

The input is the serialisation of a parsed body: well nested, attributes in double
quotes, four entities. One pass: about 3 ns a byte.
"""

import dataclasses

import numpy as np

from llama3_jax.curate.extraction import markup
from llama3_jax.curate.extraction import names
from llama3_jax.curate.extraction import tags
from llama3_jax.curate.machine import compiled

INLINE = (
  'a abbr acronym b bdi bdo big cite code data del dfn em font i ins kbd label mark '
  'nobr q rp rt ruby s samp small span strike strong sub sup time tt u var wbr'
)
VOID = 'area base basefont bgsound col embed frame hr img input link meta param source '
VOID += 'track keygen wbr br'
SKIPPED = 'script style textarea select iframe noembed noframes template svg canvas '
SKIPPED += 'object video audio title xmp plaintext datalist map'
TAGS = (
  'p h1 h2 h3 h4 h5 h6 li ul ol dl dt dd tr td th table blockquote pre figure '
  'figcaption article main section nav aside header footer form button a address '
  'details summary noscript div span body center fieldset label caption'
).split()
BREAK, IN_LINE, EMPTY, SKIP = range(4)  # kinds of elements


def _tags():
  """Sorted uint64 names, and their (kind, number in TAGS + 1)."""
  kinds = dict.fromkeys(TAGS, BREAK)
  kinds |= dict.fromkeys(INLINE.split(), IN_LINE)
  kinds |= dict.fromkeys(VOID.split(), EMPTY)
  kinds |= dict.fromkeys(SKIPPED.split(), SKIP)
  rows = [
    (int(markup._codes(name)[0]), kind, TAGS.index(name) + 1 if name in TAGS else 0)
    for name, kind in kinds.items()
  ]
  rows.sort()
  return np.array([r[0] for r in rows], np.uint64), np.array([r[1:] for r in rows])


CODES, KINDS = _tags()
TAG = {name: i + 1 for i, name in enumerate(TAGS)}
TAG_H1, TAG_H6 = TAG['h1'], TAG['h6']
# Columns of blocks and of nodes.
START, END, NODE, LINK, BOLD, GAP, ROW, BREAKS, SLANT, IMAGES, INPUTS, WIDTH = range(12)
PARENT, FIRST, LAST, KIND, CLASS, HIDDEN, SHAPE, DEPTH, NODE_WIDTH = range(9)


@dataclasses.dataclass(frozen=True)
class Cut:
  """Blocks and elements of a page.

  Fields:
    text: uint8, UTF-8 of all blocks, one after the other.
    blocks: int64 [blocks, WIDTH]: START and END in text, NODE, bytes in links and in
      bold, whether a GAP is before it, ROW (number of its table, 0 outside), BREAKS,
      bytes in italics or small, IMAGES and INPUTS since the end of the block before.
    nodes: int64 [elements, NODE_WIDTH]: PARENT, the FIRST block and the one after the
      LAST in it, KIND (1 + index in TAGS), CLASS (bits of names.CLASSES), HIDDEN,
      SHAPE (hash of name and class), DEPTH.
  """

  text: np.ndarray
  blocks: np.ndarray
  nodes: np.ndarray


def cut(html: bytes) -> Cut:
  """Blocks of the serialised body of a page, with its elements."""
  raw = np.frombuffer(html, np.uint8)
  tables = _tables(raw) if b'<table' in html else np.zeros(1, np.uint8)
  words = names.table('classes')
  found = _cut(raw, html.count(b'<') + 2, tables, words, CODES, KINDS)
  return Cut(*found)


TABLE, TR, TD, TH, H1, H2, H3, SCRIPT, STYLE, A, BR, B, STRONG, LI, HR, IMG = (
  markup._codes(name)[0]
  for name in 'table tr td th h1 h2 h3 script style a br b strong li hr img'.split()
)
EM, ITALIC, SMALL, CITE, INPUT, TEXTAREA, SELECT, BUTTON, IFRAME, VIDEO, AUDIO = (
  markup._codes(name)[0]
  for name in 'em i small cite input textarea select button iframe video audio'.split()
)
IS_DD, IS_DT = markup._codes('dd')[0], markup._codes('dt')[0]


@compiled.kernel(compiled.BYTES)
def _tables(raw):
  """uint8 a table, in order: whether it is one of data, whose rows are blocks.

  It has two rows and two columns, no table or heading inside, and short cells.
  """
  data = np.zeros(1000, np.uint8)
  stack, open_, count = np.zeros((200, 6), np.int64), 0, 0
  i, size = 0, len(raw)
  while i < size - 2:
    if raw[i] != 60:
      if open_ and raw[i] > 32:
        stack[open_ - 1, 3] += 1
        stack[open_ - 1, 4] += 1
      i += 1
      continue
    end = raw[i + 1] == 47
    name, j = markup._name(raw, i + 1 + end)
    if name == TABLE:
      if end and open_:
        open_ -= 1
        t = stack[open_]
        flat = t[5] == 0 and t[1] > 1 and t[2] >= 2 * t[1] - 1 and t[3] < 300 * t[2]
        if t[0] < 1000:
          data[t[0]] = flat
      elif not end:
        if open_:
          stack[open_ - 1, 5] = 1
        if open_ < 199:
          stack[open_] = 0
          stack[open_, 0] = count
          open_ += 1
        count += 1
    elif open_ and not end:
      t = stack[open_ - 1]
      t[1] += name == TR
      if name == TD or name == TH:
        t[2] += 1
        t[4] = 0
      t[5] |= (name == H1) | (name == H2) | (name == H3)
    if open_ and stack[open_ - 1, 4] > 1500:
      stack[open_ - 1, 5] = 1
    if raw[i + 1] == 33 and raw[i + 2] == 45:
      i = markup._after_comment(raw, i + 1)
    elif name == SCRIPT or name == STYLE:
      i = tags.skip(raw, tags.tag_end(raw, j), name) if not end else j
    else:
      i = tags.tag_end(raw, j) if j > i + 1 else i + 1
  return data[: max(1, min(count, 1000))]


# State of the cutter: an array, so that functions can share it.
(
  OUT, BLOCKS, NODES, TOP, SPACE, LINKS, BOLDS, AT, TABLES, DATA, CELL, NEWGAP,
  BLANK, LINKED, BOLDED, LINES, SLANTS, SLANTED, IMAGED, ASKED, STATES,
) = range(21)  # fmt: skip


@compiled.kernel(
  compiled.BYTES,
  compiled.INT,
  compiled.TEXT,
  compiled.WORDS,
  compiled.KEYS,
  compiled.ROWS,
)
def _cut(raw, most, tables, words, codes, kinds):
  size, i = len(raw), np.int64(0)
  out = np.empty(size + most + 16, np.uint8)
  blocks = np.zeros((most + 1, WIDTH), np.int64)
  nodes = np.zeros((most + 1, NODE_WIDTH), np.int64)
  stack, opened = np.zeros(most + 1, np.int64), np.zeros(most + 1, np.uint64)
  s, found = np.zeros(STATES, np.int64), np.zeros(5, np.int64)
  s[NODES], s[TOP], s[NEWGAP] = 1, 1, 1  # node 0 holds all
  while i < size:
    byte = raw[i]
    if byte != 60:
      if byte <= 32:
        s[SPACE] = 1
        i += 1
      else:
        i = _text(raw, i, out, s)
      continue
    if i + 2 < size and raw[i + 1] == 33:
      i = (
        markup._after_comment(raw, i + 1) if raw[i + 2] == 45 else tags.tag_end(raw, i)
      )
      continue
    end = i + 1 < size and raw[i + 1] == 47
    name, j = markup._name(raw, i + 1 + end)
    if j == i + 1 + end:
      i = tags.tag_end(raw, j) if end else _text(raw, i, out, s)
      continue
    k = markup._find(codes, name)
    known = codes[k] == name
    kind, tag = (kinds[k, 0], kinds[k, 1]) if known else (BREAK, 0)
    if end:
      i = tags.tag_end(raw, j)
      _close(name, out, blocks, nodes, stack, opened, codes, kinds, s)
      continue
    i = tags.attributes(raw, j, words, found)
    if kind == SKIP:
      i = tags.skip(raw, i, name)
      s[SPACE] = 1
      s[IMAGED] += name == IFRAME or name == VIDEO or name == AUDIO
      s[ASKED] += name == TEXTAREA or name == SELECT
    elif kind == EMPTY:
      s[IMAGED] += name == IMG
      s[ASKED] += name == INPUT
      if name == BR and not s[DATA]:
        s[BLANK] += 1
      if name == HR or s[BLANK] > 1:
        _finish(out, blocks, nodes, stack, s)
        s[NEWGAP] = 1
      elif not s[BLANK]:
        s[SPACE] |= name == BR or name == IMG
    elif found[4] and kind == IN_LINE:
      i = tags.skip(raw, i, name)
    else:
      _open(name, kind, tag, found, tables, out, blocks, nodes, stack, opened, s)
  _finish(out, blocks, nodes, stack, s)
  while s[TOP] > 1:
    s[TOP] -= 1
    nodes[stack[s[TOP]], LAST] = s[BLOCKS]
  nodes[0, LAST] = s[BLOCKS]
  return out[: s[OUT]], blocks[: s[BLOCKS]], nodes[: s[NODES]]


@compiled.inner
def _text(raw, i, out, s):
  """Copies one character, decoded, with the space or break that is due before it."""
  byte, step = raw[i], 1
  if byte == 38:  # &
    rest = len(raw) - i
    if rest > 4 and raw[i + 1] == 97 and raw[i + 2] == 109 and raw[i + 4] == 59:
      step = 5
    elif rest > 3 and raw[i + 2] == 116 and raw[i + 3] == 59:
      byte, step = (60 if raw[i + 1] == 108 else 62), 4
    elif rest > 5 and raw[i + 1] == 110 and raw[i + 5] == 59:
      s[SPACE] = 1
      return i + 6
    elif rest > 5 and raw[i + 1] == 113 and raw[i + 5] == 59:
      byte, step = 34, 6
  elif byte == 0xC2 and i + 1 < len(raw) and raw[i + 1] == 0xA0:
    s[SPACE] = 1
    return i + 2
  if s[OUT] > s[AT]:
    if s[BLANK]:
      out[s[OUT]] = 10
      s[OUT] += 1
      s[LINES] += 1
    elif s[SPACE] and out[s[OUT] - 1] > 32:
      out[s[OUT]] = 32
      s[OUT] += 1
  s[BLANK] = s[SPACE] = 0
  out[s[OUT]] = byte
  s[OUT] += 1
  s[LINKED] += s[LINKS] > 0
  s[BOLDED] += s[BOLDS] > 0
  s[SLANTED] += s[SLANTS] > 0
  return i + step


@compiled.inner
def _finish(out, blocks, nodes, stack, s):
  """Ends the block, if it has text."""
  start, end = s[AT], s[OUT]
  while end > start and out[end - 1] <= 32:
    end -= 1
  text = False
  for k in range(start, end):
    text |= out[k] > 32
  if text:
    b = blocks[s[BLOCKS]]
    node = stack[s[TOP] - 1]
    b[START], b[END], b[NODE] = start, end, node
    b[LINK], b[BOLD], b[GAP] = s[LINKED], s[BOLDED], s[NEWGAP]
    b[ROW], b[BREAKS] = s[DATA], s[LINES]
    b[SLANT], b[IMAGES], b[INPUTS] = s[SLANTED], s[IMAGED], s[ASKED]
    s[BLOCKS] += 1
    s[NEWGAP] = s[IMAGED] = s[ASKED] = 0
  s[OUT] = end if text else start
  s[AT] = s[OUT]
  s[LINKED] = s[BOLDED] = s[SLANTED] = s[BLANK] = s[LINES] = s[CELL] = 0
  s[SPACE] = 0


@compiled.inner
def _ends(name, kind, s):
  """Whether a tag ends the block: 0 no, 1 it does, 2 with an empty line after it."""
  if name == TABLE:
    return 2
  if s[DATA]:
    return 1 if name == TR else 0
  if kind != BREAK:
    return 0
  return 1 if name == LI or name == IS_DD or name == IS_DT or name == TR else 2


@compiled.inner
def _slanted(name):
  return name == EM or name == ITALIC or name == SMALL or name == CITE


@compiled.once
def _open(name, kind, tag, found, tables, out, blocks, nodes, stack, opened, s):
  ends = _ends(name, kind, s)
  if ends:
    _finish(out, blocks, nodes, stack, s)
    s[NEWGAP] |= ends == 2
  if name == TABLE:
    s[TABLES] += 1
    if s[TABLES] <= len(tables) and tables[s[TABLES] - 1]:
      s[DATA] = s[TABLES]
  elif s[DATA]:
    if name == TD or name == TH:
      if s[CELL]:
        while s[OUT] > s[AT] and out[s[OUT] - 1] == 32:
          s[OUT] -= 1
        out[s[OUT]] = 9
        s[OUT] += 1
      s[CELL], s[SPACE] = 1, 0
    elif kind == BREAK and name != TR:
      s[SPACE] = 1
  s[LINKS] += name == A and found[3]
  s[BOLDS] += name == B or name == STRONG
  s[SLANTS] += _slanted(name)
  s[ASKED] += name == BUTTON
  node = nodes[s[NODES]]
  parent = stack[s[TOP] - 1]
  node[PARENT], node[FIRST], node[KIND], node[CLASS] = parent, s[BLOCKS], tag, found[0]
  node[HIDDEN] = found[2] | nodes[parent, HIDDEN]
  node[SHAPE] = (np.int64(name >> np.uint64(3)) * 31) ^ found[1]
  node[DEPTH] = nodes[parent, DEPTH] + 1
  stack[s[TOP]], opened[s[TOP]] = s[NODES], name
  s[NODES] += 1
  s[TOP] += 1


@compiled.once
def _close(name, out, blocks, nodes, stack, opened, codes, kinds, s):
  top = s[TOP] - 1
  while top > 0 and opened[top] != name:
    top -= 1
  if top == 0:
    return
  k = markup._find(codes, name)
  kind = kinds[k, 0] if codes[k] == name else BREAK
  ends = _ends(name, kind, s)
  if ends:
    _finish(out, blocks, nodes, stack, s)
    s[NEWGAP] |= ends == 2
  if name == TABLE:
    s[DATA] = 0
  elif s[DATA] and kind == BREAK and name != TR:
    s[SPACE] = 1
  while s[TOP] > top:
    s[TOP] -= 1
    node = nodes[stack[s[TOP]]]
    node[LAST] = s[BLOCKS]
    if opened[s[TOP]] == A:
      s[LINKS] = max(0, s[LINKS] - 1)
    s[BOLDS] -= (opened[s[TOP]] == B or opened[s[TOP]] == STRONG) and s[BOLDS] > 0
    s[SLANTS] -= _slanted(opened[s[TOP]]) and s[SLANTS] > 0
