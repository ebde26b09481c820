"""Blocks of a page, what is measured of them, and the trees that weigh it."""

import gzip
import importlib.util
import json
import pathlib

import numba
import numpy as np
import pytest

from llama3_jax.curate.extraction import blocks
from llama3_jax.curate.extraction import cut
from llama3_jax.curate.extraction import extract
from llama3_jax.curate.extraction import measures
from llama3_jax.curate.extraction import names
from llama3_jax.curate.extraction import shapes
from llama3_jax.curate.extraction import trees
from llama3_jax.curate.extraction import walk


def cut_of(body):
  return cut.cut(f'<body>{body}</body>'.encode())


def column(found, name):
  x, _ = measures.measures(found, b'')
  return x[:, measures.NAMES.index(name)].tolist()


@pytest.mark.parametrize(
  'body, images, inputs',
  [
    ('<p>one</p><img><p>two</p><p>three</p>', [0, 1, 0], [0, 0, 0]),
    ('<p>one</p><div><img></div><p><img>two</p>', [0, 2], [0, 0]),
    ('<p>one</p><iframe src="v"></iframe><video></video><p>two</p>', [0, 2], [0, 0]),
    ('<p>one<input></p><textarea>x</textarea><select></select>two', [0, 0], [1, 2]),
    ('<p>one</p><button>two</button>', [0, 0], [0, 1]),
  ],
)
def test_images_and_inputs_belong_to_the_block_after_them(body, images, inputs):
  found = cut_of(body)
  assert found.blocks[:, cut.IMAGES].tolist() == images
  assert found.blocks[:, cut.INPUTS].tolist() == inputs
  assert column(found, 'imagenext') == images[1:] + [-1]
  assert column(found, 'inputnext') == inputs[1:] + [-1]


@pytest.mark.parametrize('tag', ['em', 'i', 'small', 'cite'])
def test_italics_are_a_share_of_the_block_that_holds_them(tag):
  found = cut_of(f'<p>four<{tag}>five</{tag}></p><p>none</p><{tag}>all</{tag}>')
  assert column(found, 'slant') == [0.5, 0, 1]


@pytest.mark.parametrize(
  'attribute, group',
  [
    ('itemprop="articleBody"', 'article'),
    ('role="navigation"', 'menu'),
    ('role="contentinfo"', 'foot'),
    ('itemprop="author"', 'author'),
  ],
)
def test_roles_and_properties_are_names(attribute, group):
  found = cut_of(f'<div {attribute}><p>text</p></div><div title="{group}">other</div>')
  bit = 1 << list(names.CLASSES).index(group)
  bits = found.nodes[:, cut.CLASS]
  assert [bool(row & bit) for row in bits].count(True) == 1


def test_what_a_heading_says_is_measured_of_what_is_under_it():
  found = cut_of(
    '<p>a</p><h2>Related articles</h2><p>b</p><p>c</p><h2>News</h2><p>d</p>'
  )
  assert column(found, 'head.related') == [-1, 1, 1, 1, 0, 0]
  assert column(found, 'headgap') == [1000, 0, 1, 2, 0, 1]


def test_the_second_pass_sees_the_mean_of_what_is_under_one_heading():
  found = cut_of('<p>aa</p><h2>bb</h2><p>cc</p><p>dd</p><h2>ee</h2>')
  x, mass = measures.measures(found, b'')
  first = np.array([9, -9, 9, 9, -9], np.float32)
  seen = trees.context(x, first, mass, found)[:, -2:]
  assert seen[:, 0] == pytest.approx([-1, 0, 0, 0, 0], abs=1e-3)
  assert seen[:, 1] == pytest.approx([1, 2 / 3, 2 / 3, 2 / 3, 0], abs=1e-3)


def test_kept_blocks_have_a_gap_where_one_was_before_any_block_between():
  found = cut_of('<p>a</p><ul><li>b</li><li>c</li><li>d</li></ul><p>e</p><p>f</p>')
  keep = np.array([1, 1, 0, 1, 0, 1], bool)
  assert blocks.text(found, keep) == blocks.Text('a\n\nb\nd\n\nf', 4, 4, 0)
  assert blocks.text(found, keep & False) == blocks.Text('', 0, 0, 0)


def test_links_of_a_text_are_characters_of_the_blocks_that_are_kept():
  found = cut_of('<p>Grüße an <a href="/">Ä€</a></p><p><a href="/">weg</a></p>')
  assert blocks.text(found, np.array([True, False])).link == round(11 * 5 / 16)


def test_ranks_walk_trees_as_the_reference_does():
  random, leaves = np.random.default_rng(0), 2 * walk.HALF
  both = [
    trees.Trees(
      bias,
      random.integers(0, 6, (9, leaves - 1)).astype(np.int16),
      random.integers(-3, 3, (9, leaves - 1)).astype(np.float32),
      random.normal(size=(9, leaves)).astype(np.float32),
    )
    for bias in (0.3, -0.7)
  ]
  limits, found = walk.pack(both, 8)
  for n in (1, walk.LANES, 2 * walk.LANES + 5):
    x = random.integers(-8, 8, (n, 8)).astype(np.float32) / 2
    x[0, :4] = np.nan, np.inf, -np.inf, -0.0
    ranks = walk.empty(n, limits)
    walk.rank(x[:, :5].copy(), 0, limits, ranks)
    walk.rank(x[:, 5:].copy(), 5, limits, ranks)
    for one, packed in zip(both, found):
      expected = trees.score(x, one)
      assert walk.score(ranks, n, packed).tobytes() == expected.tobytes()


def test_scores_are_those_of_the_reference_in_both_passes():
  body = '<h1>Harbour</h1><p>A crane stands here, and it is old.</p><ul><li>b</li></ul>'
  found = cut_of(body * 60)
  x, mass = measures.measures(found, b'Harbour')
  one, two = trees.load()
  wide = trees.context(x, trees.score(x, one), mass, found)
  assert trees.scores(found, b'Harbour').tobytes() == trees.score(wide, two).tobytes()


@pytest.mark.parametrize(
  'trees_, message', [((64, 300), 'limits'), ((walk.HALF, 2), 'leaves')]
)
def test_trees_that_bytes_cannot_walk_are_refused(trees_, message):
  leaves, limits = trees_
  shape = (limits, leaves - 1)
  limit = np.broadcast_to(np.arange(limits)[:, None], shape).astype(np.float32)
  one = trees.Trees(0, np.zeros(shape, np.int16), limit, np.zeros((limits, leaves)))
  with pytest.raises(ValueError, match=message):
    walk.pack([one], 1)


def test_bytes_of_a_page_are_the_page():
  page = '<html lang="de"><body><p>Grüße aus dem Hafen, wo der Kran steht.</p></body>'
  assert extract.extract(page.encode()) == extract.extract(page)
  assert extract.extract(page).lang == 'de'


@pytest.fixture(scope='module')
def bench():
  file = pathlib.Path(__file__).parents[2] / 'bench/extraction.py'
  spec = importlib.util.spec_from_file_location('bench_extraction', file)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


@pytest.fixture(scope='module')
def training(bench):
  return bench.training


def test_pages_with_sentences_are_decoded_as_curation_decodes_them(tmp_path, bench):
  page = '<meta charset="iso-8859-2"><p>Jak pomagać, żeby nie zaszkodzić.</p>'
  (tmp_path / 'html').mkdir()
  with gzip.open(tmp_path / 'html/a.html.gz', 'wb') as file:
    file.write(page.encode('iso-8859-2'))
  row = {'file': 'a.html.gz', 'url': 'http://x.pl/', 'with': ['żeby'], 'without': []}
  (tmp_path / 'sentences.json').write_text(json.dumps([row]))
  names_, pages, truths, hosts = bench.data.load_sentences(tmp_path)
  assert (names_, pages, hosts) == (['a.html'], [page], ['x.pl'])
  assert bench.data.sentence_f1(truths, pages) == (1, 1, 1)


def test_splits_are_those_of_a_search_over_all_limits(training):
  random = np.random.default_rng(0)
  bins = random.integers(0, training.BINS, (4, 300)).astype(np.uint8)
  g = np.where(bins[2] > 30, 1.0, -1.0) + np.where(bins[1] > 9, 0.4, 0)
  slope = training._slope(g, np.full(300, 0.25), 2.0**13)
  rows, columns = np.arange(300), np.arange(4)
  column, at, sums = training._tree(bins, slope, rows, columns, 2.0**13)

  def best(rows):
    gain = lambda part: g[part].sum() ** 2 / (0.25 * len(part) + 1)
    return max(
      (gain(rows[bins[k, rows] <= b]) + gain(rows[bins[k, rows] > b]), -k, -b)
      for k in columns
      for b in range(training.BINS - 1)
    )

  near = bins[column[0]] <= at[0]
  for node, part in enumerate((rows, rows[near], rows[~near])):
    assert (-column[node], -at[node]) == best(part)[1:]
  leaf = training._leaf(bins, column, at)
  curves = np.bincount(leaf, np.full(300, 0.25), len(sums))
  assert sums[:, 1] / 2**13 == pytest.approx(curves)
  assert sums[:, 0] / 2**13 == pytest.approx(np.bincount(leaf, g, len(sums)), abs=0.1)


def test_the_mean_of_trees_scores_as_the_mean_of_their_scores(training):
  random = np.random.default_rng(1)
  x = random.normal(size=(200, 5)).astype(np.float32)
  y, w, page = (x[:, 0] > 0).astype(float), np.ones(200), np.arange(200) // 10
  found = [training.boost(x, training.bins_of(x), y, w, page, 6, k) for k in (1, 2)]
  each = [trees.score(x, one) for one in found]
  assert trees.score(x, training.mean(found)) == pytest.approx(sum(each) / 2, abs=1e-5)
  assert np.mean((each[0] > 0) == (y > 0)) > 0.95


def test_a_guess_gives_way_to_the_model_and_what_is_known_does_not(training):
  y, w, guessed = np.array([1, 1, 0, 1.0]), np.ones(4), np.array([0, 1, 1, 1])
  score = np.array([-20, -20, 20, 20], np.float32)
  target, weight = training.doubt(y, w, guessed, score)
  half = training.DOUBT
  assert target == pytest.approx([1, 1 - half, half, 1])
  assert weight == pytest.approx([1, 1 - half, 1 - half, 1])


def test_blocks_with_a_sentence_are_known_and_others_guessed(bench):
  texts = ['The crane of the harbour is old.', 'Read our paper.', 'Nobody says of it.']
  judge = bench.data.by_sentences((['crane of the'], ['Read our']), ('Nobody', ''))
  targets, weights, guessed = judge(texts)
  assert targets[:2].tolist() == [1, 0] and guessed.tolist() == [0, 0, 1]
  assert weights[0] > weights[2]
  assert bench.data.by_body('crane')(texts)[2].tolist() == [0, 0, 0]


def test_equal_keys_have_one_number_and_others_have_others():
  number = numba.njit(lambda keys: shapes._number(keys))
  random = np.random.default_rng(2)
  for count in (1, 7, 500):
    keys = random.integers(0, 2**62, count)[random.integers(0, count, 900)] << 1
    index, found = number(keys)
    assert found == len(np.unique(keys)) == len({*zip(keys.tolist(), index.tolist())})
    assert sorted(set(index.tolist())) == list(range(found))


def test_shapes_and_copies_are_counted():
  item = '<li class="a"><a href="/">four</a></li>'
  found = cut_of(f'<p>sixsix</p><ul>{item}{item}</ul><p>other!</p>')
  assert column(found, 'copies') == [1, 2, 2, 1]
  assert column(found, 'sigcount') == [2, 2, 2, 2]
  assert column(found, 'sig') == pytest.approx([0.6, 0.4, 0.4, 0.6])
  assert column(found, 'sigmean') == [6, 4, 4, 6]
  assert column(found, 'siglink') == [0, 1, 1, 0]
