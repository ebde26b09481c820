"""De-duplication of documents, by URL and by MinHash."""

import dataclasses
import importlib.util
import pathlib
import random

import global_steps
import numpy as np
import pyarrow as pa
import pytest

from llama3_jax.curate.duplicates import minhash
from llama3_jax.curate.duplicates import newest
from llama3_jax.curate.machine import documents
from llama3_jax.curate.measures import words

CONFIG = minhash.Config()


def text(seed, count=300):
  rng = random.Random(seed)
  return ' '.join(f'w{rng.randrange(5000)}' for _ in range(count))


def run(*rows, config=CONFIG):
  return global_steps.run(minhash, global_steps.batch([*rows]), config)


def alive(found):
  return list(documents.alive(found))


def test_a_one_word_edit_of_a_long_document_goes_and_an_unrelated_one_stays():
  edited = text(0).split()
  edited[150] = edited[150][::-1]  # as long as before
  found = run({'text': text(0)}, {'text': ' '.join(edited)}, {'text': text(1)})
  assert alive(found) == [0, 2]
  assert found['drop_reason'][1].as_py() == 'document.duplicate'
  assert found['drop_value'][1].as_py() == 2


def test_the_newest_then_longest_then_first_of_a_cluster_stays():
  same = [{'text': text(0), 'date': '2020'}, {'text': text(0), 'date': '2023'}]
  assert alive(run(*same)) == [1]
  longer = [{'text': text(0)}, {'text': text(0) + ' end'}, {'text': text(0)}]
  assert alive(run(*longer)) == [1]
  assert alive(run(*[{'text': text(0)}] * 3)) == [0]
  undated = [{'text': text(0), 'date': None}, {'text': text(0)}]
  assert alive(run(*undated)) == [1]


def test_the_best_of_a_cluster_stays_where_quality_is_preferred():
  rows = [{'text': text(0), 'date': str(2020 + i)} for i in range(3)]
  batch = global_steps.batch(rows)
  batch = documents.add(batch, 'quality.score', [0, 1, 2], [0.2, 0.9, 0.1])
  config = minhash.Config(
    quality_column='quality.score', prefer=('quality', 'date', 'length')
  )
  assert alive(global_steps.run(minhash, batch, config)) == [1]


def test_the_survivor_does_not_depend_on_the_order():
  rows = [{'text': text(0) + ' x' * i, 'url': str(i)} for i in range(4)]
  rows += [{'text': text(i), 'url': str(i)} for i in range(10, 14)]
  kept = set()
  for seed in range(3):
    random.Random(seed).shuffle(rows)
    found = run(*rows)
    kept.add(tuple(sorted(documents.take(found, 'url', documents.alive(found)))))
  assert kept == {('10', '11', '12', '13', '3')}


def test_the_state_does_not_depend_on_shards_batches_and_partitions():
  rows = [{'text': text(i % 7, 200) + f' end{i}'} for i in range(20)]
  one = [[global_steps.batch(rows)]]
  many = [
    [global_steps.batch(rows[:3]), global_steps.batch(rows[3:8], 3)],
    [],
    [global_steps.batch(rows[8:], 8)],
  ]
  a = global_steps.state(minhash, one, CONFIG, 1)
  b = global_steps.state(minhash, many, CONFIG, 8)
  assert a['ids'].tolist() == b['ids'].tolist() and len(a['ids']) == 13
  assert a['values'].tolist() == b['values'].tolist()


def test_a_member_unlike_the_survivor_is_judged_among_its_like():
  """A chain a-b-c of bands: c is not like a, and drops its own copy only."""
  rng = np.random.default_rng(0)
  a = rng.integers(0, 256, 112).astype(np.uint8)
  c = rng.integers(0, 256, 112).astype(np.uint8)
  b = np.where(np.arange(112) < 90, a, c)
  ids = np.arange(5, dtype=np.uint64)
  signature = [row.tobytes() for row in (a, b, c, c, a)]
  sides = {'id': ids, 'date': ['5', '4', '3', '2', '1'], 'length': [1] * 5}
  side = pa.table({**sides, 'signature': pa.array(signature, pa.binary(112))})
  edges = [[(0, 1), (1, 2)], [(2, 3), (0, 4)]]
  tables = [
    pa.table({'a': np.uint64(np.array(e)[:, 0]), 'b': np.uint64([y for _, y in e])})
    for e in edges
  ]
  found = minhash.resolve(iter(tables), iter([side]), CONFIG)
  assert found['ids'].tolist() == [1, 3, 4]
  assert found['values'].tolist() == [3, 2, 3]


def test_documents_of_different_languages_are_duplicates_in_a_global_scope_only():
  rows = [{'text': text(0), 'lang': 'en'}, {'text': text(0), 'lang': 'de'}]
  assert alive(run(*rows)) == [0, 1]
  assert alive(run(*rows, config=minhash.Config(scope=()))) == [0]


def test_case_and_punctuation_do_not_hide_a_duplicate():
  rows = [{'text': text(0)}, {'text': text(0).upper().replace(' ', ', ')}]
  assert len(alive(run(*rows))) == 1


def test_documents_without_words_are_no_duplicates():
  assert alive(run(*[{'text': '—'}] * 3, *[{'text': ''}] * 3)) == list(range(6))


def test_only_the_first_characters_of_a_huge_document_count():
  config = minhash.Config(max_characters=len(text(0)))
  rows = [{'text': text(0) + ' ' + text(1)}, {'text': text(0) + ' ' + text(2)}]
  assert alive(run(*rows)) == [0, 1]
  assert len(alive(run(*rows, config=config))) == 1


def pairs(similarity, number=400, size=400):
  """(true Jaccard similarity, signatures a, signatures b) of pairs of random sets."""
  rng = np.random.default_rng(round(100 * similarity))
  shared = round(2 * size * similarity / (1 + similarity))
  hashes = rng.integers(0, 2**63, (number, 2 * size - shared), np.uint64)

  def sign(part):
    scale, first = np.ones(number, np.int64), np.arange(number + 1) * part.shape[1]
    flat = np.ascontiguousarray(part).ravel()
    blank = dict.fromkeys(field.name for field in dataclasses.fields(words.Words))
    given = dict(hashes=flat, first=first, scale=scale)
    found = words.Words(**blank | given)
    # one-word n-grams, so that the similarity is exact
    return minhash.signatures(found, minhash.Config(gram=1))

  return shared / (2 * size - shared), sign(hashes[:, :size]), sign(hashes[:, -size:])


@pytest.mark.parametrize('similarity', [0.5, 0.7, 0.8, 0.9])
def test_collision_probability_is_on_the_s_curve_and_the_estimate_is_unbiased(
  similarity,
):
  """1 - (1 - s^8)^14, and s, within four standard deviations."""
  true, a, b = pairs(similarity)
  scope = np.zeros(len(a), np.uint64)
  keys = [minhash.band_keys(part, scope, CONFIG) for part in (a, b)]
  hits = (keys[0] == keys[1]).any(axis=1).mean()
  expected = 1 - (1 - true**8) ** 14
  deviation = (expected * (1 - expected) / len(a)) ** 0.5
  assert hits == pytest.approx(expected, abs=4 * deviation + 0.005)
  estimates = (a == b).mean(axis=1)
  deviation = (true * (1 - true) / a.shape[1]) ** 0.5
  assert estimates.mean() == pytest.approx(true, abs=4 * deviation / len(a) ** 0.5)
  assert estimates.std() == pytest.approx(deviation, rel=0.15)


def test_a_generated_corpus_in_many_partitions(tmp_path):
  """bench/dedup_5m.py in small: all three de-duplications one after the other."""
  file = pathlib.Path(__file__).parents[2] / 'bench/dedup_5m.py'
  spec = importlib.util.spec_from_file_location('bench_dedup', file)
  bench = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(bench)
  logged = []
  found = bench.run(bench.Corpus(5000, 3), tmp_path, 100_000, logged.append)
  assert all(' 1 partitions' not in line for line in logged)
  edits, planted = found.pop('one-word edits')
  expected, _ = found.pop('edits on the S-curve')
  assert edits == pytest.approx(expected, abs=0.1 * planted)
  assert all(number == wanted for number, wanted in found.values()), found


def urls(*rows, config=newest.Config()):
  batch = global_steps.batch([{'url': url, 'date': date} for url, date in rows])
  return alive(global_steps.run(newest, batch, config))


def test_the_newest_of_three_copies_of_a_url_stays():
  pages = [('http://a.com/x', d) for d in ('2020-01-01', '2023-05-05', '2021-01-01')]
  assert urls(*pages, ('http://a.com/y', '1999')) == [1, 3]


def test_of_equal_dates_the_first_copy_stays_and_a_date_beats_none():
  assert urls(*[('http://a.com', '2020')] * 3) == [0]
  assert urls(('http://a.com', None), ('http://a.com', '2020')) == [1]


def test_forms_of_one_url_are_one_and_documents_without_url_stay():
  assert urls(('http://A.com/x#top', '2020'), ('https://a.com/x/', '2021')) == [1]
  assert urls((None, '2020'), (None, '2020'), ('', '2020')) == [0, 1, 2]


def test_the_reason_says_how_many_copies_there_are():
  batch = global_steps.batch([{'url': 'http://a.com'}] * 3)
  found = global_steps.run(newest, batch, newest.Config())
  assert found['drop_reason'].to_pylist() == [None, 'url.older', 'url.older']
  assert found['drop_value'].to_pylist() == [None, 3, 3]


def test_dropped_documents_are_no_copies():
  rows = [{'url': 'http://a.com', 'date': str(2020 + i)} for i in range(2)]
  batch = documents.drop(global_steps.batch(rows), {1: ('x.y', None)})
  assert alive(global_steps.run(newest, batch, newest.Config())) == [0]
