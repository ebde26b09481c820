"""Words, lines and counts of a batch, and phrases in them."""

import re
import unicodedata

import numpy as np
import pyarrow as pa

from llama3_jax.curate.machine import documents
from llama3_jax.curate.measures import phrases
from llama3_jax.curate.measures import words

MIXED = [
  'Hello, World! It is 12 o’clock…\n\n  - An İstanbul street {x}\t\n',
  '',
  '\n\n',
  'हिन्दी भाषा में लिखा है।\nÇok güzel ΣΟΦΙΑ № 5',
  'emoji 😀 and 𝒳 and a\u0301ccent',
]


def reference(text):
  """Runs of letters, digits and marks in lower case, a character at a time."""
  lower = ''.join(c.lower() if len(c.lower()) == 1 else c for c in text)
  kept = (c if unicodedata.category(c)[0] in 'LNM' else ' ' for c in lower)
  return ''.join(kept).split()


def documents_of(found):
  return [
    found.hashes[found.first[i] : found.first[i + 1]]
    for i in range(len(found.first) - 1)
  ]


def test_words_are_runs_of_letters_digits_and_marks_in_lower_case():
  found = words.of(MIXED)
  names = {}
  for text, hashes in zip(MIXED, documents_of(found)):
    expected = reference(text)
    assert len(hashes) == len(expected)
    for word, value in zip(expected, hashes.tolist()):
      assert names.setdefault(word, value) == value
  assert len(set(names.values())) == len(names)
  sizes = [len(word) for text in MIXED for word in reference(text)]
  assert found.sizes.tolist() == sizes


def test_lines_are_those_of_split():
  found = words.of(MIXED)
  for i, text in enumerate(MIXED):
    numbers = range(found.line_first[i], found.line_first[i + 1])
    assert [found.text(n) for n in numbers] == text.split('\n')
    sizes = [len(line.strip()) for line in text.split('\n')]
    assert found.lines['size'][numbers].tolist() == sizes
    blank = [not line.strip() for line in text.split('\n')]
    assert (found.lines['hash'][numbers] == 0).tolist() == blank


def test_a_line_begins_with_its_word():
  found = words.of(['one two\n\nthree\nfour five'])
  assert found.line_words().tolist() == [0, 2, 2, 3, 5]


def test_characters_are_words_where_a_language_has_no_spaces():
  assert words.of(['我们在Python里'], 'zh').sizes.tolist() == [1, 1, 1, 6, 1]
  assert words.of(['我们在里'], 'en').sizes.tolist() == [4]
  thai = 'ภาษาไทย'
  assert len(words.of([thai], 'th').hashes) == len(thai)
  assert words.of(['हिन्दी भाषा'], 'hi').sizes.tolist() == [6, 4]


def test_dropped_and_missing_texts_have_no_words():
  rows = [{'text': 'a b'}, {'text': None}, {'text': 'c d e'}, {'text': 'f'}]
  batch = documents.drop(documents.batch(rows), {0: ('x.y', None)})
  found = words.analyse(batch, skip=np.array([False, False, False, True]))
  assert np.diff(found.first).tolist() == [0, 0, 3, 0]
  assert np.diff(found.line_first).tolist() == [0, 0, 1, 0]


def test_a_slice_of_a_batch_has_its_own_texts():
  batch = documents.batch([{'text': t} for t in ('a', 'b c', 'd e f')])
  found, alone = words.analyse(batch.slice(1, 1)), words.of(['b c'])
  assert found.hashes.tolist() == alone.hashes.tolist()


def test_the_limit_is_in_characters():
  batch = documents.batch([{'text': 'äöü ' * 10, 'lang': 'de'}])
  assert len(words.analyse(batch, limit=20).hashes) == 5
  assert len(words.analyse(batch, limit=40).hashes) == 10


def test_counts_are_those_of_the_text():
  text = 'One. Two three! "Four?" Five... # 12\nsix {7} … e.g. $x$ \\alpha'
  counts = words.of([text]).counts[0]
  assert counts[: words.SYMBOL + 1].sum() == len(text.replace('\n', ''))
  assert counts[words.UPPER] == 4
  assert counts[words.DIGIT] == 3
  assert counts[words.DOTS] == 1 and counts[words.ELLIPSIS] == 1
  assert counts[words.SENTENCES] == len(re.findall(r'[.!?]"?(?=\s)', text))
  assert counts[words.RUNS] == len(text.split())
  letters = [any(c.isalpha() for c in run) for run in text.split()]
  assert counts[words.LETTER_RUNS] == sum(letters)
  assert counts[words.NEWLINES] == 1 and counts[words.DOLLAR] == 2


def test_broken_bytes_are_read_to_their_end():
  raw = b'ok \xff\xfe abc \xe2\x82' + b'\xf0\x9f\x98' + b'x\xc3'
  offsets = np.array([0, 8, len(raw)], np.int64)
  column = pa.Array.from_buffers(
    pa.large_string(), 2, [None, pa.py_buffer(offsets), pa.py_buffer(raw)]
  )
  batch = documents.batch([{}, {}])
  batch = batch.set_column(batch.schema.get_field_index('text'), 'text', column)
  assert np.diff(words.analyse(batch).first).tolist() == [2, 2]


def test_single_letters_and_characters_fill_the_room_for_words():
  for text, lang, count in (('a b c', 'en', 3), ('a我b我c', 'zh', 5), ('我', 'zh', 1)):
    assert len(words.of([text] * 9, lang).hashes) == 9 * count


def test_line_keys_ignore_digits_case_punctuation_and_outer_spaces():
  def key(line):
    return int(words.of([line]).lines['key'][0])

  assert key('  Page 12 of 34: NEXT ') == key('page 99 of 10 next')
  assert key('page one') != key('page two') != key('pageone')
  assert key(' --- ') == key('') == 0


def test_flags_know_how_lines_end_and_begin():
  lines = ['A sentence.', 'More …', '• item', 'x = {', '  indented', 'plain', 'so...']
  found = words.of(['\n'.join(lines)]).lines['flags']
  ends = [bool(flag & words.ENDS_SENTENCE) for flag in found]
  assert ends == [True, True, False, False, False, False, True]
  quoted = words.of(['(It is "so.")  \nf(x)']).lines['flags']
  assert [bool(flag & words.ENDS_SENTENCE) for flag in quoted] == [True, False]
  assert [bool(f & words.ENDS_ELLIPSIS) for f in found] == [0, 1, 0, 0, 0, 0, 1]
  assert [bool(f & words.STARTS_BULLET) for f in found] == [0, 0, 1, 0, 0, 0, 0]
  assert [bool(f & words.LOOKS_CODE) for f in found] == [0, 0, 0, 1, 1, 0, 0]


def test_phrases_are_found_within_segments_and_in_scripts_without_spaces():
  table = phrases.table(['terms of use', 'xxx', '色情'])
  found = words.of(['Terms of USE. xxx xxx', 'terms of', 'use', 'terms used'])
  number, kinds = phrases.count(found, found.first, table)
  assert number.tolist() == [3, 0, 0, 0] and kinds.tolist() == [2, 0, 0, 0]
  chinese = words.of(['这是色情网站'], 'zh')
  assert phrases.count(chinese, chinese.first, table)[0].tolist() == [1]
