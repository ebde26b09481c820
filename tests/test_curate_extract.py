"""Extraction: boilerplate out; code, formulas and words kept; markdown markers out."""

import collections
import gzip
import json
import re

import pytest

from llama3_jax.curate import documents
from llama3_jax.curate import extract

PROSE = 'This is a sentence of the article that is long enough to be content. ' * 3
CODE = 'def f(x):  # **not bold**\n    if x:\n\n        return x[0](1)\n    return 2**3'


def page(body):
  return f"""<html><head><title>T</title><style>p {{}}</style></head><body>
    <nav><ul><li><a href="/">Home</a></li><li><a href="/a">About us</a></li></ul></nav>
    <div class="cookie-banner"><p>We use cookies. <button>Accept</button></p></div>
    <main><article><h1>Heading</h1><p>{PROSE}</p>{body}<p>{PROSE}</p></article></main>
    <div class="comments"><p>First comment!</p></div>
    <footer>Copyright 2024. All rights reserved.</footer></body></html>"""


def test_boilerplate_goes_and_content_stays():
  text = extract.extract(page('<p>The middle.</p>'))
  assert 'Heading' in text and 'The middle.' in text and PROSE.strip() in text
  for gone in ('Home', 'About us', 'cookies', 'Copyright', 'First comment', 'p {'):
    assert gone not in text


def test_code_keeps_its_indentation_blank_lines_and_stars():
  assert CODE in extract.extract(page(f'<pre><code>{CODE}</code></pre>'))


def test_coloured_code_keeps_its_indentation():
  coloured = CODE.replace('def', '<span class="k">def</span>')
  assert CODE in extract.extract(page(f'<div><pre>{coloured}\n</pre></div>'))


@pytest.mark.parametrize(
  'markup',
  [
    r'<img class="tex" alt="\frac{a}{b}" src="1.png">',
    r'<img src="1.png" alt="\frac{a}{b}">',
    r'<math alttext="\frac{a}{b}"><mfrac><mi>a</mi><mi>b</mi></mfrac></math>',
    r'<math><semantics><mfrac><mi>a</mi><mi>b</mi></mfrac>'
    r'<annotation encoding="application/x-tex">\frac{a}{b}</annotation></semantics>'
    r'</math>',
    r'<script type="math/tex">\frac{a}{b}</script>',
    r'<span class="katex"><span class="katex-mathml"><math><semantics><mi>a</mi>'
    r'<annotation encoding="application/x-tex">\frac{a}{b}</annotation></semantics>'
    r'</math></span><span class="katex-html" aria-hidden="true">ab</span></span>',
  ],
)
def test_formulas_become_their_tex_source_once(markup):
  text = extract.extract(page(f'<p>We see that {markup} holds.</p>'))
  assert r'We see that \frac{a}{b} holds.' in ' '.join(text.split())


def test_alt_text_of_photographs_is_left_out():
  text = extract.extract(page('<p>A <img src="c.jpg" alt="cat on a mat"> sat.</p>'))
  assert 'cat' not in text


def test_heading_anchors_go():
  assert '¶' not in extract.extract(page('<h2>Next<a class="headerlink">¶</a></h2>'))


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
  ],
)
def test_markdown_markers_go_and_words_stay(marked, plain):
  assert extract.strip_markdown(marked) == (marked if plain is None else plain)


@pytest.mark.parametrize('html', ['', '<html></html>', '<body></body>', 'x', '\x00<p'])
def test_odd_pages_give_some_text_and_no_error(html):
  assert isinstance(extract.extract(html), str)


def test_step_drops_pages_without_text_and_leaves_plain_documents_alone():
  rows = [
    {'html': page('<p>x</p>')},
    {'html': '<html><body><nav>Home</nav></body></html>'},
    {'text': '# kept as it is'},
  ]
  table = extract.step(documents.table(rows))
  assert table['drop_reason'].to_pylist() == [None, 'extract.empty', None]
  assert table['text'][2].as_py() == '# kept as it is'
  assert table['html'].null_count == 3


def test_f1_on_scored_pages(assets):
  folder = assets / 'web_extraction'
  truth = json.loads(next(folder.rglob('ground-truth.json')).read_text('utf-8'))
  scores = []
  for name, entry in sorted(truth.items())[:60]:
    text = extract.extract(_html(folder, name))
    scores.append(_shingle_scores(entry['articleBody'], text))
  tp, fp, fn = (sum(s[i] for s in scores) / len(scores) for i in range(3))
  precision, recall = tp / (tp + fp), tp / (tp + fn)
  assert 2 * precision * recall / (precision + recall) > 0.90


def _html(folder, name):
  path = next(folder.rglob(f'{name}.html*'))
  data = path.read_bytes()
  return (gzip.decompress(data) if path.suffix == '.gz' else data).decode('utf-8')


def _shingle_scores(truth, found, n=4):
  """Mean true positives, false positives, false negatives of 4-word shingles."""

  def shingles(text):
    words = re.findall(r'\w+', text.lower())
    return collections.Counter(
      tuple(words[i : i + n]) for i in range(max(1, len(words) - n + 1))
    )

  a, b = shingles(truth), shingles(found)
  tp = sum(min(a[key], b[key]) for key in a | b)
  fp, fn = sum((b - a).values()), sum((a - b).values())
  total = tp + fp + fn
  return (tp / total, fp / total, fn / total)
