"""The scan counts what the parser makes: depth and elements, before it is parsed."""

import pytest
from resiliparse.parse.html import HTMLTree

from llama3_jax.curate.extraction import extract
from llama3_jax.curate.extraction import markup


def real(html):
  """(elements, depth) of the tree that the parser makes, <html> among them."""
  count, deepest, stack = 1, 1, [(HTMLTree.parse(html).body, 2)]
  while stack:
    node, depth = stack.pop()
    count, deepest = count + 1, max(deepest, depth)
    stack += [(child, depth + 1) for child in node.child_nodes[:] if _element(child)]
  return count, deepest


def _element(node):
  return node.tag is not None and not node.tag.startswith('#')


ICON = '<svg viewBox="0 0 9 9">' + '<path d="M0 0h1"/>' * 21 + '</svg>'


@pytest.mark.parametrize(
  'body',
  [
    '<svg>' + '<path d="M0 0h1"/>' * 1001 + '</svg><p>text',
    ICON * 50 + '<article><p>text</article>',
    '<a name="i"/><p>word <code>x</code></p>' * 700,
    '<div><p>one<p>two<ul><li>x<li>y</ul></div>' * 300,
    '<table><tr><td><b>x<td>y<tr><td>z</table>' * 300,
    '<div><br/><img src=x /><hr></div>' * 300,
    '</div></span></b>' * 2000 + '<p>text',
    '<p><i>a</b></i></p>' * 1000,
    '<math><mi>x</mi><mspace/><mo/></math>' * 300,
  ],
)
def test_ordinary_markup_is_counted_as_the_parser_nests_it(body):
  html = f'<html><body>{body}</body></html>'
  found = markup.scan(html.encode())
  nodes, depth = real(html)
  assert depth - 2 <= found.depth <= depth + 3
  assert 0.6 * nodes <= found.nodes <= 2.2 * nodes
  assert not isinstance(extract.refuse(html.encode()), tuple)


@pytest.mark.parametrize(
  'body',
  [
    '<div></x>' * 2000,
    '<div></b>' * 2000,
    '<div><table></div>' * 2000,
    '<svg><foreignObject><div/>' * 2000,
    '<svg>' + '<g>' * 2000,
    '<svg><style>' + '<div>' * 2000,
    '<rt>' * 2000,
    '<b>' * 2000,
    '<optgroup>' * 2000,
    '<b><div></b>' * 2000,
  ],
)
def test_nesting_is_not_hidden_by_end_tags_that_close_nothing(body):
  html = f'<html><body>{body}x'
  assert markup.scan(html.encode()).depth >= 0.9 * min(real(html)[1], 2000)
  assert extract.refuse(html.encode())[0] == 'extract.too_deep'


@pytest.mark.parametrize(
  'unit', ['<font color=%d>', '<div></b></i>', '<b><div></b>', '<table><i></div>']
)
def test_the_scan_itself_is_bounded(unit):
  units = (unit % i if '%' in unit else unit for i in range(9_000_000 // len(unit)))
  found = markup.scan(''.join(units).encode())
  assert found.depth > 1000 or found.walk > 10_000_000
