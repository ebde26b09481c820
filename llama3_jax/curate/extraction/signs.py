"""Signs of a text that say what it is for, in any language."""

import numpy as np

from llama3_jax.curate.extraction import markup
from llama3_jax.curate.extraction import tags
from llama3_jax.curate.machine import compiled

SHORT = 400  # bytes of a block in which notices are looked for


@compiled.once
def title(raw):
  """Hashes of the words of a title."""
  found, count, i = np.zeros(64, np.uint64), 0, 0
  while i < len(raw) and count < 64:
    value, start = np.uint64(1469598103934665603), i
    while i < len(raw) and (markup._letter(raw[i]) or raw[i] > 127):
      value = (value ^ np.uint64(markup._lower(raw[i]))) * np.uint64(1099511628211)
      i += 1
    if i > start:
      found[count] = value
      count += 1
    else:
      i += 1
  return found[:count]


@compiled.once
def read(text, i, end, words, title, counts):
  """(bits of notices, those it begins with, hash of the text); fills counts."""
  counts[:] = 0
  bits, begin, short = np.int64(0), np.int64(0), end - i < SHORT
  whole = np.uint64(1469598103934665603)
  value, inside, digits = whole, False, 0
  start = i
  while i < end:
    byte = text[i]
    whole = (whole ^ np.uint64(byte)) * np.uint64(1099511628211)
    if byte < 128 or byte > 191:  # begins a character
      wide = byte >= 0xE3
      counts[0] += 2.5 if wide else 1.3 if byte >= 0xE0 else 1.0
      letter = byte > 127 or markup._letter(byte)
      if 48 <= byte <= 57:
        counts[1] += 1
        digits += 1
      else:
        counts[9] += digits == 4
        digits = 0
      counts[2] += byte == 44
      counts[6] += byte == 0xC2 and text[i + 1] == 0xA9
      counts[7] += byte == 124 or (byte == 0xC2 and text[i + 1] == 0xBB)
      counts[8] += byte == 64
      if byte == 46 and i > start and (i + 1 == end or text[i + 1] == 32):
        counts[5] += 1
      if wide and byte == 0xE3 and text[i + 1] == 0x80 and text[i + 2] == 0x82:
        counts[5] += 1
      if letter and (not inside or wide):
        counts[3] += 65 <= byte <= 90
        counts[4] += 1
        if short:
          bits |= _notice(text, i, end, words)
          begin = bits if counts[4] == 1 else begin
      if letter and not inside:
        value = np.uint64(1469598103934665603)
      if inside and not letter:
        counts[10] += _among(title, value)
      inside = letter
    if inside:
      value = (value ^ np.uint64(markup._lower(byte))) * np.uint64(1099511628211)
    i += 1
  counts[9] += digits == 4
  if inside:
    counts[10] += _among(title, value)
  return bits, begin, whole


@compiled.inner
def _among(found, value):
  for k in range(len(found)):
    if found[k] == value:
      return True
  return False


@compiled.once
def _notice(text, i, end, words):
  bits, value = np.int64(0), np.uint64(1469598103934665603)
  for k in range(i, min(end, i + 26)):
    value = (value ^ np.uint64(markup._lower(text[k]))) * np.uint64(1099511628211)
    if k == i + 2 and not tags.begins(value, words):
      break
    if k > i:
      bits |= tags.look(value, words, False)
  return bits


@compiled.inner
def ended(text, start, end):
  """Whether a text ends as a sentence does, in any script."""
  a = text[end - 1]
  if a == 46 or a == 33 or a == 63 or a == 34:
    return 1.0
  if a == 41 and end - start > 2:
    return 1.0 if text[end - 2] == 46 else 0.0
  if end - start < 4 or a < 128:
    return 0.0
  b, c = text[end - 2], text[end - 3]
  if c == 0xE2 and b == 0x80:
    return 1.0 if a == 0xA6 or a == 0x9D or a == 0x9C or a == 0x99 else 0.0
  if c == 0xE3 and b == 0x80:
    return 1.0 if a == 0x82 or a == 0x8D else 0.0
  if c == 0xEF and b == 0xBC:
    return 1.0 if a == 0x81 or a == 0x9F else 0.0
  if c == 0xE0 and b == 0xA5:
    return 1.0 if a == 0xA4 else 0.0
  return 1.0 if (b == 0xD8 and a == 0x9F) or (b == 0xC2 and a == 0xBB) else 0.0


@compiled.inner
def first(byte):
  if 97 <= byte <= 122:
    return 1.0
  if 65 <= byte <= 90:
    return 2.0
  if 48 <= byte <= 57:
    return 3.0
  return 4.0 if byte > 127 else 0.0
