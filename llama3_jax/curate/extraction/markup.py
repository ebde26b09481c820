"""Cost of parsing a page's markup, and its contents, from one pass over its bytes.

An HTML parser builds whatever the markup asks for: a million nested elements, a copy of
every open <font> in every paragraph, an element with a million attributes. Time and
memory of parsing and of extraction are bounded by the numbers here, so that a page can
be refused before it is parsed; and passes that look for code or formulas run only where
there are some. About 1 ns a byte.
"""

import dataclasses

import numba
import numpy as np
import pyarrow as pa

VOID = 'area base br col embed frame hr img input link meta param source track wbr'
# Their end tag may be left out, so an open one says nothing about depth.
IMPLIED = (
  'p li dt dd tr td th option optgroup rb rt rp tbody thead tfoot colgroup caption'
)
# Open ones are copied into the elements that follow (the parser's active formatting).
FORMATTING = 'a b big code em font i nobr s small strike strong tt u'
RAW = 'script style textarea title xmp iframe noembed noframes'  # no markup inside
CODE = 'pre xmp listing plaintext code'
MATH = 'math mjx'


def _codes(names):
  """np.uint64: names as numbers (their first 8 letters), sorted."""
  codes = [int.from_bytes(name.encode()[:8], 'little') for name in names.split()]
  return np.array(sorted(codes), np.uint64)


FLAT = _codes(f'{VOID} {IMPLIED}')
FORMATS = _codes(FORMATTING)
RAWS = _codes(RAW)
CODES = _codes(CODE)
MATHS = _codes(MATH)
SCRIPT, IMG, UL = (_codes(name)[0] for name in ('script', 'img', 'ul'))


@dataclasses.dataclass(frozen=True)
class Markup:
  """Counts of the markup of one page.

  Fields:
    nodes: upper estimate of the elements that the parser makes, copies included.
    depth: the deepest nesting.
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
  return Markup(*(int(n) for n in _scan(np.frombuffer(page, np.uint8))))


@numba.njit(cache=True, nogil=True)
def _scan(raw):
  size, i = len(raw), 0
  nodes = walk = pairs = code = math = images = lists = 0
  depth = deepest = formats = 0
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
    start, name = i, np.uint64(0)
    while i < size and _letter(raw[i]):
      if i - start < 8:
        name |= np.uint64(_lower(raw[i])) << np.uint64(8 * (i - start))
      i += 1
    if i == start or not _letter(raw[start]) or raw[start] < 65:
      continue
    attributes, hint, i = _attributes(raw, i, name == SCRIPT or name == IMG)
    flat, formatting = _in(FLAT, name), _in(FORMATS, name)
    if end:
      depth -= depth > 0 and not flat
      formats -= formats > 0 and formatting
      continue
    depth += not flat
    formats += formatting
    nodes += 1 if formatting else 1 + formats
    walk += depth
    deepest = max(deepest, depth)
    pairs += attributes * attributes
    code += _in(CODES, name)
    math += _in(MATHS, name) or (name == SCRIPT and hint >= 2)
    images += name == IMG and hint > 0
    lists += name == UL and attributes == 0
    if _in(RAWS, name):
      i = _after_raw(raw, i, name)
  return nodes, deepest, walk, pairs, code, math, images, lists


@numba.njit(cache=True, nogil=True)
def _letter(byte):
  lower = byte | 32
  return (97 <= lower <= 122) or (48 <= byte <= 57)


@numba.njit(cache=True, nogil=True)
def _lower(byte):
  return byte | 32 if 65 <= byte <= 90 else byte


@numba.njit(cache=True, nogil=True)
def _in(codes, name):
  return codes[np.searchsorted(codes[:-1], name)] == name


@numba.njit(cache=True, nogil=True)
def _after_comment(raw, i):
  """Position after '-->', or the end."""
  while i < len(raw) - 2:
    if raw[i] == 45 and raw[i + 1] == 45 and raw[i + 2] == 62:
      return i + 3
    i += 1
  return len(raw)


@numba.njit(cache=True, nogil=True)
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


@numba.njit(cache=True, nogil=True)
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
  return count, _hints(raw[start:i]) if look else 0, i + 1


@numba.njit(cache=True, nogil=True)
def _hints(raw):
  hint = 0
  for i in range(3, len(raw)):
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
