"""Cost of parsing a page's markup, and its contents, from one pass over its bytes.

An HTML parser builds whatever the markup asks for: a million nested elements, a copy of
every open <font> in every paragraph, an element with a million attributes. Time and
memory of parsing and of extraction are bounded by the numbers here, so that a page can
be refused before it is parsed; and passes that look for code or formulas run only where
there are some. About 1 ns a byte.
"""

import dataclasses

import numpy as np
import pyarrow as pa

from llama3_jax.curate.machine import compiled
from llama3_jax.curate.machine import search

VOID = 'area base br col embed frame hr img input link meta param source track wbr'
# Their end tag may be left out, and the next of their kind closes an open one.
IMPLIED = 'p li dt dd tr td th option tbody thead tfoot colgroup caption'
PAGE = 'html head body'  # one of each, wherever the tags are
# Open ones are copied into the elements that follow (the parser's active formatting).
FORMATTING = 'a b big code em font i nobr s small strike strong tt u'
CELL = 'td th tr tbody thead tfoot caption'  # formatting ends with them
# An end tag reaches no further up than the last of these.
SCOPE = 'table object marquee applet template foreignobject annotation'
# HTML again inside SVG and MathML; without them a tag of HTML ends the drawing.
HTML_IN = 'foreignobject desc title annotation mi mo mn ms mtext'
LEAVES = (
  'b big blockquote body br center code dd div dl dt em embed h1 h2 h3 h4 h5 h6 head '
  'hr i img li listing menu meta nobr ol p pre ruby s small span strong strike sub sup '
  'table tt u ul var'
)
RAW = 'script style textarea title xmp iframe noembed noframes'  # no markup inside
CODE = 'pre xmp listing plaintext code tt kbd samp'
MATH = 'math mjx'


def _codes(names):
  """np.uint64: names as numbers (their first 8 letters), sorted."""
  codes = [int.from_bytes(name.encode()[:8], 'little') for name in names.split()]
  return np.array(sorted(codes), np.uint64)


LEVELED = _codes(IMPLIED)
FLAT = _codes(f'{VOID} {IMPLIED} {PAGE}')
FORMATS = _codes(FORMATTING)
CELLS, SCOPES = _codes(CELL), _codes(SCOPE)
INTEGRATED, LEAVING = _codes(HTML_IN), _codes(LEAVES)
RAWS = _codes(RAW)
CODES = _codes(CODE)
MATHS = _codes(MATH)
SCRIPT, IMG, UL, A, NOBR, TABLE, SVG, MATHML, TR, TD, TH = (
  _codes(name)[0] for name in 'script img ul a nobr table svg math tr td th'.split()
)
MOST = 20_000  # open elements; a page with more is not read on
STEPS = 100_000_000  # over open elements in search of one; the same
OUTER = 2  # <html>, <body>
PLAIN, DRAWN, FORMAT = 0, 1, 2  # kinds of open elements


@dataclasses.dataclass(frozen=True)
class Markup:
  """Counts of the markup of one page.

  Fields:
    nodes: upper estimate of the elements that the parser makes, copies included.
    depth: the deepest nesting, as the parser nests: what closes itself in a drawing is
      not nested, an end tag without its start closes nothing. At most MOST.
    walk: sum over elements of their depth (extraction walks to the root from each).
    pairs: sum over elements of the square of their attributes (each new one is compared
      with those before it).
    code: code elements.
    math: elements that may hold a formula: MathML, MathJax, TeX scripts.
    images: images that may show a formula: something TeX-like in their attributes.
    lists: <ul> without attributes.
  """

  nodes: int
  depth: int
  walk: int
  pairs: int
  code: int
  math: int
  images: int
  lists: int


def scan(page: bytes | pa.Buffer) -> Markup:
  """Markup of a page (its UTF-8 bytes, or a buffer of them)."""
  raw = np.frombuffer(page, np.uint8)
  raw.flags.writeable = False
  return Markup(*(int(n) for n in _scan(raw)))


@compiled.kernel(compiled.BYTES)
def _scan(raw):
  size, i, deepest = len(raw), 0, OUTER
  nodes = walk = pairs = code = math = images = lists = 0
  # Open elements (name; kind, innermost table, active formats at its start, levels of
  # elements in it whose end tag may be left out), active formats (name, hash of tag).
  names, rows = np.empty(MOST, np.uint64), np.empty((MOST, 4), np.int32)
  formats = np.empty((MOST, 2), np.uint64)
  # Open elements, active formats, steps, open formats, levels in all.
  at = np.zeros(5, np.int64)
  while i < size - 2:
    if raw[i] != 60:  # <
      i += 1
      continue
    i += 1
    if raw[i] == 33 and raw[i + 1] == 45:  # <!-
      i = _after_comment(raw, i)
      continue
    end = raw[i] == 47  # /
    i += end
    start, (name, i) = i, _name(raw, i)
    if i == start or not _letter(raw[start]) or raw[start] < 65:
      continue
    attributes, hint, i = _attributes(raw, i, name == SCRIPT or name == IMG)
    if end:
      if _in(LEVELED, name):
        _level(_levels(name) - 1, rows, at)
      _close(name, names, rows, formats, at)
      continue
    drawn = _drawn(name, names, rows, at)
    nodes += 1
    if drawn:
      if raw[i - 2] != 47:
        _push(name, PLAIN if _in(INTEGRATED, name) else DRAWN, names, rows, at)
    elif _in(FORMATS, name):
      if _format(name, _hash(raw, start, i), formats, at):
        _remove(name, names, rows, at)
      _push(name, FORMAT, names, rows, at)
    else:
      nodes += at[1]
      if _in(CELLS, name):
        _cell(rows, at)
      if _in(LEVELED, name):
        _level(_levels(name), rows, at)
      if not _in(FLAT, name):
        drawn = name == SVG or name == MATHML
        _push(name, DRAWN if drawn else PLAIN, names, rows, at)
    depth = OUTER + at[0] + at[4] + max(0, at[1] - at[3])
    walk += depth
    deepest = max(deepest, depth)
    if depth > MOST - 4 or at[2] > STEPS:
      break
    pairs += attributes * attributes
    code += _in(CODES, name)
    math += _in(MATHS, name) or (name == SCRIPT and hint >= 2)
    images += name == IMG and hint > 0
    lists += name == UL and attributes == 0
    if _in(RAWS, name) and not (at[0] and rows[at[0] - 1, 0] == DRAWN):
      i = _after_raw(raw, i, name)
  return nodes, deepest, walk + at[2], pairs, code, math, images, lists


@compiled.once
def _drawn(name, names, rows, at):
  """Whether a start tag is of SVG or MathML; a tag of HTML leaves the drawing."""
  if at[0] == 0 or rows[at[0] - 1, 0] != DRAWN:
    return False
  if not _in(LEAVING, name):
    return True
  while at[0] > 0 and rows[at[0] - 1, 0] == DRAWN:
    at[0] -= 1  # no format is inside
    at[4] -= rows[at[0], 3]
  return False


@compiled.inner
def _push(name, kind, names, rows, at):
  top = at[0]
  names[top] = name
  rows[top, 0] = kind
  at[3] += kind == FORMAT
  rows[top, 1] = top if name == TABLE else rows[top - 1, 1] if top else -1
  rows[top, 2] = at[1]
  rows[top, 3] = 0
  at[0] += 1


@compiled.inner
def _level(levels, rows, at):
  if at[0]:
    at[4] += levels - rows[at[0] - 1, 3]
    rows[at[0] - 1, 3] = levels


@compiled.inner
def _levels(name):
  if name == TD or name == TH:
    return 3  # tbody, tr, td
  return 2 if name == TR else 1


@compiled.inner
def _cell(rows, at):
  """Formats that were opened in the last cell of the innermost table end."""
  table = rows[at[0] - 1, 1] if at[0] else -1
  if table >= 0:
    at[1] = min(at[1], rows[table, 2])


@compiled.once
def _format(name, tag, formats, at):
  """Adds to the active formats; returns whether an open one ends.

  One <a> or <nobr> is active at a time, and three equal ones of the others.
  """
  most, equal, first = 1 if name == A or name == NOBR else 3, 0, -1
  for k in range(at[1] - 1, -1, -1):
    at[2] += 1
    if formats[k, 0] == name and (most == 1 or formats[k, 1] == tag):
      equal, first = equal + 1, k
      if equal == most:
        break
  if equal < most:
    first = at[1]
    at[1] += 1
  for k in range(first, at[1] - 1):
    at[2] += 1
    formats[k, 0], formats[k, 1] = formats[k + 1, 0], formats[k + 1, 1]
  formats[at[1] - 1, 0], formats[at[1] - 1, 1] = name, tag
  return most == 1 and equal == 1


@compiled.inner
def _remove(name, names, rows, at):
  """Closes the innermost open format of a name, not what is in it."""
  for k in range(at[0] - 1, -1, -1):
    at[2] += 1
    if names[k] == name:
      at[4] -= rows[k, 3]
      for j in range(k, at[0] - 1):
        at[2] += 1
        names[j] = names[j + 1]
        for c in range(4):
          rows[j, c] = rows[j + 1, c]
        if rows[j, 1] > k:
          rows[j, 1] -= 1
      at[0] -= 1
      at[3] -= 1
      return
    if _in(SCOPES, names[k]):
      return


@compiled.once
def _close(name, names, rows, formats, at):
  """Closes the innermost open element of a name and all in it; none closes nothing."""
  if _in(CELLS, name):
    _cell(rows, at)
  elif _in(FORMATS, name) and not (at[0] and rows[at[0] - 1, 0] == DRAWN):
    _remove(name, names, rows, at)
    for k in range(at[1] - 1, -1, -1):
      at[2] += 1
      if formats[k, 0] == name:
        for j in range(k, at[1] - 1):
          at[2] += 1
          formats[j, 0], formats[j, 1] = formats[j + 1, 0], formats[j + 1, 1]
        at[1] -= 1
        return
  elif not _in(FLAT, name):
    for k in range(at[0] - 1, -1, -1):
      at[2] += 1
      if names[k] == name:
        if name == TABLE:
          at[1] = min(at[1], rows[k, 2])
        for j in range(k, at[0]):
          at[3] -= rows[j, 0] == FORMAT
          at[4] -= rows[j, 3]
        at[0] = k
        return
      if _in(SCOPES, names[k]):
        return


@compiled.inner
def _hash(raw, start, end):
  value = np.uint64(1469598103934665603)
  for i in range(start, end):
    value = (value ^ np.uint64(raw[i])) * np.uint64(1099511628211)
  return value


@compiled.inner
def _name(raw, i):
  """(name of a tag or attribute as a number, position after it)."""
  name, start = np.uint64(0), i
  while i < len(raw) and _letter(raw[i]):
    if i - start < 8:
      name |= np.uint64(_lower(raw[i])) << np.uint64(8 * (i - start))
    i += 1
  return name, i


@compiled.inner
def _letter(byte):
  lower = byte | 32
  return (97 <= lower <= 122) or (48 <= byte <= 57)


@compiled.inner
def _lower(byte):
  return byte | 32 if 65 <= byte <= 90 else byte


@compiled.inner
def _in(codes, name):
  return codes[_find(codes, name)] == name


@compiled.inner
def _find(codes, name):
  """Place of a number in sorted ones, or of the next one or the last."""
  return min(search.place(codes, name), len(codes) - 1)


@compiled.inner
def _after_comment(raw, i):
  """Position after '-->', or the end."""
  while i < len(raw) - 2:
    if raw[i] == 45 and raw[i + 1] == 45 and raw[i + 2] == 62:
      return i + 3
    i += 1
  return len(raw)


@compiled.inner
def _after_raw(raw, i, name):
  """Position of the end tag of an element without markup inside, or the end."""
  while i < len(raw) - 2:
    if raw[i] == 60 and raw[i + 1] == 47:
      code, k = np.uint64(0), i + 2
      while k < len(raw) and _letter(raw[k]):
        if k - i - 2 < 8:
          code |= np.uint64(_lower(raw[k])) << np.uint64(8 * (k - i - 2))
        k += 1
      if code == name:
        return i
    i += 1
  return len(raw)


@compiled.inner
def _attributes(raw, i, look):
  """(number of attributes, hints of a formula in them, position after '>').

  Hints, where `look` asks for them: 1 = TeX syntax or the word tex, 2 = the word math.
  """
  count, start, last, size = 0, i, 32, len(raw)
  while i < size and raw[i] != 62:  # >
    byte = raw[i]
    if byte > 47:
      if last != 61 and (last <= 32 or last == 47 or last == 34 or last == 39):
        count += byte != 61  # also with spaces around '=': an upper estimate
      last = byte
    elif (byte == 34 or byte == 39) and last == 61:  # a quotation mark after =
      i += 1
      while i < size and raw[i] != byte:
        i += 1
      last = 32
    elif byte > 32 or last != 61:
      count += byte > 32 and byte != 47 and (last <= 32 or last == 47)
      last = byte
    i += 1
  return count, _hints(raw, start, i) if look else 0, i + 1


@compiled.once
def _hints(raw, start, end):
  hint = 0
  for i in range(start + 3, end):
    byte, last = raw[i], raw[i - 1]
    if byte == 92 or (byte == 123 and (last == 94 or last == 95)):  # \\ ^{ _{
      hint |= 1
    elif byte == 36 and (last == 34 or last == 39):  # "$
      hint |= 1
    elif byte | 32 == 104 and last | 32 == 116:  # maTH
      hint |= 2 * (raw[i - 2] | 32 == 97 and raw[i - 3] | 32 == 109)
    elif byte | 32 == 120 and last | 32 == 101:  # tEX
      hint |= raw[i - 2] | 32 == 116
  return hint
