"""Bytes of a page as text, by the rules of browsers (WHATWG Encoding and HTML).

A byte order mark wins, then the HTTP header, then <meta> or the XML declaration.
Without any of them the text is UTF-8 where it is valid UTF-8, else the encoding that a
detector finds. One departure: where decoding by the header breaks more characters than
it reads, and the page itself names an encoding that breaks fewer, the latter is used.
"""

import codecs
import re

from resiliparse.parse.encoding import detect_encoding

from llama3_jax.curate.reading import encoding_labels

PRESCAN = 1024  # bytes in which browsers look for <meta> before they parse
HEAD = 1 << 16  # bytes in which they find it later, and start over
BOMS = (
  (codecs.BOM_UTF8, 'utf-8'),
  (codecs.BOM_UTF16_LE, 'utf-16-le'),
  (codecs.BOM_UTF16_BE, 'utf-16-be'),
)
# The second codec has vendors' characters that the first one lacks.
WIDER = {'euc_jp': 'euc_jis_2004', 'iso2022_jp': 'iso2022_jp_ext'}
BROKEN = '\ufffd'
CHARSET = re.compile(
  rb'charset[\t\n\f\r ]*=[\t\n\f\r ]*("[^"]*"|\'[^\']*\'|[^;\s"\']+)'
)
XML = re.compile(rb'<\?xml[^>]*?encoding[\t\n\f\r ]*=[\t\n\f\r ]*["\']([^"\'>]+)["\']')
TAG = re.compile(rb'<!--|</?[a-zA-Z][^\t\n\f\r />]*|<[!/?]')
ATTRIBUTE = re.compile(
  rb'[\t\n\f\r /]*([^>\t\n\f\r /][^=>\t\n\f\r /]*)'
  rb'(?:[\t\n\f\r ]*=[\t\n\f\r ]*(?:"([^"]*)"|\'([^\']*)\'|([^"\'\t\n\f\r >]'
  rb'[^\t\n\f\r >]*)?))?'
)


def decode(body: bytes, content_type: str | None = None) -> str:
  """The text of a page; invalid bytes become U+FFFD.

  Args:
    body: bytes of the page.
    content_type: HTTP header of that name, e.g. 'text/html; charset=euc-kr'.
  """
  for mark, codec in BOMS:
    if body.startswith(mark):
      return _text(body[len(mark) :], codec)
  header = _header(content_type)
  if header:
    text = _text(body, header)
    page = _declared(body) if _mostly_broken(text) else None
    if page and page != header:
      other = _text(body, page)
      return other if other.count(BROKEN) < text.count(BROKEN) else text
    return text
  return _text(body, _declared(body) or _detected(body))


def codec(label: str | bytes | None) -> str | None:
  """Python's codec of a WHATWG label ('Latin1' is cp1252); None when unknown."""
  if isinstance(label, bytes):
    label = label.decode('latin-1')
  return encoding_labels.LABELS.get((label or '').strip('\t\n\f\r "\'').lower())


def declared(head: bytes) -> str | None:
  """The codec named by <meta>, or else by the XML declaration, in these bytes."""
  if head.startswith((b'<\0?\0x\0', b'\0<\0?\0x')):
    return 'utf-16-le' if head.startswith(b'<') else 'utf-16-be'
  encoding = _meta(head)
  if encoding is None and (xml := XML.match(head)):
    encoding = codec(xml[1])
  if encoding in ('utf-16-le', 'utf-16-be'):  # it is in ASCII, not UTF-16
    return 'utf-8'
  return 'cp1252' if encoding == 'x-user-defined' else encoding


def _header(content_type):
  match = CHARSET.search((content_type or '').lower().encode('utf-8', 'replace'))
  return codec(match[1]) if match else None


def _declared(body):
  """declared() of the first bytes; of the whole head where it is not UTF-8."""
  encoding = declared(body[:PRESCAN])
  if encoding is None and len(body) > PRESCAN and not _is_utf8(body):
    encoding = declared(body[:HEAD])
  return encoding


def _meta(head):
  """WHATWG's prescan: the codec of the first <meta> that names a known one."""
  at = 0
  while tag := TAG.search(head, at):
    name = tag[0].lower()
    if name == b'<!--':
      end = head.find(b'-->', tag.start() + 2)
      if end < 0:
        return None
      at = end + 3
    elif name in (b'<!', b'</', b'<?'):
      end = head.find(b'>', tag.end())
      if end < 0:
        return None
      at = end + 1
    else:
      attributes, at = _attributes(head, tag.end())
      encoding = _meta_codec(attributes) if name == b'<meta' else None
      if encoding:
        return encoding
  return None


def _attributes(head, at):
  """({name: value} of a tag whose name ends at `at`, where they end)."""
  result = {}
  while match := ATTRIBUTE.match(head, at):
    value = next((v for v in match.groups()[1:] if v is not None), b'')
    result.setdefault(match[1].lower(), value)
    at = match.end()
  return result, at


def _meta_codec(attributes):
  if codec(attributes.get(b'charset')):
    return codec(attributes[b'charset'])
  if attributes.get(b'http-equiv', b'').lower() != b'content-type':
    return None
  match = CHARSET.search(attributes.get(b'content', b'').lower())
  return codec(match[1]) if match else None


def _detected(body):
  """The codec of bytes without a declaration, by their content."""
  start = body[:256].lstrip()
  if start[:1] == b'<' and start[1:2] == b'\0':
    return 'utf-16-le'
  if start[:2] == b'\0<':
    return 'utf-16-be'
  if body.isascii() and (b'\x1b$B' in body or b'\x1b$@' in body):
    return 'iso2022_jp'
  if _is_utf8(body):
    return 'utf-8'
  try:
    name = detect_encoding(body, html5_compatible=False)  # a codec, euc_kr; or a label
    encoding = codec(name) or codec(name.replace('_', '-'))
  except (LookupError, ValueError):
    encoding = None
  # The detector answers UTF-8 for what it does not know, and this is not valid UTF-8.
  # Few broken characters are accepted: a page may be cut within a character.
  if encoding in (None, 'utf-8') and _mostly_broken(_text(body, 'utf-8')):
    return 'cp949' if _korean(body) else 'cp1252'
  return encoding or 'utf-8'


def _korean(body):
  """Whether bytes are all valid in CP949 and mostly Hangul."""
  text = body.decode('cp949', 'replace')
  hangul = sum('\uac00' <= c <= '\ud7a3' for c in text)
  return BROKEN not in text and hangul * 2 > sum(not c.isascii() for c in text)


def _is_utf8(body):
  try:
    body.decode('utf-8')
  except UnicodeDecodeError:
    return False
  return True


def _mostly_broken(text):
  """Whether more characters are broken than are both whole and not ASCII."""
  broken = text.count(BROKEN)
  return broken > 0 and 2 * broken > sum(not c.isascii() for c in text)


def _text(body, name):
  """Bytes decoded by a codec of encoding_labels.NAMES."""
  if name == 'x-user-defined':
    return ''.join(chr(b if b < 128 else 0xF700 + b) for b in body)
  text = body.decode(name, 'whatwg')
  if BROKEN in text and name in WIDER:
    wider = body.decode(WIDER[name], 'replace')
    return wider if wider.count(BROKEN) < text.count(BROKEN) else text
  return text


def _undefined(error):
  """Bytes 80 to 9F that a Windows code page does not define as control characters."""
  part = error.object[error.start : error.end]
  if error.encoding in ('charmap', 'cp1252') and len(part) == 1 and part[0] < 0xA0:
    return chr(part[0]), error.end
  return BROKEN, error.end


codecs.register_error('whatwg', _undefined)
