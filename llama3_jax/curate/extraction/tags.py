"""Reads tags of serialised HTML: attributes, words of names, elements to skip."""

import numba
import numpy as np

from llama3_jax.curate.extraction import markup
from llama3_jax.curate.extraction import names

CLASS_ATTR, ID_ATTR, HREF, STYLE_ATTR, HIDE, ROLE, ITEMPROP = (
  markup._codes(name)[0] for name in 'class id href style hidden role itemprop'.split()
)
STYLE = markup._codes('style')[0]
WORDS = numba.types.Tuple((markup.KEYS, markup.NUMBERS, markup.TEXT))  # names.table


@markup.inner
def tag_end(raw, i):
  """Position after the '>' of a tag."""
  while i < len(raw) and raw[i] != 62:
    if raw[i] == 34:
      i += 1
      while i < len(raw) and raw[i] != 34:
        i += 1
    i += 1
  return i + 1


@markup.inner
def skip(raw, i, name):
  """Position after the end tag of an element, of the same name inside or not."""
  level = 1
  while i < len(raw) - 2:
    if raw[i] == 60:
      end = raw[i + 1] == 47
      found, j = markup._name(raw, i + 1 + end)
      if found == name:
        level += -1 if end else 1
        if level == 0:
          return tag_end(raw, j)
      i += 1 + end
    else:
      i += 1
  return len(raw)


@markup.inner
def attributes(raw, i, words, found):
  """Reads a start tag: found = (class bits, shape, hidden, href, skip); position."""
  found[:] = 0
  size = len(raw)
  while i < size and raw[i] != 62:
    if raw[i] <= 32 or raw[i] == 47:
      i += 1
      continue
    name, j = markup._name(raw, i)
    i = max(j, i + 1)
    while i < size and raw[i] != 61 and raw[i] != 62 and raw[i] > 32:
      name, i = np.uint64(0), i + 1
    if i >= size or raw[i] != 61:
      found[2] |= name == HIDE
      continue
    start = i + 2
    i = start
    while i < size and raw[i] != 34:
      i += 1
    if name == CLASS_ATTR or name == ID_ATTR or name == ROLE or name == ITEMPROP:
      found[0] |= _words(raw, start, i, words)
      if name == CLASS_ATTR:
        found[1] = np.int64(markup._hash(raw, start, i) >> np.uint64(2))
        found[4] |= _anchor(raw, start, i)
    elif name == HREF:
      found[3] = 1
    elif name == STYLE_ATTR:
      found[2] |= _has(raw, start, i)
    i += 1
  return i + 1


@markup.once
def _has(raw, i, end):
  """Whether a style has 'display' and 'none' after it."""
  for k in range(i, end - 11):
    if raw[k] == 100 and raw[k + 1] == 105 and raw[k + 2] == 115 and raw[k + 6] == 121:
      for j in range(k + 7, min(k + 12, end - 3)):
        if raw[j] == 110 and raw[j + 1] == 111 and raw[j + 2] == 110:
          return 1
  return 0


@markup.once
def _anchor(raw, i, end):
  """Whether a class is of a heading's sign: headerlink, anchorjs-, mw-editsection."""
  for k in range(i, end - 9):
    a, b, c, d = raw[k], raw[k + 3], raw[k + 5], raw[k + 9]
    if a == 104 and b == 100 and c == 114 and d == 107 and raw[k + 6] == 108:
      return 1  # headerlink
    if a == 97 and b == 104 and c == 114 and raw[k + 6] == 106 and raw[k + 7] == 115:
      return 1  # anchorjs
    if a == 109 and b == 101 and c == 105 and raw[k + 1] == 119 and raw[k + 2] == 45:
      return 1  # mw-edit
  return 0


@markup.inner
def _words(raw, i, end, words):
  """Bits of the groups whose words begin, or are, words of a name."""
  bits = np.int64(0)
  while i < end:
    if not (97 <= raw[i] | 32 <= 122):
      i += 1
      continue
    value, start, known = np.uint64(1469598103934665603), i, True
    while i < end and (97 <= raw[i] | 32 <= 122):
      if i > start and raw[i] < 97 and raw[i - 1] >= 97:
        break  # camelCase
      value = (value ^ np.uint64(raw[i] | 32)) * np.uint64(1099511628211)
      i += 1
      if i - start == 3:
        known = begins(value, words)
      if i - start > 1 and known:
        bits |= look(value, words, i < end and raw[i] >= 97 and raw[i] <= 122)
  return bits


@markup.inner
def begins(value, words):
  """Whether a word begins with the three bytes of a hash, or may."""
  return words[2][value & np.uint64(names.BEGINS - 1)] > 0


@markup.inner
def look(key, words, more):
  keys, values = words[0], words[1]
  slot = key & np.uint64(4095)
  while keys[slot] != 0:
    if keys[slot] == key:
      value = values[slot]
      if value >> 32 and more:
        return np.int64(0)
      return value & 0xFFFFFFFF
    slot = (slot + np.uint64(1)) & np.uint64(4095)
  return np.int64(0)


def lean(page: bytes) -> bytes:
  """A page without its scripts (but those of formulas), styles and comments."""
  return _lean(np.frombuffer(page, np.uint8)).tobytes()


@numba.njit(cache=True, nogil=True)
def _lean(raw):
  size, i, done, count = len(raw), 0, 0, 0
  out = np.empty(size, np.uint8)
  while i < size - 2:
    if raw[i] != 60 or not (markup._letter(raw[i + 1]) or raw[i + 1] == 33):
      i += 1
      continue
    start = i
    if raw[i + 1] == 33:
      i += 1
      if raw[i + 1] != 45 or i + 2 >= size or raw[i + 2] != 45:
        continue
      i = markup._after_comment(raw, i)
    else:
      name, i = markup._name(raw, i + 1)
      _, hint, i = markup._attributes(raw, i, name == markup.SCRIPT)
      if markup._in(markup.RAWS, name):
        i = markup._after_raw(raw, i, name)
      if hint >= 2 or (name != markup.SCRIPT and name != STYLE):
        continue
      while i < size and raw[i] != 62:  # of the end tag
        i += 1
      i = min(i + 1, size)
    for k in range(done, start):
      out[count] = raw[k]
      count += 1
    done = i
  for k in range(done, size):
    out[count] = raw[k]
    count += 1
  return out[:count]


_lean.compile((markup.BYTES,))
