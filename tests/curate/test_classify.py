"""Judged samples become classifiers; classes are thinned; languages are ranked."""

import json

import numpy as np
import pyarrow as pa
import pytest

from llama3_jax.base.errors import UserError
from llama3_jax.curate.judging import classifier
from llama3_jax.curate.judging import classify
from llama3_jax.curate.judging import judge
from llama3_jax.curate.judging import knowledge
from llama3_jax.curate.judging import rank
from llama3_jax.curate.machine import documents
from llama3_jax.curate.measures import words

GOOD = 'theorem measured century treaty river observed species journal reign'.split()
BAD = 'click cart buy discount coupon subscribe sale checkout wishlist'.split()
SMALL = classifier.Config(buckets=1 << 12, words=32, dim=8, steps=60, batch=32)


def texts(n, seed=0):
  """Documents of common words, each with a few of its own class: (texts, labels)."""
  rng = np.random.default_rng(seed)
  common = [f'w{i}' for i in range(50)]
  labels = rng.integers(0, 2, n)
  found = []
  for label in labels:
    mine = rng.choice(GOOD if label else BAD, 4)
    found.append(' '.join(rng.permutation([*rng.choice(common, 20), *mine])))
  return found, labels


def batch(found, **columns):
  rows = [{'text': t, 'category': 'general', 'lang': 'en'} for t in found]
  for name, values in columns.items():
    for row, value in zip(rows, values):
      row[name] = value
  return documents.batch(rows)


def trained(config, labels_file, n=600):
  found, labels = texts(n)
  lines = [
    {'text_hash': f'{classify.text_hash(t):016x}', 'label': ('reject', 'keep')[y]}
    for t, y in zip(found, labels)
  ]
  labels_file.write_text(''.join(json.dumps(line) + '\n' for line in lines))
  parts = [
    classify.emit([batch(found[a : a + 100])], config)['side'] for a in range(0, n, 100)
  ]
  return classify.resolve([], parts, config)


@pytest.mark.parametrize('kind', classifier.KINDS)
def test_classifier_learns_the_judge(kind, tmp_path):
  model = SMALL
  if kind == 'encoder':
    model = classifier.Config('encoder', 1 << 10, 32, 16, 1, 2, 50, 16, 3e-3)
  config = classify.Config(judge=f'file:{tmp_path}/labels.jsonl', model=model)
  state = trained(config, tmp_path / 'labels.jsonl')
  labelled, held, accuracy, area = state['report']
  assert labelled == 600 and held == 120 and accuracy > 0.9 and area > 0.97
  unseen, labels = texts(200, seed=1)
  scored = classify.step(batch(unseen), config, state)
  scores = np.array(scored['quality.keep'].to_pylist())
  assert classifier.auc(scores, labels) > 0.97


def test_scores_do_not_depend_on_the_batch(tmp_path):
  config = classify.Config(judge=f'file:{tmp_path}/labels.jsonl', model=SMALL)
  state = trained(config, tmp_path / 'labels.jsonl')
  found, _ = texts(40, seed=2)
  whole = classify.step(batch(found), config, state)['quality.keep'].to_pylist()
  parts = [
    classify.step(batch(found[a : a + 7]), config, state)['quality.keep'].to_pylist()
    for a in range(0, 40, 7)
  ]
  np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-6)


def test_linear_score_is_the_mean_of_its_words():
  found = words.of(['a b', ''])
  ids, offsets = classifier.features(found, [0, 1], SMALL)
  assert np.diff(offsets).tolist() == [3, 0]  # two words and a pair
  table = np.random.default_rng(0).normal(size=(SMALL.buckets, 2)).astype(np.float32)
  params = {'table': table, 'bias': np.array([0.3, 0.1], np.float32)}
  scores = classifier.score(params, ids, offsets)
  logits = table[ids].mean(0) + params['bias']
  expected = np.exp(logits) / np.exp(logits).sum()
  np.testing.assert_allclose(scores[0], expected, rtol=1e-5)
  expected = np.exp(params['bias']) / np.exp(params['bias']).sum()
  np.testing.assert_allclose(scores[1], expected, rtol=1e-5)


def test_too_few_labels_give_no_classifier_and_drop_nobody(tmp_path):
  config = classify.Config(judge='reference', model=SMALL)
  found, _ = texts(30)
  state = classify.resolve([], [classify.emit([batch(found)], config)['side']], config)
  assert state == {}
  scored = classify.step(batch(found), config, state)
  assert scored['quality.keep'].null_count == 30
  assert documents.alive(rank.step(scored, rank.Config(min_score=0.5))).size == 30


def test_other_categories_are_not_judged():
  found, _ = texts(10)
  config = classify.Config(name='code_quality', categories=('code',), judge='code')
  rows = batch(found, category=['code', 'general'] * 5)
  state = {'table': np.zeros((SMALL.buckets, 2)), 'bias': np.zeros(2)}
  config = classify.Config('code_quality', ('code',), 'code', model=SMALL)
  scored = classify.step(rows, config, state)['code_quality.keep'].to_pylist()
  assert [s is None for s in scored] == [False, True] * 5


def test_bad_labels_are_one_line(tmp_path):
  (tmp_path / 'bad.jsonl').write_text('{"label": "keep"}\n')
  for path, said in (('bad.jsonl', 'line 1'), ('absent.jsonl', 'absent.jsonl')):
    config = classify.Config(judge=f'file:{tmp_path}/{path}')
    with pytest.raises(UserError, match=said):
      classify.emit([], config)


def test_best_share_of_each_language_stays():
  rng = np.random.default_rng(0)
  scores = np.concatenate([rng.uniform(0, 0.5, 400), rng.uniform(0.5, 1, 400)])
  rows = batch(['x'] * 800, lang=['hi'] * 400 + ['en'] * 400)
  rows = documents.add(rows, 'quality.keep', range(800), scores.tolist())
  config = rank.Config(keep_share=0.25, shares=(('hi', 0.5),))
  state = rank.resolve([], [rank.emit([rows], config)['side']], config)
  kept = documents.alive(rank.step(rows, config, state))
  assert (kept < 400).sum() == pytest.approx(200, abs=6)
  assert (kept >= 400).sum() == pytest.approx(100, abs=6)
  gone = set(range(800)) - set(kept.tolist())
  limit = {
    lang: scores[[i for i in kept if (i < 400) == (lang == 'hi')]].min()
    for lang in ('hi', 'en')
  }
  assert all(scores[i] < limit['hi' if i < 400 else 'en'] for i in gone)


def test_score_at_the_threshold_stays_and_below_goes():
  rows = batch(['a', 'b'])
  rows = documents.add(rows, 'quality.keep', [0, 1], [0.5, 0.4375])
  dropped = rank.step(rows, rank.Config(min_score=0.5))
  assert dropped['drop_reason'].to_pylist() == [None, 'quality.score']
  assert dropped['drop_value'].to_pylist() == [None, 0.4375]


def test_rates_cap_the_shares_of_what_is_left():
  sizes, caps = [600, 300, 100], [0.3, 1.0, 1.0]
  found = knowledge.rates(sizes, caps)
  left = [s * r for s, r in zip(sizes, found)]
  assert left[0] / sum(left) == pytest.approx(0.3) and found[1:] == [1.0, 1.0]
  found = knowledge.rates([600, 300, 100], [0.4, 0.3, 1.0])
  left = [s * r for s, r in zip([600, 300, 100], found)]
  assert left[0] / sum(left) == pytest.approx(0.4)
  assert left[1] / sum(left) == pytest.approx(0.3)
  assert knowledge.rates([10, 90], [0.2, 1.0]) == [1.0, 1.0]


def test_over_represented_kinds_are_thinned_the_same_way_every_time():
  found = [f'film number {i}' for i in range(600)] + [f'proof {i}' for i in range(200)]
  rows = batch(found)
  art = [0.9] * 600 + [0.05] * 200
  rows = documents.add(rows, 'knowledge.arts_entertainment', range(800), art)
  science = [0.05] * 600 + [0.9] * 200
  rows = documents.add(rows, 'knowledge.science', range(800), science)
  sizes = pa.array([len(t) for t in found])
  rows = rows.append_column('bytes', sizes)
  config = knowledge.Config(max_shares=(('arts_entertainment', 0.5),))
  state = knowledge.resolve([], [knowledge.emit([rows], config)['side']], config)
  kept = documents.alive(knowledge.step(rows, config, state))
  size = sizes.to_numpy()[kept]
  assert size[kept < 600].sum() / size.sum() == pytest.approx(0.5, abs=0.05)
  assert (kept >= 600).sum() == 200
  half = knowledge.step(rows.slice(300, 300), config, state)
  again = documents.alive(half) + 300
  assert again.tolist() == [i for i in kept.tolist() if 300 <= i < 600]


def test_rules_label_the_clear_cases():
  encyclopedic = 'The treaty of 1648 ended the war, according to the journal. ' * 20
  shop = 'Buy now! Add to cart\nSubscribe to our newsletter\nClick here for the sale\n'
  rows = batch([encyclopedic, shop])
  assert judge.RULES['reference'](rows).tolist() == [1, 0]
  rows = batch(['The film has an actor and an actress; the album and the song. ' * 3])
  names = judge.CLASSES['knowledge']
  assert names[judge.RULES['knowledge'](rows)[0]] == 'arts_entertainment'


def test_verdict_is_the_class_named_first():
  assert judge.verdict('reference', ' Keep. I would not reject it.') == 'keep'
  assert judge.verdict('reference', 'It is hard to say') is None
  assert 'keep or reject' in judge.question('reference', 'text')


def test_crowded_scores_are_ranked_too():
  scores = [1e-6 * (i + 1) for i in range(100)]
  rows = documents.add(batch(['x'] * 100), 'quality.keep', range(100), scores)
  config = rank.Config(keep_share=0.75)
  state = rank.resolve([], [rank.emit([rows], config)['side']], config)
  kept = documents.alive(rank.step(rows, config, state))
  assert len(kept) == pytest.approx(75, abs=2) and kept.max() == 99


def test_a_class_without_labels_is_left_out_and_never_predicted(tmp_path):
  path = tmp_path / 'labels'
  config = classify.Config(judge=f'file:{path}', min_labels=20, model=SMALL)
  found, labels = texts(200)
  names = [('reject', 'keep')[y] for y in labels]
  names[0] = 'rare'
  lines = [
    {'text_hash': f'{classify.text_hash(t):016x}', 'label': name}
    for t, name in zip(found, names)
  ]
  path.write_text(''.join(json.dumps(line) + '\n' for line in lines))
  rows = batch(found)
  state = classify.resolve([], [classify.emit([rows], config)['side']], config)
  scored = classify.step(rows, config, state)
  assert max(scored['quality.rare'].to_pylist()) == 0
  assert max(scored['quality.keep'].to_pylist()) > 0.6
