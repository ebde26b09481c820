"""Main text of an HTML page: boilerplate out, code and formulas kept (3.1.1).

resiliparse finds the main content. Before it, the DOM is prepared: formulas become
their TeX source, image alt text is kept where it is TeX, pre-formatted blocks are set
aside so that nothing touches them. After it, markdown markers are removed, which the
paper found harmful.
"""

import re

from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.html import HTMLTree

from llama3_jax.curate import documents

TEX = re.compile(r'\\[a-zA-Z]+|[_^]\{|^\$.*\$$', re.DOTALL)
TEX_CLASS = re.compile(r'(^|[\s_-])(tex|latex|math)([\s_-]|$)', re.IGNORECASE)
REMOVE = 'a.headerlink, .MathJax_Preview, .katex-html, .mw-editsection'
CELLS = re.compile(r'[ \xa0]*\t[ \xa0\t]*')  # resiliparse puts tabs between table cells
# Private-use marks around the number of a block that was set aside.
MARK = '\ue000%d\ue001'
MARKED = re.compile('\ue000(\\d+)\ue001')

MARKERS = [
  (re.compile(pattern, re.MULTILINE), replacement)
  for pattern, replacement in [
    (r'^[ \t]*```.*$\n?', ''),  # fences
    (r'^[ \t]*([-*_])([ \t]*\1){2,}[ \t]*$\n?', ''),  # rules
    (r'^[ \t]*\|?(\s*:?-{3,}:?\s*\|)+(\s*:?-{3,}:?\s*)?$\n?', ''),  # table rules
    (r'^[ \t]*#{1,6}[ \t]+', ''),  # headings
    (r'^[ \t]*>[ \t]?', ''),  # quotations
    (r'^[ \t]*[-*+][ \t]+', ''),  # bullets
    (r'!?\[([^\]\n]*)\]\([^)\s]*\)', r'\1'),  # links, images
    (r'(?<!\w)\*\*(?=\S)(.+?)(?<=\S)\*\*(?!\w)', r'\1'),  # bold
    (r'(?<!\w)__(?=\S)(\S+ .+?)(?<=\S)__(?!\w)', r'\1'),  # bold, not __init__
    (r'(?<![\w*])\*(?=[^\s*])([^*\n]+?)(?<=[^\s*])\*(?![\w*])', r'\1'),  # italic
    (r'(?<![\w`])`([^`\n]+)`(?![\w`])', r'\1'),  # inline code
  ]
]


def extract(html):
  """The main text of one page: plain text, paragraphs by line breaks."""
  tree = HTMLTree.parse(html)
  if tree.body is None:
    return ''
  _formulas(tree)
  blocks = _set_aside(tree)
  text = extract_plain_text(
    tree,
    main_content=True,
    alt_texts=False,
    post_meta=False,
    comments=False,
    list_bullets=False,
  )
  text = CELLS.sub(' ', strip_markdown(text))
  return MARKED.sub(lambda m: blocks[int(m[1])], text).strip()


def strip_markdown(text):
  """Removes markdown markers, keeps the words."""
  for pattern, replacement in MARKERS:
    text = pattern.sub(replacement, text)
  return text


def step(table):
  """Extracts every page with html; a page without main text is dropped."""
  rows = [row for row in documents.alive(table) if table['html'][row].is_valid]
  texts, drops = [], {}
  for row, html in zip(rows, documents.take(table, 'html', rows)):
    try:
      texts.append(extract(html))
    except (ValueError, RuntimeError):  # resiliparse's HTMLParserException among them
      texts.append('')
    if not texts[-1]:
      drops[row] = ('extract.empty', float(len(html)))
  table = documents.put(table, 'text', rows, texts)
  table = documents.put(table, 'html', rows, [None] * len(rows))
  return documents.drop(table, drops)


def _formulas(tree):
  """Puts the TeX source of every formula into the text."""
  body = tree.body
  for node in body.query_selector_all(REMOVE):
    node.decompose()
  for node in body.query_selector_all('math'):
    note = node.query_selector('annotation[encoding*="tex"]')
    tex = note.text if note else node.getattr('alttext') or node.text
    _replace(tree, node, tex)
  for node in body.query_selector_all('script[type^="math/tex"]'):
    _replace(tree, node, node.text)
  for node in body.query_selector_all('img[alt]'):
    alt = node.getattr('alt') or ''
    if TEX.search(alt) or (alt and TEX_CLASS.search(node.getattr('class') or '')):
      _replace(tree, node, alt)


def _replace(tree, node, text):
  node.parent.replace_child(tree.create_text_node(f' {text.strip()} '), node)


def _set_aside(tree):
  """Replaces the content of each <pre> by a mark; returns the contents."""
  blocks = []
  for node in tree.body.query_selector_all('pre'):
    if node.text.strip() and not MARKED.search(node.text):
      content = node.text.strip('\n').rstrip()
      node.inner_html = MARK % len(blocks)
      blocks.append(content)
  return blocks
