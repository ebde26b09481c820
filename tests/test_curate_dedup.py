"""De-duplication of documents and lines."""

import random

import numpy as np
import pytest

from llama3_jax.curate import dedup
from llama3_jax.curate import documents


def text(seed, words=300):
  rng = random.Random(seed)
  return ' '.join(f'w{rng.randrange(5000)}' for _ in range(words))


def table(*rows):
  base = {'lang': 'en', 'category': 'general', 'date': '2024-01-01'}
  return documents.table([{**base, **row} for row in rows])


def alive(found):
  return list(documents.alive(found))


def test_a_one_word_edit_of_a_long_document_goes_and_an_unrelated_one_stays():
  edited = text(0).split()
  edited[150] = edited[150][::-1]  # as long as before
  found = dedup.step_documents(
    table({'text': text(0)}, {'text': ' '.join(edited)}, {'text': text(1)})
  )
  assert alive(found) == [0, 2]
  assert found['drop_reason'][1].as_py() == 'document.duplicate'
  assert found['drop_value'][1].as_py() == 2


def test_the_newest_then_longest_then_first_of_a_cluster_stays():
  same = [{'text': text(0), 'date': '2020'}, {'text': text(0), 'date': '2023'}]
  assert alive(dedup.step_documents(table(*same))) == [1]
  longer = [{'text': text(0)}, {'text': text(0) + ' end'}, {'text': text(0)}]
  assert alive(dedup.step_documents(table(*longer))) == [1]
  assert alive(dedup.step_documents(table(*[{'text': text(0)}] * 3))) == [0]


def test_the_survivor_does_not_depend_on_the_order():
  rows = [{'text': text(0) + ' x' * i, 'url': str(i)} for i in range(4)]
  rows += [{'text': text(i), 'url': str(i)} for i in range(10, 14)]
  kept = set()
  for seed in range(3):
    random.Random(seed).shuffle(rows)
    found = dedup.step_documents(table(*rows))
    kept.add(tuple(sorted(documents.take(found, 'url', documents.alive(found)))))
  assert kept == {('10', '11', '12', '13', '3')}


def test_clusters_are_connected_components():
  assert len(set(dedup._components([(0, 1), (1, 2), (4, 5)], 6))) == 3
  assert len(set(dedup._components([], 3))) == 3


def test_documents_of_different_languages_are_no_duplicates():
  found = dedup.step_documents(
    table({'text': text(0), 'lang': 'en'}, {'text': text(0), 'lang': 'de'})
  )
  assert alive(found) == [0, 1]


def test_case_and_punctuation_do_not_hide_a_duplicate():
  found = dedup.step_documents(
    table({'text': text(0)}, {'text': text(0).upper().replace(' ', ', ')})
  )
  assert len(alive(found)) == 1


@pytest.mark.parametrize('similarity', [0.5, 0.7, 0.8, 0.9])
def test_collision_probability_is_on_the_s_curve(similarity):
  """1 - (1 - s^8)^14, within four standard deviations of 200 pairs."""
  rng = random.Random(similarity)
  pairs, size = 200, 400
  shared = round(2 * size * similarity / (1 + similarity))
  true = shared / (2 * size - shared)
  hits = 0
  for _ in range(pairs):
    words = [f'{rng.getrandbits(60):x}' for _ in range(2 * size - shared)]
    a, b = words[:size], words[size - shared :]
    hits += _collide(a, b)
  expected = 1 - (1 - true**8) ** 14
  deviation = (expected * (1 - expected) / pairs) ** 0.5
  assert hits / pairs == pytest.approx(expected, abs=4 * deviation + 0.005)


def _collide(a, b):
  # one-word shingles, so that the similarity is exact
  original, dedup.shingles = dedup.shingles, lambda t, n=5: t.split()
  try:
    x, y = dedup.signature(' '.join(a)), dedup.signature(' '.join(b))
  finally:
    dedup.shingles = original
  return bool(np.any(np.all(x == y, axis=1)))


LINE = 'Share this page with 12 friends!'


def lines(copies, **fields):
  return [{'text': f'{text(i, 20)}\n{LINE}', **fields} for i in range(copies)]


def kept(found):
  return sum(LINE in t for t in documents.take(found, 'text', documents.alive(found)))


def test_a_line_seen_6_times_stays_and_seen_7_times_goes_everywhere():
  assert kept(dedup.step_lines(table(*lines(6)))) == 6
  assert kept(dedup.step_lines(table(*lines(7)))) == 0


def test_repeats_inside_one_document_count_too():
  found = dedup.step_lines(
    table({'text': '\n'.join(['again and again'] * 7 + ['one'])})
  )
  assert documents.take(found, 'text', [0]) == ['one']


def test_counts_do_not_leak_between_languages():
  rows = lines(6, lang='en') + lines(6, lang='de')
  assert kept(dedup.step_lines(table(*rows))) == 12


def test_counts_do_not_leak_between_buckets():
  assert kept(dedup.step_lines(table(*lines(12)), bucket=6)) == 12
  assert kept(dedup.step_lines(table(*lines(12)), bucket=7)) == 5


def test_counts_skip_dropped_documents():
  rows = documents.drop(table(*lines(7)), {0: ('x.y', None)})
  assert kept(dedup.step_lines(rows)) == 6


def test_code_is_left_alone():
  rows = lines(20, category='code')
  assert kept(dedup.step_lines(table(*rows))) == 20


def test_digits_case_and_punctuation_do_not_matter():
  assert dedup.line_key('  Page 12 of 34: NEXT ') == dedup.line_key(
    'page 99 of 10 next'
  )
  assert dedup.line_key('page one') != dedup.line_key('page two')
  assert dedup.line_key(' --- ') is None and dedup.line_key('') is None


def test_empty_lines_and_rules_stay():
  found = dedup.step_lines(table({'text': 'a\n\n---\n' * 6}))
  assert documents.take(found, 'text', [0])[0].count('---') == 6


def test_a_document_of_frequent_lines_only_is_dropped():
  found = dedup.step_lines(table(*[{'text': LINE}] * 7, {'text': 'Something else.'}))
  assert alive(found) == [7]
  assert found['drop_reason'][0].as_py() == 'line.nothing_left'
