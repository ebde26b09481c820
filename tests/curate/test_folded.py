"""Texts that read alike have the same words, whatever their script and width."""

import unicodedata

import numpy as np
import pytest

from llama3_jax.curate.measures import folded


def of(text):
  found = folded.of([text])
  return found.hashes.tolist(), found.weights.tolist()


@pytest.mark.parametrize(
  ('one', 'other'),
  [
    ('She has 12 apples', 'SHE HAS 12 APPLES!'),
    ('12 apples', '１２ ａｐｐｌｅｓ'),
    ('りんご12個', 'りんご１２個。'),
    ('パン', 'ﾊﾟﾝ'),
    ('๑๒ ตัว', '12 ตัว'),
    ('१२ गाय', '12 गाय'),
    ('١٢ بقرة', '12 بقرة'),
    ('۱۲ گاو', '12 گاو'),
    ('the ﬁrst oﬃce', 'the first office'),
    ('Straße', 'STRASSE'),
    ('Ⅳ ② x²', 'iv 2 x2'),
    ('soft\u00adhyphen zero\u200bwidth', 'softhyphen zerowidth'),
    ('㈱ ㌔', '(株) キロ'),
    ('Łódź, café', 'Łodz cafe'),
    ('한국어', unicodedata.normalize('NFD', '한국어')),
    ('Việt Nam', unicodedata.normalize('NFD', 'Việt Nam')),
    ('葛\U000e0100城', '葛城'),
  ],
)
def test_forms_of_one_text_have_the_same_words(one, other):
  assert of(one) == of(other)


@pytest.mark.parametrize(
  ('one', 'other'),
  [
    ('12 apples', '13 apples'),
    ('一二', '一三'),
    ('กา', 'กี'),
    ('गाय', 'गये'),
    ('ab c', 'a bc'),
    ('½', '12'),
  ],
)
def test_other_texts_have_other_words(one, other):
  assert of(one) != of(other)


def test_words_in_a_mixed_text_follow_their_script():
  found = folded.of(['Say りんご to ควาย, 12個!'])
  assert found.weights.tolist() == [4, 2, 2, 2, 4, 1, 1, 1, 1, 4, 2]
  assert found.weights[:5].tolist() == folded.of(['say りんご to']).weights.tolist()


def test_lines_and_documents_begin_at_their_words():
  found = folded.of(['one two\n \u3000\nthree', '', '\n--\n四'])
  assert found.first.tolist() == [0, 3, 3, 4]
  assert found.line_first.tolist() == [0, 3, 4, 7]
  assert found.line.tolist() == [0, 2, 2, 3, 3, 3, 3, 4]
  assert found.blank.tolist() == [False, True, False, True, True, False, False]


def test_the_kernel_folds_every_character_as_the_slow_reference():
  """Whatever stands beside it; and no character is more words than there is room."""
  codes = [c for c in (*range(1, 0x3400), *range(0xF900, 0x10000), 0x1D7D9, 0x1F100)]
  codes = [c for c in codes if not 0xD800 <= c < 0xE000 and chr(c) not in '\n']
  texts = [f'a{chr(c)}b' for c in codes]
  unseen = {*folded.UNSEEN}
  for first, last in folded.SELECTORS:
    unseen |= {*range(first, last + 1)}
  slow = [f'a{folded.fold(chr(c)) if c not in unseen else ""}b' for c in codes]
  fast, plain = folded.of(texts), folded.of(slow)
  assert (fast.first == plain.first).all() and (fast.hashes == plain.hashes).all()
  table, more = folded.tables()
  several = np.flatnonzero(table >> folded.SHIFT == folded.SEVERAL)
  for code in several[several < 0x32400]:
    entry = int(table[code]) & (1 << folded.SHIFT) - 1
    assert more[entry] >= 2
    found = folded.of([chr(code) * 9])
    assert len(found.hashes) <= folded.GROWTH * 9 * len(chr(code).encode())


def slow_grams(hashes, weights, size):
  """Runs that reach `size` words, by adding up."""
  found, ends = [], []
  for i in range(len(hashes)):
    for end in range(i + 1, len(hashes) + 1):
      if sum(weights[i:end]) >= size * folded.WORD:
        found.append(tuple(hashes[i:end]))
        ends.append(end)
        break
  return found, ends


def test_runs_have_so_many_words_whatever_their_script():
  rng = np.random.default_rng(0)
  hashes = rng.integers(1, 2**63, 3).astype(np.uint64)[rng.integers(0, 3, 300)]
  for weights in (np.full(300, 4), np.full(300, 1), rng.choice([1, 2, 4], 300)):
    weights = weights.astype(np.uint8)
    for size in (1, 3, 8, 80):
      values, ends = folded.grams(hashes, weights, size)
      exact, exact_ends = slow_grams(hashes.tolist(), weights.tolist(), size)
      assert ends.tolist() == exact_ends
      pairs = set(zip(values.tolist(), exact))  # one value for each run, and back
      assert len(pairs) == len({v for v, _ in pairs}) == len({e for _, e in pairs})
