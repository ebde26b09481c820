"""Code of a page, set aside character by character (3.1.1).

White space is the syntax of some code: later steps (extraction, boilerplate rules,
markdown) must not change it, so every block is replaced by a mark in the DOM.
"""

import re
from collections.abc import Callable

from resiliparse.parse.html import DOMNode
from resiliparse.parse.html import HTMLTree

BLOCKS = 'pre, xmp, listing, plaintext'
# Line numbers that highlighters put beside the code, buttons, and signs of headings.
GUTTERS = (
  '.gutter, .linenos, .lineno, .linenodiv, .line-numbers-rows, .rouge-gutter, '
  '.hljs-ln-numbers, .crayon-nums, .blob-num, [data-line-number]:empty'
)
INLINE = 'code, tt, kbd, samp'
SIGNS = re.compile(r'[*_`#$\\>\[]')
LINES = ('div', 'li', 'tr', 'p')  # highlighters that make an element of each line
NEWLINES = re.compile(r'\r\n?')


def set_aside(tree: HTMLTree, mark: Callable[[str], str]) -> int:
  """Replaces the content of every code block by a mark.

  Args:
    tree: HTMLTree, changed.
    mark: function text -> mark in place of the text.

  Returns:
    Characters of code in the page.
  """
  body, count = tree.body, 0
  for node in body.query_selector_all(GUTTERS)[:]:
    if node.parent is not None:
      # decompose() frees nodes that are still referenced.
      node.parent.remove_child(node)
  for node in body.query_selector_all(BLOCKS)[:]:
    if node.query_selector(BLOCKS) is not None:
      continue  # the inner one is the block
    text = code(tree, node)
    if not text.strip():
      continue
    count += len(text)
    if node.tag == 'pre':
      node.inner_html = mark(text)
    else:
      block = tree.create_element('pre')
      block.append_child(tree.create_text_node(mark(text)))
      node.parent.replace_child(block, node)
  return count


def set_inline_aside(tree: HTMLTree, mark: Callable[[str], str]) -> None:
  """Replaces code in sentences that has signs of markup in it by marks.

  Args:
    tree: HTMLTree, changed.
    mark: function text -> mark in place of the text.
  """
  for node in tree.body.query_selector_all(INLINE)[:]:
    if SIGNS.search(text := node.text) and node.parent is not None:
      if node.query_selector(f'{INLINE}, a, {BLOCKS}') is None:
        node.inner_html = mark(' '.join(text.split()))


def code(tree: HTMLTree, node: DOMNode) -> str:
  """The text of a code block, line by line, without empty lines around it."""
  if '<br' in (html := node.html):
    for line in node.query_selector_all('br')[:]:
      line.parent.replace_child(tree.create_text_node('\n'), line)
  if any(f'<{tag}' in html for tag in LINES):
    text = _lines(tree, node)
  else:
    text = node.text
  lines = NEWLINES.sub('\n', text).split('\n')
  while lines and not lines[0].strip():
    lines.pop(0)
  return '\n'.join(lines).rstrip()


def _lines(tree, node):
  """Text in which elements that make up lines end with a line break."""
  for child in reversed(node.query_selector_all(', '.join(LINES))[:]):
    if not child.text.endswith('\n'):
      child.append_child(tree.create_text_node('\n'))
  return node.text
