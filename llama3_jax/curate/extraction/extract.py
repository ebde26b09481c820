"""Main text of an HTML page: boilerplate out; code, formulas, tables kept (3.1.1).

A page is scanned (markup.py) and refused where it costs too much. Formulas and code are
replaced by marks; the page is cut into blocks (cut.py), of which those are kept that
are text (measures.py, trees.py, blocks.py); markdown markers are removed; formulas and
code take the place of their marks. Pages of code and mathematics, by their category or
by how much of it they hold, are extracted for recall instead: all their blocks but
lists of links, and every piece of code.
"""

import dataclasses
import re
import unicodedata
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from resiliparse.parse.html import HTMLTree

from llama3_jax.base.errors import UserError
from llama3_jax.curate.extraction import blocks
from llama3_jax.curate.extraction import cut
from llama3_jax.curate.extraction import formulas
from llama3_jax.curate.extraction import listings
from llama3_jax.curate.extraction import markdown
from llama3_jax.curate.extraction import markup
from llama3_jax.curate.extraction import tags
from llama3_jax.curate.machine import documents

MODES = ('auto', 'prose', 'recall')
INLINE = re.compile('\ue002(\\d+)\ue003')  # marks of code in a sentence
INSIDE = re.compile('\ue004(\\d+)\ue005')  # marks of raw formulas
COMBINING = 0xCC  # first byte of U+0300; text without one like it is NFC
LANG = re.compile(r'<html[^>]{0,500}?\slang=["\']?([a-zA-Z]{2,3})\b', re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Config:
  """How pages become text, and what a page may cost.

  Fields:
    mode: 'prose', 'recall', or 'auto': recall for pages of `categories` and for pages
      with much code or many formulas.
    categories: categories that are extracted for recall.
    code_share, formula_share: from this share of code characters, or formulas a
      hundred words, on, a page is one of code or of mathematics.
    title: keep the page's <h1> in prose.
    delimit: put $ around formulas, $$ around displayed ones.
    max_bytes: of HTML, in UTF-8.
    max_nodes, max_depth, max_walk, max_pairs: see markup.Markup. Together they
      bound the time of one page (bench/extraction.py --hostile measures it).
  """

  mode: str = 'auto'
  categories: tuple[str, ...] = ('code', 'math')
  code_share: float = 0.2
  formula_share: float = 1.0
  title: bool = False
  delimit: bool = False
  max_bytes: int = 10_000_000
  max_nodes: int = 100_000
  max_depth: int = 1_000
  max_walk: int = 10_000_000
  max_pairs: int = 300_000_000

  def __post_init__(self):
    if self.mode not in MODES:
      raise UserError(f'extract.mode: {self.mode!r}; it is one of {", ".join(MODES)}')


@dataclasses.dataclass(frozen=True)
class Page:
  """One extracted page.

  Fields:
    text: plain text, paragraphs by line breaks.
    kind: 'prose', 'code' or 'math': how it was extracted.
    code_share: share of the text's characters that are code.
    formulas: formulas in the page.
    link_share: share of the text's characters that are links.
    lang: the language that the page declares, lower case; None.
  """

  text: str
  kind: str = 'prose'
  code_share: float = 0.0
  formulas: int = 0
  link_share: float = 0.0
  lang: str | None = None


def step(
  batch: pa.RecordBatch,
  config: Config = Config(),
  state: Mapping[str, np.ndarray] | None = None,
) -> pa.RecordBatch:
  """Extracts every page with html; drops pages that cost too much or have no text.

  Adds extract.kind, extract.lang (text), extract.code_share, extract.formulas,
  extract.link_share. The html is null afterwards, also of dropped pages.
  """
  column = batch['html']
  rows = [row for row in documents.alive(batch) if column[row].is_valid]
  pages, done, drops = [], [], {}
  for row, category in zip(rows, documents.take(batch, 'category', rows)):
    html = column[row].as_buffer()
    reason = refuse(html, config)
    if isinstance(reason, tuple):
      drops[row] = reason
      continue
    try:
      page = extract(html.to_pybytes(), config, category, reason)
    except (ValueError, RuntimeError):  # resiliparse's HTMLParserException among them
      drops[row] = ('extract.unparsable', float(len(html)))
      continue
    if not page.text:
      drops[row] = ('extract.empty', float(len(html)))
    done.append(row)
    pages.append(page)
  batch = documents.put(batch, 'text', done, [page.text for page in pages])
  i = batch.schema.get_field_index('html')
  field = batch.schema.field('html')
  batch = batch.set_column(i, field, pa.nulls(batch.num_rows, field.type))
  for name, type in (
    ('kind', pa.string()),
    ('lang', pa.string()),
    ('code_share', pa.float32()),
    ('formulas', pa.int32()),
    ('link_share', pa.float32()),
  ):
    values = [getattr(page, name) for page in pages]
    batch = documents.add(batch, f'extract.{name}', done, values, type)
  return documents.drop(batch, drops)


def refuse(
  page: bytes | pa.Buffer, config: Config = Config()
) -> tuple[str, float] | markup.Markup:
  """(reason, value) where a page (bytes or buffer) costs too much; else its Markup."""
  if len(page) > config.max_bytes:
    return 'extract.too_large', float(len(page))
  cost = markup.scan(page)
  if cost.depth > config.max_depth:
    return 'extract.too_deep', float(cost.depth)
  if cost.nodes > config.max_nodes:
    return 'extract.too_many_nodes', float(cost.nodes)
  if cost.walk > config.max_walk:
    return 'extract.too_deep', float(cost.walk)
  if cost.pairs > config.max_pairs:
    return 'extract.too_many_attributes', float(cost.pairs)
  return cost


def extract(
  html: str | bytes,
  config: Config = Config(),
  category: str = 'general',
  found: markup.Markup | None = None,
) -> Page:
  """The main text of one page.

  Args:
    html: str, or its UTF-8 bytes.
    config: Config; its limits are not checked here.
    category: of the document.
    found: markup.Markup of the page; scanned where it is None.

  Returns:
    Page.
  """
  raw = html if isinstance(html, bytes) else html.encode('utf-8', 'replace')
  page = prepare(raw, config, found)
  lang = LANG.search(raw[:3000].decode('utf-8', 'replace'))
  lang = lang[1].lower() if lang else None
  if page is None:
    return Page('', lang=lang)
  kind, kept = _choose(page, config, category)
  text = kept.text
  if page.cut.text.max() >= COMBINING:
    text = unicodedata.normalize('NFC', text)
  inside = []
  if page.formulas:
    text = formulas.protect(text, inside, config.delimit)
  text = INLINE.sub(lambda m: _aside(page.inline, m), markdown.strip(text))
  text = blocks.MARK.sub(lambda m: _aside(page.aside, m), text)
  text = INSIDE.sub(lambda m: _aside(inside, m), text).strip()
  size = max(1, len(text))
  used = map(int, blocks.MARK.findall(kept.text))
  pieces = [page.aside[i] for i in used if i < len(page.aside)]
  code = min(1.0, sum(len(piece) for piece, is_code in pieces if is_code) / size)
  link = min(1.0, kept.link / size)
  return Page(text, kind, code, page.formulas, link, lang)


def _mark(aside, text, display=None, delimit=False):
  """Sets code (display None) or a formula aside; returns its mark."""
  if delimit and display is not None:
    text = f'$${text}$$' if display else f'${text}$'
  aside.append((text, display is None))
  return f'\ue000{len(aside) - 1}\ue001'


def _aside(aside, match):
  i = int(match[1])
  return aside[i][0] if i < len(aside) else ''


@dataclasses.dataclass(frozen=True)
class Prepared:
  """A page cut into blocks, what was set aside of it, and how much of it there is."""

  cut: cut.Cut
  title: bytes
  aside: list
  inline: list
  code: int
  formulas: int


def prepare(
  raw: bytes, config: Config = Config(), found: markup.Markup | None = None
) -> Prepared | None:
  """The blocks of a page; None where it has none.

  Args:
    raw: the page's UTF-8 bytes.
    config: Config; delimit counts.
    found: markup.Markup of the page; scanned where it is None.
  """
  found = found or markup.scan(raw)
  plain = not (found.code or found.math or found.images)
  tree = HTMLTree.parse(tags.lean(raw, plain).decode('utf-8', 'replace'))
  if tree.body is None:
    return None
  aside, inline, count, code = [], [], 0, 0
  if found.math or found.images:
    count = formulas.replace(tree, lambda t, d: _mark(aside, t, d, config.delimit))
  if found.code:
    code = listings.set_aside(tree, lambda t: _mark(aside, t))
    listings.set_inline_aside(tree, lambda t: _inline(inline, t))
  title = (tree.title or '').encode('utf-8', 'replace')
  data = cut.cut(tree.body.html.encode('utf-8', 'replace'))
  if not len(data.blocks):
    return None
  count += formulas.count(data.text.tobytes())
  return Prepared(data, title, aside, inline, code, count)


def _inline(inline, text):
  inline.append((text, True))
  return f'\ue002{len(inline) - 1}\ue003'


def _choose(page, config, category):
  """(kind, blocks.Text) of a prepared page."""
  special = category if category in config.categories else None
  if config.mode == 'recall' or (config.mode == 'auto' and special):
    return special or 'code', _recall(page)
  kept = blocks.text(page.cut, blocks.prose(page.cut, page.title, config.title))
  if config.mode == 'auto' and (page.aside or page.formulas):
    words = kept.text.count(' ') + kept.blocks
    if page.code > config.code_share * (kept.size + page.code):
      return 'code', _recall(page)
    if page.formulas > 5 and 100 * page.formulas > config.formula_share * words:
      return 'math', _recall(page)
  return 'prose', kept


def _recall(page):
  return blocks.text(page.cut, blocks.recall(page.cut, page.title))
