"""Reads tags of serialised HTML: attributes, words of names, elements to skip."""

import numpy as np

from llama3_jax.curate.extraction import markup
from llama3_jax.curate.extraction import names
from llama3_jax.curate.machine import compiled

CLASS_ATTR, ID_ATTR, HREF, STYLE_ATTR, HIDE, ROLE, ITEMPROP = (
  markup._codes(name)[0] for name in 'class id href style hidden role itemprop'.split()
)
STYLE = markup._codes('style')[0]
# Attributes that nothing reads (their first letters: data-*, aria-*), and elements that
# keep theirs, since a parser compares or reads them.
UNREAD = markup._codes(
  'd src srcset sizes title target rel onclick onmousedown aria data width height'
)
KEPT = markup._codes(f'{markup.FORMATTING} {markup.RAW} input template annotation')
A = markup.A
MOST_UNREAD, LONG = 64, 16  # of a tag; bytes of attributes that are looked at


@compiled.inner
def tag_end(raw, i):
  """Position after the '>' of a tag."""
  while i < len(raw) and raw[i] != 62:
    if raw[i] == 34:
      i += 1
      while i < len(raw) and raw[i] != 34:
        i += 1
    i += 1
  return i + 1


@compiled.inner
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


@compiled.inner
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


@compiled.once
def _has(raw, i, end):
  """Whether a style has 'display' and 'none' after it."""
  for k in range(i, end - 11):
    if raw[k] == 100 and raw[k + 1] == 105 and raw[k + 2] == 115 and raw[k + 6] == 121:
      for j in range(k + 7, min(k + 12, end - 3)):
        if raw[j] == 110 and raw[j + 1] == 111 and raw[j + 2] == 110:
          return 1
  return 0


@compiled.once
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


@compiled.inner
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


@compiled.inner
def begins(value, words):
  """Whether a word begins with the three bytes of a hash, or may."""
  return words[2][value & np.uint64(names.BEGINS - 1)] > 0


@compiled.inner
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


def lean(page: bytes, plain: bool = False) -> bytes:
  """A page without its scripts (but those of formulas), styles and comments.

  Where it is plain, without code and formulas, it also loses the attributes that
  nothing here reads, if they are written as most are: ` name="value"`.
  """
  return _lean(np.frombuffer(page, np.uint8), plain).tobytes()


@compiled.kernel(compiled.BYTES, compiled.BOOL)
def _lean(raw, plain):
  size, i, done, count = len(raw), 0, 0, 0
  out, unread = np.empty(size, np.uint8), np.empty((MOST_UNREAD, 2), np.int64)
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
      name, first = markup._name(raw, i + 1)
      _, hint, i = markup._attributes(raw, first, name == markup.SCRIPT)
      if plain and i - first > LONG and (name == A or not markup._in(KEPT, name)):
        for k in range(_unread(raw, first, i, unread)):
          count = _copy(raw, done, unread[k, 0], out, count)
          done = unread[k, 1]
      if markup._in(markup.RAWS, name):
        i = markup._after_raw(raw, i, name)
      if hint >= 2 or (name != markup.SCRIPT and name != STYLE):
        continue
      while i < size and raw[i] != 62:  # of the end tag
        i += 1
      i = min(i + 1, size)
    count = _copy(raw, done, start, out, count)
    done = i
  return out[: _copy(raw, done, size, out, count)]


@compiled.inner
def _copy(raw, start, end, out, count):
  """Appends raw[start:end] to out; returns how much out holds."""
  for k in range(end - start):
    out[count + k] = raw[start + k]
  return count + max(0, end - start)


@compiled.inner
def _unread(raw, i, end, unread):
  """Fills in where attributes that nothing reads are in a tag; returns their number.

  0 where another spelling is in the tag, which a parser may read in another way.
  """
  count = 0
  if end > len(raw) or raw[end - 1] != 62:
    return 0
  while i < end - 1:
    start = i
    while raw[i] <= 32:
      i += 1
    if raw[i] == 62 or (raw[i] == 47 and raw[i + 1] == 62):
      return count if i >= end - 2 else 0
    name, j = markup._name(raw, i)
    if j == i or (i == start and start > 0 and raw[i - 1] > 32):
      return 0
    while markup._letter(raw[j]) or raw[j] == 45 or raw[j] == 95 or raw[j] == 58:
      j += 1
    i = j
    if raw[i] != 61:
      if raw[i] > 32 and raw[i] != 62 and raw[i] != 47:
        return 0
      continue
    mark = raw[i + 1]
    if mark != 34 and mark != 39:
      return 0
    value = i = i + 2
    while i < end and raw[i] != mark:
      i += 1
    i += 1
    if i >= end or (raw[i] > 32 and raw[i] != 62 and raw[i] != 47):
      return 0
    if count < MOST_UNREAD and (name == HREF or markup._in(UNREAD, name)):
      unread[count, 0] = value if name == HREF else start
      unread[count, 1] = i - 1 if name == HREF else i
      count += 1
  return count
