"""Kinds of pages that rules about names, tags or lengths have spoilt, made up."""

import random

import pytest
from resiliparse.parse.html import HTMLTree

from llama3_jax.base.errors import UserError
from llama3_jax.curate.extraction import extract
from llama3_jax.curate.extraction import measures
from llama3_jax.curate.extraction import tags
from llama3_jax.curate.extraction import trees

SENTENCES = [
  f'The {thing} of the old harbour was rebuilt in the year of the great flood, and the '
  f'people who worked there still tell how the {thing} looked before the water came.'
  for thing in 'crane pier wall tower bridge warehouse lamp gate dock rope'.split()
]
TEXT = ''.join(f'<p>{sentence}</p>' for sentence in SENTENCES)
NOTE = (
  '<div><p>' + 'A note of another part of the site with some more words in it. ' * 4
)
MENU = '<ul><li><a href="/">Home</a></li><li><a href="/n">News</a></li></ul>'


def text(body, **fields):
  html = f'<html><head><title>Harbour</title></head><body>{MENU}{body}</body></html>'
  return extract.extract(html, extract.Config(**fields)).text


HOLDERS = [
  '<main><aside class="direct"><section>TEXT',
  '<article class="hentry promoted">TEXT',
  '<div class="post-body"><noscript>TEXT',
  '<div id="navigation-container"><ul><li><a href="/">Home</a></ul><article>TEXT',
  '<div class="main-menu off-canvas-wrap"><section>TEXT',
  '<div class="print-only"><div class="article">TEXT',
  '<figure><figcaption>TEXT',
  '<div class="live-comment">TEXT',
  '<div class="section hidden">TEXT',
  '<blockquote class="twitter-tweet">TEXT',
  '<div class="collapsed">TEXT',
  '<div class="site-container"><div class="site-inner">'
  '<div class="content-sidebar-wrap"><main class="content"><article class="post">TEXT',
  '<div id="wrapper"><section class="content"><article class="post">'
  '<div class="entry share"><div class="entry-inner">TEXT',
  '<main><div class="u-grid-row is-collapsed"><div class="rte">TEXT',
  '<main><article class="post category-social-media"><div class="entry-content">TEXT'
  f'</div></article></main>{NOTE}',
  f'<div class="entry-content no-share">TEXT</div>{NOTE}',
  f'<header class="h"><div id="m"><main><article>TEXT</article></main></div>{NOTE}',
  '<div class="newsletter related footer">TEXT',
  '<form id="aspnetForm"><div>TEXT',
  '<table><tr><td class="sidebar">TEXT',
]


@pytest.mark.parametrize('holder', HOLDERS)
def test_no_name_and_no_tag_of_an_ancestor_removes_the_article(holder):
  found = text(holder.replace('TEXT', TEXT))
  assert [s for s in SENTENCES if s not in found] == []
  assert 'Home' not in found


@pytest.mark.parametrize('count', [3, 4, 10])
def test_a_lead_in_the_header_of_an_article_stays(count):
  rest = ''.join(f'<p>{s}</p>' for s in SENTENCES[1:count])
  lead = f'<header><h1>Harbour</h1><p class="lead">{SENTENCES[0]}</p></header>'
  found = text(f'<article>{lead}{rest}</article>')
  assert all(s in found for s in SENTENCES[:count])


MONTHS = 'January February March April May June July August September'.split()


@pytest.mark.parametrize(
  'cell',
  [
    '{}',
    '<a href="/{}">{}</a>',
    '<div>{}</div>',
    '<div><span>{}</span></div>',
    '<p>{}</p>',
    '<ul><li>{}</li></ul>',
  ],
)
@pytest.mark.parametrize('short', [True, False])
def test_tables_lose_no_row_no_cell_and_no_column(cell, short):
  rows = [
    (month, f'{k} days', '' if k % 3 else f'n{k}') for k, month in enumerate(MONTHS)
  ]
  table = ''.join(
    '<tr>' + ''.join(f'<td>{cell.format(c, c)}</td>' for c in row) + '</tr>'
    for row in rows
  )
  before = '<h1>Month names</h1><p>These are the names of months.</p>'
  after = '<p>The next table has days.</p>'
  if not short:
    before, after = TEXT, TEXT
  found = text(f'{before}<table>{table}</table>{after}').split('\n')
  for row in rows:
    assert '\t'.join(row).rstrip() in found


def test_signs_of_code_and_of_sentences_stay():
  said = [
    'Call handlers[0](event) and f[k](x) from the outer function of the module.',
    '- 5 degrees were measured in the night, and the water of the pond was frozen.',
    '> 100 people came to the opening, more than in all of the years before this one.',
    '# is the symbol for a number, and people of other countries call it otherwise.',
  ]
  body = ''.join(f'<p>{line.replace(">", "&gt;")}</p>' for line in said)
  found = text(f'<article>{TEXT}{body}{TEXT}</article>')
  assert [line for line in said if line not in found] == []


def test_inline_code_is_kept_letter_by_letter():
  code = '\\(a*b*\\) **c** [x](y.z)'
  body = f'<p>The pattern <code>{code}</code> is matched by the *whole* line.</p>'
  found = text(f'<article>{TEXT}{body}{TEXT}</article>')
  assert f'The pattern {code} is matched by the whole line.' in found


def test_letters_are_composed_and_those_of_code_stay():
  apart = 'Cafe\u0301 am Fluß'
  body = f'<p>Im {apart} trafen sie sich.</p><pre>x = "{apart}"</pre>'
  found = text(f'<article>{TEXT}{body}{TEXT}</article>')
  assert 'Im Caf\xe9 am Fluß trafen sie sich.' in found
  assert f'x = "{apart}"' in found


def test_letters_are_composed_on_a_page_without_code():
  assert text(f'<p>Im Cafe\u0301 dort.</p>{TEXT}').startswith('Im Caf\xe9 dort.')


def tree_of(html):
  """Elements and texts of a parsed page, with the attributes that extraction reads."""
  rows = []

  def walk(node, depth):
    while node is not None:
      if node.tag == '#text':
        rows.append((depth, node.text))
      elif node.tag != '#comment':
        values = [node.getattr(k) for k in ('class', 'id', 'role', 'style', 'alt')]
        links = [k in node.attrs for k in ('href', 'hidden')]
        rows.append((depth, node.tag, *values, *links))
      walk(node.first_child, depth + 1)
      node = node.next

  walk(HTMLTree.parse(html).body, 0)
  return rows


ATTRIBUTES = (
  ' class="a b"| href="http://x.y/z?a>b"| src=\'a.png\'| data-x="1 > 2"| hidden|'
  ' title="say \'hi\'"| title=\'say "hi" <p>\'| id=q| href=/a/b/| src = "s"| "x"|'
  'class="t"| aria-label="z"/| =x| data-x=\'<a href="q">\' |\nstyle="display:none"|'
  ' title="open| on@click="x"| d="M0 0"| src="x"| class=a"b"| alt="x > y"| title=""|'
  ' href="a" href="b"| href=\'\''
).split('|')
ELEMENTS = 'p a div b input font span img svg path td table tr textarea title script'


@pytest.mark.parametrize('seed', range(4))
def test_attributes_that_are_left_out_change_no_tree(seed):
  draw, left_out = random.Random(seed), 0
  for _ in range(500):
    html = '<body>'
    for _ in range(draw.randint(1, 8)):
      tag = draw.choice(ELEMENTS.split() + ['style', 'li', 'h1'])
      html += f'<{tag}' + ''.join(draw.choices(ATTRIBUTES, k=draw.randint(0, 4)))
      html += draw.choice(['>', '>', '/>', ' >', ''])
      html += draw.choice(['text', '', ' a < b ', f'</{tag}>', '</div>'])
    all_, some = (tags.lean(html.encode(), plain).decode() for plain in (False, True))
    assert tree_of(all_) == tree_of(some), html
    left_out += len(all_) - len(some)
  assert left_out > 1000


def test_addresses_and_data_are_left_out_where_no_code_or_formula_is():
  page = '<p data-x="1" class="c"><a href="/x" title="t" id="i">y</a><img'
  page += ' src="https://x.org/z.png">'
  lean = b'<p class="c"><a href="" id="i">y</a><img>'
  assert tags.lean(page.encode(), True) == lean and tags.lean(page.encode()) != lean


def test_data_that_formulas_are_read_from_stay():
  data = '&lt;math alttext=&quot;x_1&quot;&gt;&lt;/math&gt;'
  one, two = (
    f'<span class="MathJax" data-mathml="{data}">?</span>',
    '<math alttext="y_1">',
  )
  found = text(f'{TEXT}<p>So {one} is {two}<mi>y</mi></math> here.</p>')
  assert 'So x_1 is y_1 here.' in ' '.join(found.split())


@pytest.mark.parametrize(
  'form', [r'\( x_{%d}^2 + y \)', '$$x_{%d}^2 + y$$', r'\[ x_{%d} \]']
)
def test_raw_formulas_make_a_page_one_of_mathematics(form):
  rows = ''.join(f'<p>So {form % k} holds for it.</p>' for k in range(30))
  html = f'<html><body><article><h1>Sums</h1>{rows}</article></body></html>'
  found = extract.extract(html)
  assert found.kind == 'math' and found.formulas == 30
  assert all(form % k in found.text for k in range(30))
  one = extract.extract(html, extract.Config(delimit=True)).text
  assert '$x_{3}^2 + y$' in one or '$$x_{3}' in one


def test_money_and_regular_expressions_are_no_formulas():
  body = '<p>It costs $$ or $$$, they say, and <code>\\(a\\)</code> is a group.</p>'
  assert extract.extract(f'<html><body>{TEXT}{body}').formulas == 0


NOTICES = {
  'en': 'Please reload the picture if you cannot read the letters.',
  'de': 'Melden Sie sich jetzt für unseren Newsletter an.',
  'fr': 'Abonnez-vous à notre lettre d’information.',
  'es': 'Suscríbete a nuestro boletín de noticias.',
  'it': 'Iscriviti alla nostra newsletter settimanale.',
  'pt': 'Assine a nossa newsletter semanal.',
  'nl': 'Schrijf je in voor onze nieuwsbrief.',
  'pl': 'Zapisz się na nasz newsletter.',
  'ru': 'Подпишитесь на нашу рассылку новостей.',
  'tr': 'Haber bültenimize abone olun.',
  'ja': 'メールマガジンに登録してください。',
  'zh': '订阅我们的新闻邮件。',
  'ko': '뉴스레터를 구독하세요.',
}


@pytest.mark.parametrize('lang', NOTICES)
def test_forms_and_notices_go_in_many_languages(lang):
  notice = NOTICES[lang]
  form = f'<section id="replys"><h3>?</h3><form><p>{notice}</p><input></form></section>'
  found = text(f'<article>{TEXT}</article>{form}')
  assert notice not in found and SENTENCES[-1] in found


def test_an_author_box_goes():
  box = '<div class="author-description"><p>Jo Sailor has been writing here.</p></div>'
  found = text(f'<article>{TEXT}</article>{box}')
  assert 'Jo Sailor' not in found and SENTENCES[-1] in found


@pytest.mark.parametrize(
  'page', ['<p>Short.</p>', '<td>Only words in a cell of it</td>']
)
def test_a_short_page_is_not_empty(page):
  html = f'<html><body><div class="menu"><a href="/">x</a></div><main>{page}</main>'
  assert len(extract.extract(html + '<p>And a few more words of it here').text) > 20


def test_a_page_of_a_few_words_has_them():
  page = lambda body: extract.extract(f'<html><body>{body}</body></html>').text.strip()
  assert page('<p>Only words here.</p>') == 'Only words here.'
  assert page('<nav>Home</nav>') == ''


def test_trees_of_other_measures_are_refused(monkeypatch):
  trees.load.cache_clear()
  other = measures.NAMES[1:] + measures.NAMES[:1]
  monkeypatch.setattr(measures, 'NAMES', other)
  with pytest.raises(UserError, match='not the trees of these measures'):
    trees.load()
