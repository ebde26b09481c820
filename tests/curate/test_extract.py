"""Extraction: boilerplate out; code, formulas, tables, lists kept; markers out."""

import importlib.util
import pathlib

import pytest

from llama3_jax.base.errors import UserError
from llama3_jax.curate.extraction import extract
from llama3_jax.curate.extraction import markdown
from llama3_jax.curate.machine import documents

PROSE = 'This is a sentence of the article that is long enough to be content. ' * 3
CODE = 'def f(x):  # **not bold**\n    if x:\n\n        return x[0](1)\n    return 2**3'
FRACTION = r'\frac{a}{b}'
RECALL = extract.Config(mode='recall')


def page(body):
  return f"""<html lang="en-GB"><head><title>T</title><style>p {{}}</style></head><body>
    <nav><ul><li><a href="/">Home</a></li><li><a href="/a">About us</a></li></ul></nav>
    <div class="cookie-banner"><p>We use cookies. <button>Accept</button></p></div>
    <main><article><h1>Heading</h1><p>{PROSE}</p>{body}<p>{PROSE}</p></article></main>
    <div class="comments"><p>First comment!</p></div>
    <footer>Copyright 2024. All rights reserved.</footer></body></html>"""


def text(body, config=extract.Config()):
  return extract.extract(page(body), config).text


def in_order(found, *planted):
  """Whether every planted string is found once, one after the other."""
  at = [found.find(part) for part in planted]
  assert [found.count(part) for part in planted] == [1] * len(planted), found
  assert at == sorted(at), found


def test_boilerplate_goes_and_content_stays():
  found = text('<p>The middle of the article is a short sentence here.</p>')
  in_order(found, 'The middle of the article is a short sentence here.')
  assert found.startswith(PROSE.strip()) and found.endswith(PROSE.strip())
  for gone in ('Home', 'About us', 'cookies', 'Copyright', 'First comment', 'p {'):
    assert gone not in found


def test_the_title_is_a_choice():
  assert 'Heading' not in text('')
  assert text('', extract.Config(title=True)).startswith('Heading')


@pytest.mark.parametrize('config', [extract.Config(), RECALL])
@pytest.mark.parametrize(
  'markup',
  [
    f'<pre><code>{CODE}</code></pre>',
    f'<pre>\n\n{CODE}\n\n</pre>',
    f'<div><pre>{CODE.replace("def", "<span class=k>def</span>")}\n</pre></div>',
    '<pre>' + CODE.replace('\n', '<br>') + '</pre>',
    '<pre>' + ''.join(f'<div>{line}</div>' for line in CODE.split('\n')) + '</pre>',
    '<pre>' + CODE.replace('\n', '\r\n') + '</pre>',
    f'<xmp>{CODE}</xmp>',
    '<table><tr><td class="gutter"><pre>1\n2\n3\n4\n5</pre></td>'
    f'<td><pre>{CODE}</pre></td></tr></table>',
  ],
)
def test_code_keeps_every_character(markup, config):
  found = text(f'<p>{PROSE}</p>{markup}<p>{PROSE}</p>', config)
  in_order(found, CODE)
  assert '1\n2\n3' not in found


ANNOTATED = (
  r'<math><semantics><mfrac><mi>a</mi><mi>b</mi></mfrac>'
  r'<annotation encoding="application/x-tex">\frac{a}{b}</annotation></semantics>'
  '</math>'
)


@pytest.mark.parametrize(
  'markup',
  [
    r'<img class="tex" alt="\frac{a}{b}" src="1.png">',
    r'<img src="1.png" alt="\frac{a}{b}">',
    r'<math alttext="\frac{a}{b}"><mfrac><mi>a</mi><mi>b</mi></mfrac></math>',
    ANNOTATED,
    r'<script type="math/tex">\frac{a}{b}</script>',
    r'<script type="math/tex; mode=display">\frac{a}{b}</script>',
    f'<span class="katex"><span class="katex-mathml">{ANNOTATED}</span>'
    '<span class="katex-html" aria-hidden="true">ab</span></span>',
    '<span class="mwe-math-element"><span style="display: none">'
    rf'{ANNOTATED}</span><img class="mwe-math-fallback" alt="\frac{{a}}{{b}}"></span>',
    '<mjx-container class="MathJax" jax="CHTML"><mjx-math>ab</mjx-math>'
    f'<mjx-assistive-mml>{ANNOTATED}</mjx-assistive-mml></mjx-container>',
    '<span class="MathJax_Preview">a/b</span><span class="MathJax" '
    'id="MathJax-Element-1-Frame"><nobr>ab</nobr><span class="MJX_Assistive_MathML">'
    '<math><mfrac><mi>a</mi><mi>b</mi></mfrac></math></span></span>'
    r'<script type="math/tex" id="MathJax-Element-1">\frac{a}{b}</script>',
  ],
)
def test_formulas_become_their_tex_source_once(markup):
  for config in (extract.Config(), RECALL):
    found = extract.extract(page(f'<p>We see that {markup} holds.</p>'), config)
    flat = ' '.join(found.text.split())
    in_order(flat, rf'We see that {FRACTION} holds.')
    assert 'ab' not in flat and found.formulas == 1


@pytest.mark.parametrize(
  'mathml, readable',
  [
    ('<mfrac><mi>a</mi><mrow><mi>b</mi><mo>+</mo><mn>1</mn></mrow></mfrac>',
     '(a)/(b+1)'),
    ('<msup><mi>x</mi><mn>12</mn></msup><mo>=</mo><msqrt><mi>y</mi></msqrt>',
     'x^12=sqrt(y)'),
    ('<msubsup><mi>x</mi><mi>i</mi><mrow><mi>n</mi><mo>-</mo><mn>1</mn></mrow></msubsup>',
     'x_i^(n-1)'),
    ('<mtable><mtr><mtd><mn>1</mn></mtd><mtd><mn>2</mn></mtd></mtr><mtr><mtd><mn>3</mn>'
     '</mtd><mtd><mn>4</mn></mtd></mtr></mtable>', '1 2; 3 4'),
  ],
)  # fmt: skip
def test_mathml_without_source_is_readable(mathml, readable):
  in_order(text(f'<p>Here <math>{mathml}</math> is.</p>'), f'Here {readable} is.')


def test_glyphs_of_mathjax_are_read_where_nothing_else_says_what_they_are():
  glyphs = '<mjx-c class="mjx-c78"></mjx-c><mjx-c class="mjx-c3D"></mjx-c>'
  found = text(f'<p>Here <mjx-container>{glyphs}</mjx-container> is.</p>')
  in_order(found, 'Here x= is.')


def test_tex_is_delimited_on_demand_and_displayed_formulas_stand_alone():
  display = '<script type="math/tex; mode=display">x_{1} * y * z</script>'
  body = f'<p>Let <script type="math/tex">a*b*c</script> be.</p>{display}'
  in_order(text(body), 'Let a*b*c be.\n', '\nx_{1} * y * z\n')
  in_order(text(body, extract.Config(delimit=True)), '$a*b*c$', '$$x_{1} * y * z$$')


def test_alt_text_of_photographs_is_left_out():
  assert 'cat' not in text('<p>A <img src="c.jpg" alt="cat on a mat"> sat.</p>')


@pytest.mark.parametrize('config', [extract.Config(), RECALL])
def test_tables_lists_and_definitions_lose_no_cell(config):
  table = ''.join(
    '<tr>' + ''.join(f'<td>r{i}c{j}</td>' for j in range(3)) + '</tr>' for i in range(4)
  )
  found = text(
    f'<table><tr><th>Alpha</th><th>Beta</th><th>Gamma</th></tr>{table}</table>'
    '<ul><li>First entry</li><li>Second <b>entry</b><ul><li>Nested one</li></ul></li>'
    '</ul><ol><li>Step one</li><li>Step two</li></ol>'
    '<dl><dt>Term</dt><dd>What the term means in this article, in a sentence.</dd></dl>'
    f'<blockquote><p>A quotation. {PROSE}</p></blockquote>',
    config,
  )
  rows = [f'r{i}c0\tr{i}c1\tr{i}c2' for i in range(4)]
  entries = 'First entry', 'Second entry', 'Nested one', 'Step one', 'Step two'
  in_order(
    found, 'Alpha\tBeta\tGamma', *rows, *entries, 'What the term', 'A quotation.'
  )


def test_a_short_list_at_the_end_of_an_article_stays_and_menus_go():
  html = (
    f'<html><body><article><p>{PROSE}</p><p>You need two things for it:</p>'
    '<ul><li>flour</li><li>water</li></ul></article>'
    '<ul><li><a href="/a">Fashion</a></li><li><a href="/b">Sports</a></li></ul></body>'
  )
  found = extract.extract(html).text
  in_order(found, 'two things', 'flour', 'water')
  assert 'Fashion' not in found


def test_pages_of_code_and_mathematics_keep_all_of_it():
  piece = '<p>Run it.</p><pre>x = {0}\nif x:\n    y({0})</pre>'
  html = '<html><body><aside>' + ''.join(map(piece.format, range(20))) + '</aside>'
  found = extract.extract(html)
  assert found.kind == 'code' and found.code_share > 0.5
  in_order(found.text, *(f'x = {i}\nif x:\n    y({i})\n' for i in range(19)))
  formula = ' is <math alttext="x_{{{0}}}"><mi>x</mi></math> <p>So.</p>'
  html = page(''.join(map(formula.format, range(20))))
  found = extract.extract(html)
  assert found.kind == 'math' and found.formulas == 20
  in_order(found.text, *(f'x_{{{i}}}' for i in range(20)))
  assert extract.extract(page('<p>x</p>'), category='math').kind == 'math'
  assert extract.extract(page('<pre>x = 1</pre>')).kind == 'prose'


def test_heading_anchors_go():
  assert '¶' not in text('<h2>Next<a class="headerlink">¶</a></h2>')


@pytest.mark.parametrize(
  'marked, plain',
  [
    ('# Title', 'Title'),
    ('### Title # not at start', 'Title # not at start'),
    ('- item', 'item'),
    ('> quoted', 'quoted'),
    ('a **bold** and __strong too__ word', 'a bold and strong too word'),
    ('an *italic* word', 'an italic word'),
    ('a [link](https://a.example) here', 'a link here'),
    ('![picture](a.png)', 'picture'),
    ('call `f(x)` now', 'call f(x) now'),
    ('2**3 and 4**5, a*b*c, snake_case_name, __init__.py', None),
    ('10 - 3 > 2 # no', None),
    ('before\n---\nafter', 'before\nafter'),
    ('```python\nx = 1\n```\n', 'x = 1\n'),
    ('a | b\n|---|---|\n1 | 2', 'a | b\n1 | 2'),
    ('a | b\n:---|---\n1 | 2', 'a | b\n1 | 2'),
    ('first\n\t- item\n* item\n+ item', 'first\nitem\nitem\nitem'),
    ('first\n\t- item', 'first\nitem'),
    ('> > twice', 'twice'),
    ('call handlers[0](event) and f[k](x), g[0](event.target)', None),
    ('- 5 degrees', None),
    ('> 100 people', None),
    ('# is the symbol', None),
    ('>>> print(x)', None),
    ('>= 5 or\n- .5 or\n+ 3', None),
  ],
)
def test_markdown_markers_go_and_words_stay(marked, plain):
  assert markdown.strip(marked) == (marked if plain is None else plain)


def test_text_that_looks_like_markup_is_text():
  found = text('<p>Write &lt;p&gt;x &amp;amp; y&lt;/p&gt; and \ue0000\ue001 there.</p>')
  assert 'Write <p>x &amp; y</p> and' in found


@pytest.mark.parametrize('html', ['', '<html></html>', '<body></body>', 'x', '\x00<p'])
def test_odd_pages_give_some_text_and_no_error(html):
  assert isinstance(extract.extract(html).text, str)


def test_step_measures_and_drops_pages_without_text_and_leaves_plain_text_alone():
  rows = [
    {'html': page('<pre>x = 1</pre>'), 'category': 'general'},
    {'html': '<html><body><nav>Home</nav></body></html>', 'category': 'general'},
    {'text': '# kept as it is', 'category': 'code'},
    {'html': page(''), 'drop_reason': 'warc.truncated', 'category': 'general'},
  ]
  batch = extract.step(documents.batch(rows))
  assert batch['drop_reason'].to_pylist() == [
    None,
    'extract.empty',
    None,
    'warc.truncated',
  ]
  assert batch['text'][2].as_py() == '# kept as it is'
  assert batch['html'].null_count == 4
  assert batch['extract.kind'].to_pylist() == ['prose', 'prose', None, None]
  assert batch['extract.lang'].to_pylist() == ['en', None, None, None]
  assert 0 < batch['extract.code_share'][0].as_py() < 0.1


def test_an_unknown_mode_is_named():
  with pytest.raises(UserError, match='extract.mode'):
    extract.Config(mode='fast')


def test_f1_on_scored_pages(assets):
  file = pathlib.Path(__file__).parents[2] / 'bench/extraction.py'
  spec = importlib.util.spec_from_file_location('bench_extraction', file)
  bench = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(bench)
  _, pages, truths = bench.load(assets / 'web_extraction')
  pages, truths = pages[::3], truths[::3]
  scores = [bench.counts(t, extract.extract(p).text) for p, t in zip(pages, truths)]
  assert bench.f1(scores)[0] > 0.95
