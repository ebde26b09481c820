"""Divergence from the corpus, corrected for length."""

import base64
import dataclasses
import random

import global_steps
import numpy as np
import pytest

from llama3_jax.curate.machine import documents
from llama3_jax.curate.measures import unigram
from llama3_jax.curate.measures import words
from llama3_jax.curate.rules import heuristics
from llama3_jax.curate.rules import outliers

UNIGRAM = unigram.Config(buckets=1 << 14)


def vocabulary(start, stop):
  letters = 'abcdefghij'
  return [''.join(letters[int(d)] for d in f'{i:04d}') for i in range(start, stop)]


def corpus(number, seed=0, low=50, high=1500):
  """Documents of log-uniform length whose words follow Zipf's law."""
  rng = np.random.default_rng(seed)
  names = np.array(vocabulary(0, 2000))
  share = 1 / np.arange(1, 2001)
  sizes = np.exp(rng.uniform(np.log(low), np.log(high), number)).astype(int)
  ends = np.cumsum(share / share.sum())
  return [
    ' '.join(names[np.searchsorted(ends, rng.random(n) * ends[-1])]) for n in sizes
  ]


def salad(seed, count=300):
  return ' '.join(random.Random(seed).choices(vocabulary(3000, 5000), k=count))


def run(batch, config=outliers.Config()):
  state = global_steps.state(unigram, [[batch]], UNIGRAM)
  batch = unigram.step(batch, UNIGRAM, state)
  return global_steps.run(outliers, batch, config)


def reasons(found):
  return found['drop_reason'].to_pylist()


def batch(texts, **fields):
  return global_steps.batch([{'text': text, **fields} for text in texts])


def test_divergence_equals_its_definition():
  texts = ['aa aa bb cc', 'aa bb bb bb dd', 'cc cc cc aa']
  found = batch(texts)
  found = unigram.step(found, UNIGRAM, global_steps.state(unigram, [[found]], UNIGRAM))
  every = [word for text in texts for word in text.split()]
  total = len(every) + UNIGRAM.buckets
  for text, value in zip(texts, found[unigram.DIVERGENCE].to_pylist()):
    p = {w: text.split().count(w) / len(text.split()) for w in text.split()}
    q = {w: (every.count(w) + 1) / total for w in p}
    assert value == pytest.approx(sum(p[w] * np.log(p[w] / q[w]) for w in p), rel=1e-5)


def test_documents_of_outlier_words_are_dropped():
  found = run(batch(corpus(297) + [salad(i) for i in range(3)]))
  assert reasons(found)[-3:] == ['outlier.kl'] * 3
  assert found['drop_value'][299].as_py() > 3  # standard deviations
  assert sum(r is not None for r in reasons(found)[:-3]) <= 1


@pytest.mark.parametrize('percentile, dropped', [(100.0, 0), (99.0, 4), (95.0, 20)])
def test_the_percentile_says_how_many_go_and_the_value_at_it_stays(percentile, dropped):
  found = run(batch(corpus(400)), outliers.Config(percentile=percentile))
  gone = np.array([reason is not None for reason in reasons(found)])
  assert dropped * 0.7 - 1 <= gone.sum() <= dropped
  z = np.array(found[outliers.COLUMN].to_pylist())
  if dropped:
    assert z[gone].min() > z[~gone].max()


def test_short_normal_documents_are_not_dropped_more_often_than_long_ones():
  texts = corpus(1200, low=20, high=2000)
  found = run(batch(texts), outliers.Config(percentile=90.0))
  gone = np.array([reason is not None for reason in reasons(found)])
  short = np.array([len(text.split()) < 200 for text in texts])
  raw = np.array(found[unigram.DIVERGENCE].to_pylist())
  assert raw[short].mean() > raw[~short].mean() + 0.5  # why it must be corrected
  assert gone[short].mean() == pytest.approx(gone[~short].mean(), abs=0.05)


def test_few_documents_of_a_language_give_no_distribution():
  for count, dropped in ((98, False), (99, True)):
    found = run(batch([*corpus(count), salad(0)]))
    assert (reasons(found)[-1] is not None) is dropped


def test_languages_have_their_own_distribution():
  rows = [{'text': text, 'lang': 'en'} for text in corpus(150)]
  rows += [{'text': salad(i), 'lang': 'de'} for i in range(50)]
  found = run(global_steps.batch(rows))
  assert set(reasons(found)[150:]) == {None}


def test_code_and_empty_documents_are_not_judged():
  rows = [{'text': text} for text in corpus(120)]
  rows += [{'text': salad(0), 'category': 'code'}, {'text': ''}]
  found = run(global_steps.batch(rows))
  assert reasons(found)[120:] == [None, None]
  assert found[outliers.COLUMN].to_pylist()[120:] == [None, None]


def test_tokens_of_a_vocabulary_can_be_counted(tmp_path):
  path = tmp_path / 'bytes.model'
  ranks = (f'{base64.b64encode(bytes([i])).decode()} {i}\n' for i in range(256))
  path.write_text(''.join(ranks), 'utf-8')
  config = unigram.Config(tokenizer=str(path))
  found = batch(['aab', 'b'])
  state = global_steps.state(unigram, [[found]], config)
  assert state['counts'][0, [97, 98]].tolist() == [2, 2]
  found = unigram.step(found, config, state)
  assert found[unigram.TOKENS].to_pylist() == [3, 1]
  low, high = found[unigram.DIVERGENCE].to_pylist()
  assert low < high


def test_shards_and_partitions_do_not_change_the_state():
  texts = corpus(60)
  one = global_steps.state(unigram, [[batch(texts)]], UNIGRAM, 1)
  shards = [[batch(texts[:20]), batch(texts[20:30])], [batch(texts[30:])]]
  many = global_steps.state(unigram, shards, UNIGRAM, 4)
  assert (one['counts'] == many['counts']).all()
  assert one['counts'].sum() == len(words.of(texts).hashes)


def test_z_of_a_normal_sample_has_center_0_and_spread_1():
  rng = np.random.default_rng(0)
  count = 4000
  found, none = batch(['x'] * count), np.zeros(count, bool)
  values = rng.normal(3, 0.25, count).astype(np.float32)
  found = documents.put_floats(found, unigram.DIVERGENCE, values, none)
  tokens = np.full(count, 100, np.float32)
  found = documents.put_floats(found, unigram.TOKENS, tokens, none)
  z = np.array(global_steps.run(outliers, found, outliers.Config())[outliers.COLUMN])
  assert abs(z.mean()) < 0.06 and abs(z.std() - 1) < 0.05


def test_a_chapter_of_sentences_with_words_of_its_own_stays_and_salad_goes():
  plain = corpus(298)
  own = [f'magma{chr(97 + i)}ring' for i in range(26)]
  mixed = [own[i % 26] if i % 8 == 0 else w for i, w in enumerate(plain.pop().split())]
  chapter = '. '.join(' '.join(mixed[i : i + 12]) for i in range(0, len(mixed), 12))
  salads = [salad(i) for i in range(3)]
  found = batch([*plain, chapter, *salads])
  config = outliers.Config(percentile=98.0)
  strict = reasons(run(found, config))[297:]
  assert strict == ['outlier.kl'] * 4
  found = heuristics.measure(found, heuristics.Config())
  assert reasons(run(found, config))[297:] == [None, *strict[1:]]
  off = dataclasses.replace(config, frequent_share=1.0)
  assert reasons(run(found, off))[297:] == strict
