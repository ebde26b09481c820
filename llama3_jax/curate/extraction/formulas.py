"""Formulas of a page as TeX or, without TeX, as readable text; each once (3.1.1).

Collections of resiliparse are sliced, [:]: iteration over one takes quadratic time.

Handles MathML, KaTeX, MathJax 2 and 3, TeX scripts, Wikipedia's images and images whose
alt text is TeX. Every formula is replaced by a mark in the DOM, so that later steps
(white space, boilerplate rules, markdown) do not change its source.
"""

import re
from collections.abc import Callable

from resiliparse.parse.html import DOMNode
from resiliparse.parse.html import HTMLTree

TEX = re.compile(r'\\[a-zA-Z]+|[_^]\{|^\$.*\$$', re.DOTALL)
TEX_CLASS = re.compile(r'(^|[\s_-])(tex|latex|math)([\s_-]|$)', re.IGNORECASE)
CONTAINERS = (  # outermost first: inner ones are removed with it
  '.mwe-math-element, .katex-display, .katex, mjx-container, .MathJax_Display, '
  '.MathJax, .MathJax_SVG, .MathJax_CHTML, .MathJax_SVG_Display'
)
IMAGES = ', '.join(
  f'img[alt][{name}*="{sign}"{case}]'
  for name, signs, case in (
    ('alt', ('\\\\', '_{', '^{', '$'), ''),
    ('class', ('tex', 'math'), ' i'),
  )
  for sign in signs
)
DISPLAY = re.compile(r'display|block', re.IGNORECASE)
# Source that MathJax would set: \\( \\), \\[ \\], $$ $$ around letters and signs.
RAW = re.compile(
  r'\\\((?P<a>(?:[^\\\n]|\\[^()\n]){1,1000}+)\\\)'
  r'|\\\[(?P<b>(?:[^\\]|\\[^\[\]]){1,2000}+)\\\]'
  r'|(?<![\\$])\$\$(?!\$)(?P<c>[^$]{1,2000}+)\$\$(?!\$)'
)
FORMULA = re.compile(r'[\\^_=+<>|{]|^\s*[A-Za-z]\w?\s*$')
MAX_DEPTH = 200  # of MathML inside a formula; deeper is taken as text

FENCED = {
  'msqrt': 'sqrt({})',
  'mfrac': '({})/({})',
  'msup': '{}^{}',
  'msub': '{}_{}',
  'msubsup': '{}_{}^{}',
  'munder': '{}_{}',
  'mover': '{}^{}',
  'munderover': '{}_{}^{}',
  'mroot': 'root({}, {})',
}
SKIP = ('annotation', 'annotation-xml', 'mphantom', 'script', 'style')


def replace(tree: HTMLTree, mark: Callable[[str, bool], str]) -> int:
  """Replaces every formula of the page by a mark.

  Args:
    tree: HTMLTree, changed.
    mark: function (source, display: bool) -> mark in place of the formula.

  Returns:
    Number of formulas.
  """
  count = 0
  scripts = tree.body.query_selector_all('script[type^="math/tex"]')[:]
  named = {(node.getattr('id') or '') for node in scripts} - {''}
  for node in tree.body.query_selector_all('.MathJax_Preview')[:]:
    node.parent.remove_child(node)  # decompose() frees nodes that are still referenced
  for node in tree.body.query_selector_all(CONTAINERS)[:]:
    if not _attached(tree, node):
      continue
    if _source_is_a_script(node, named):
      node.parent.remove_child(node)
    else:
      count += _put(tree, node, _container(node), _displayed(node), mark)
  for node in scripts:
    display = 'mode=display' in (node.getattr('type') or '').replace(' ', '')
    count += _put(tree, node, node.text, display, mark)
  for node in tree.body.query_selector_all('math')[:]:
    if _attached(tree, node):
      display = (node.getattr('display') or '') == 'block'
      count += _put(tree, node, source(node), display, mark)
  for node in tree.body.query_selector_all(IMAGES)[:]:
    alt = node.getattr('alt') or ''
    if TEX.search(alt) or (alt and TEX_CLASS.search(node.getattr('class') or '')):
      count += _put(tree, node, alt, False, mark)
  return count


def count(text: bytes) -> int:
  """Formulas in raw source in a page's text."""
  if b'\\(' not in text and b'\\[' not in text and b'$$' not in text:
    return 0
  return sum(_is_formula(m) for m in RAW.finditer(text.decode('utf-8', 'replace')))


def protect(text: str, aside: list, delimit: bool) -> str:
  """Text with marks in place of raw formulas, which are appended to `aside`.

  They keep their signs, \\\\( \\\\) and the others; with `delimit` they get $ or $$.
  """

  def mark(match):
    if not _is_formula(match):
      return match[0]
    inner, shown = match[match.lastgroup].strip(), match.lastgroup != 'a'
    sign = '$$' if shown else '$'
    aside.append((f'{sign}{inner}{sign}' if delimit else match[0], False))
    return f'\ue004{len(aside) - 1}\ue005'

  return RAW.sub(mark, text)


def _is_formula(match):
  return FORMULA.search(match[match.lastgroup]) is not None


def source(node: DOMNode) -> str:
  """TeX (annotation, else alttext) or readable text of a <math> element."""
  note = node.query_selector('annotation[encoding*="tex" i]')
  text = note.text if note else ''
  text = text.strip() or (node.getattr('alttext') or '').strip()
  return text or _tidy(readable(node))


def readable(node: DOMNode, depth: int = 0) -> str:
  """Presentation MathML as a line of text: (a)/(b), x^2, sqrt(y)."""
  if node.tag in (None, '', '#text'):
    return node.text
  if node.tag in SKIP:
    return ''
  if depth > MAX_DEPTH:
    return node.text
  parts = [readable(child, depth + 1) for child in node.child_nodes[:]]
  if node.tag in ('mtr', 'mlabeledtr'):
    return ' '.join(part.strip() for part in parts if part.strip()) + '; '
  if node.tag == 'mfenced':
    inside = ', '.join(part.strip() for part in parts if part.strip())
    return f'{node.getattr("open") or "("}{inside}{node.getattr("close") or ")"}'
  form = FENCED.get(node.tag)
  parts = [part.strip() for part in parts if part.strip()] if form else parts
  if not form:
    return ''.join(parts)
  if node.tag == 'msqrt':
    return form.format(''.join(parts))
  if form.count('{}') != len(parts):
    return ' '.join(parts)
  if node.tag in ('mfrac', 'mroot'):
    return form.format(*parts)
  return form.format(parts[0], *(_group(part) for part in parts[1:]))


def _group(text):
  return text if len(text) == 1 or text.isdigit() else f'({text})'


def _tidy(text):
  """One line, without the invisible operators."""
  for sign in '\u2061\u2062\u2063\u2064':
    text = text.replace(sign, '')
  return ' '.join(text.split()).removesuffix(';')


def _attached(tree, node):
  """Whether a node is still in the page, not inside one that was replaced."""
  return node.parent is not None and tree.body.contains(node)


def _source_is_a_script(node, named):
  """MathJax 2 writes its output beside the script that holds the TeX."""
  frame = node if (node.getattr('id') or '').endswith('-Frame') else None
  frame = frame or node.query_selector('[id$="-Frame"]')
  return bool(frame) and frame.getattr('id').removesuffix('-Frame') in named


def _displayed(node):
  if DISPLAY.search(node.getattr('class') or '') or node.getattr('display') == 'true':
    return True
  inner = node.query_selector('math')
  return bool(inner) and inner.getattr('display') == 'block'


def _container(node):
  """The source of the formula that a renderer's container shows."""
  inner = node.query_selector('math')
  if inner:
    return source(inner)
  framed = node if node.getattr('data-mathml') else None
  framed = framed or node.query_selector('[data-mathml]')
  if framed:
    inner = HTMLTree.parse(framed.getattr('data-mathml')).body.query_selector('math')
    if inner:
      return source(inner)
  image = node.query_selector('img[alt]')
  if image:
    return image.getattr('alt') or ''
  return _glyphs(node) or node.text


def _glyphs(node):
  """MathJax 3 without assistive MathML names its characters only in attributes."""
  characters = []
  for glyph in node.query_selector_all('mjx-c, [data-c]')[:]:
    code = glyph.getattr('data-c') or ''
    named = re.search(r'\bmjx-c([0-9A-Fa-f]{1,6})\b', glyph.getattr('class') or '')
    code = named[1] if named else code
    if re.fullmatch('[0-9A-Fa-f]{1,6}', code) and int(code, 16) < 0x110000:
      characters.append(chr(int(code, 16)))
  return ''.join(characters)


def _put(tree, node, text, display, mark):
  """Replaces a node by the mark of its source; returns 1, or 0 without a source."""
  text = (text or '').strip()
  if not text or node.parent is None:
    return 0
  new = tree.create_text_node(f' {mark(text, display)} ')
  if display and node.parent.tag != 'p':
    block = tree.create_element('p')
    block.append_child(new)
    new = block
  node.parent.replace_child(new, node)
  return 1
