"""Heuristic filters: each rule on both sides of its threshold."""

import dataclasses
import random

import numpy as np
import pytest

from llama3_jax.curate import documents
from llama3_jax.curate import heuristics

LIMITS = heuristics.Limits()


def table(*texts, lang='en', category='general'):
  return documents.table(
    [{'text': t, 'lang': lang, 'category': category} for t in texts]
  )


def reasons(found):
  return found['drop_reason'].to_pylist()


def unique(n, start=0):
  """n words of four letters, all different."""
  letters = 'abcdefghij'
  return [''.join(letters[int(d)] for d in f'{i:04d}') for i in range(start, start + n)]


def test_49_words_are_too_short_and_50_are_not():
  found = heuristics.step_length(
    table(*[' '.join(unique(n)) for n in (49, 50)]), LIMITS
  )
  assert reasons(found) == ['length.words', None]
  assert found['drop_value'][0].as_py() == 49


def test_code_is_measured_in_characters():
  found = heuristics.step_length(table('x' * 99, 'x' * 100, category='code'), LIMITS)
  assert reasons(found) == ['length.code', None]


def test_scripts_without_spaces_count_characters():
  thai = 'ภาษาไทยไม่มีช่องว่างระหว่างคำ' * 3
  assert len(heuristics.words(thai, 'th')) > 50
  assert reasons(heuristics.step_length(table(thai, lang='th'), LIMITS)) == [None]


def test_vowel_signs_do_not_split_words():
  assert heuristics.words('हिन्दी भाषा', 'hi') == ['हिन्दी', 'भाषा']


def test_duplicate_ngrams_are_measured_as_the_share_of_later_copies():
  words = unique(100)
  values = heuristics.repetition('', words + words[:25])
  for n in range(5, 11):
    assert values[f'duplicate_{n}gram'] == pytest.approx(25 / 125)


def test_top_ngram_is_measured_as_the_share_of_all_copies():
  words = unique(80)
  text = []
  for i in range(10):
    text += [*words[i * 8 : i * 8 + 8], 'xxxx', 'yyyy']
  values = heuristics.repetition('', text)
  assert values['top_2gram'] == pytest.approx(20 / 100)
  assert values['top_3gram'] == 0 and values['duplicate_5gram'] == 0


def test_overlapping_copies_count_once():
  values = heuristics.repetition('', ['aaaa'] * 50)
  assert all(0 <= value <= 1 for value in values.values())
  assert values['top_2gram'] == 1


def test_duplicate_lines_and_paragraphs():
  text = '\n\n'.join(['one a', 'two b', 'one a', 'three c'])
  values = heuristics.repetition(text, heuristics.words(text))
  assert values['duplicate_lines'] == values['duplicate_paragraphs'] == 0.25


@pytest.mark.parametrize('n', range(5, 11))
def test_duplicate_ngram_coverage_at_the_threshold_stays_and_above_goes(n):
  limit = LIMITS.duplicate_grams[n - 5]
  # all other rules off, so that this n decides
  grams = tuple(limit if k == n else 2.0 for k in range(5, 11))
  limits = dataclasses.replace(LIMITS, duplicate_grams=grams, top_grams=(2.0,) * 3)
  copies = round(limit * 100)
  at = unique(100 - copies)
  at = ' '.join(at + at[:copies])
  above = unique(99 - copies)
  above = ' '.join(above + above[: copies + 1])
  found = heuristics.step_repetition(table(at, above), limits)
  assert reasons(found) == [None, f'repetition.duplicate_{n}gram']


@pytest.mark.parametrize('n', range(2, 5))
def test_top_ngram_coverage_at_the_threshold_stays_and_above_goes(n):
  limits = dataclasses.replace(
    LIMITS,
    top_grams=tuple(0.2 if k == n else 2.0 for k in range(2, 5)),
    duplicate_grams=(2.0,) * 6,
  )
  gram, texts = unique(n, 9000), []
  for copies in (4, 5):
    total = 4 * n * 5
    filler = unique(total - copies * n)
    step = len(filler) // copies
    words = []
    for i in range(copies):
      words += [*filler[i * step : (i + 1) * step], *gram]
    texts.append(' '.join(words + filler[copies * step :]))
  found = heuristics.step_repetition(table(*texts), limits)
  assert reasons(found) == [None, f'repetition.top_{n}gram']


def test_three_of_ten_duplicate_lines_stay_and_four_go():
  def page(copies):
    kept = [' '.join(unique(20, 100 * i)) for i in range(10 - copies)]
    return '\n'.join(kept + kept[:copies])

  limits = dataclasses.replace(LIMITS, duplicate_grams=(2.0,) * 6)
  found = heuristics.step_repetition(table(page(3), page(4)), limits)
  assert reasons(found) == [None, 'repetition.duplicate_lines']


def test_logs_are_repetition():
  log = '\n'.join(f'{i} error the disk of worker {i} is full' for i in range(200))
  (reason,) = reasons(heuristics.step_repetition(table(log), LIMITS))
  assert reason.startswith('repetition.')


def test_prose_rules_leave_code_alone():
  code = table('porn porn\n' * 100, category='code')
  for step in (heuristics.step_repetition, heuristics.step_dirty):
    assert reasons(step(code, LIMITS)) == [None]


def test_thai_is_not_repetitive_for_its_alphabet():
  thai = (
    'ประเทศไทยเป็นประเทศที่ตั้งอยู่ในเอเชียตะวันออกเฉียงใต้ มีพรมแดนติดกับลาว กัมพูชา '
    'มาเลเซีย และพม่า เมืองหลวงคือกรุงเทพมหานคร ประชาชนส่วนใหญ่นับถือศาสนาพุทธ '
    'อาหารไทยมีชื่อเสียงทั่วโลก โดยเฉพาะต้มยำกุ้งและผัดไทย'
  )
  assert reasons(heuristics.step_repetition(table(thai, lang='th'), LIMITS)) == [None]


def test_5_dirty_words_in_1000_stay_and_6_go():
  texts = [' '.join(unique(1000 - n) + ['xxx'] * n) for n in (5, 6)]
  found = heuristics.step_dirty(table(*texts), LIMITS)
  assert reasons(found) == [None, 'dirty.words']
  assert found['drop_value'][1].as_py() == 6


def test_dirty_words_are_whole_words_of_the_users_list():
  text = ' '.join(unique(50) + ['Badword'] * 5 + ['badwords'] * 5)
  assert reasons(heuristics.step_dirty(table(text), LIMITS)) == [None]
  assert reasons(heuristics.step_dirty(table(text), LIMITS, ('badWORD',))) == [
    'dirty.words'
  ]


def corpus(documents_, seed=0):
  """Documents whose words follow Zipf's law over one vocabulary."""
  rng = np.random.default_rng(seed)
  words = unique(2000)
  share = 1 / np.arange(1, 2001)
  share /= share.sum()
  return [
    ' '.join(rng.choice(words, p=share, size=rng.integers(50, 400)))
    for _ in range(documents_)
  ]


def test_divergence_equals_its_definition():
  lists = [list('aabc'), list('abbbd'), list('ccccccca')]
  found = heuristics.divergences(lists, prior_words=3.0)
  every = [w for words in lists for w in words]
  q = {w: every.count(w) / len(every) for w in every}
  for words, value in zip(lists, found):
    p = {w: (words.count(w) + 3 * q[w]) / (len(words) + 3) for w in q}
    assert value == pytest.approx(sum(p[w] * np.log(p[w] / q[w]) for w in q))


def test_documents_of_outlier_words_are_dropped_and_the_percentile_is_strict():
  salad = ' '.join(random.Random(0).choices(unique(5000, 3000), k=300))
  texts = corpus(199) + [salad]
  found = heuristics.step_outliers(table(*texts), LIMITS)
  assert reasons(found)[-1] == 'outlier.kl'
  # 99th percentile of 200 values: two lie above it
  assert sum(r is not None for r in reasons(found)) == 2
  everything = dataclasses.replace(LIMITS, kl_percentile=100.0)
  assert set(reasons(heuristics.step_outliers(table(*texts), everything))) == {None}


def test_a_short_document_is_no_outlier_for_being_short():
  words = corpus(300)
  lists = [text.split() for text in words] + [words[0].split()[:20]]
  values = heuristics.divergences(lists, LIMITS.kl_prior_words)
  assert values[-1] < np.percentile(values, 90)


def test_few_documents_of_a_language_give_no_distribution():
  salad = ' '.join(unique(300, 3000))
  for count, dropped in ((98, False), (99, True)):
    found = heuristics.step_outliers(table(*corpus(count), salad), LIMITS)
    assert (reasons(found)[-1] is not None) is dropped


def test_languages_have_their_own_distribution():
  rows = [{'text': t, 'lang': 'en', 'category': 'general'} for t in corpus(150)]
  foreign = [
    ' '.join(random.Random(i).choices(unique(900, 5000), k=200)) for i in range(50)
  ]
  rows += [{'text': t, 'lang': 'de', 'category': 'multilingual'} for t in foreign]
  found = heuristics.step_outliers(documents.table(rows), LIMITS)
  assert set(reasons(found)[150:]) == {None}
