"""Heuristic filters: each rule on both sides of its threshold."""

import dataclasses
import re

import global_steps
import numpy as np
import pytest

from llama3_jax.base.errors import UserError
from llama3_jax.curate.machine import documents
from llama3_jax.curate.measures import repetition
from llama3_jax.curate.measures import words
from llama3_jax.curate.rules import heuristics

CONFIG = heuristics.Config()


def only(**limits):
  """A config in which no rule is on but these, for every category."""
  limits = dataclasses.replace(heuristics.OFF, **limits)
  return heuristics.Config(prose=limits, math=limits, code=limits, overrides=())


def measured(*texts, config=CONFIG, **fields):
  batch = global_steps.batch([{'text': text, **fields} for text in texts])
  return heuristics.measure(batch, config)


def column(name, *texts, **fields):
  return measured(*texts, **fields)[name].to_pylist()


def reasons(config, *texts, **fields):
  found = heuristics.step(measured(*texts, config=config, **fields), config)
  return found['drop_reason'].to_pylist()


def unique(n, start=0):
  """n words of four letters, all different."""
  letters = 'abcdefghij'
  return [''.join(letters[int(d)] for d in f'{i:04d}') for i in range(start, start + n)]


def repeats(tokens, every_copy=False):
  values = repetition.measures(words.of([' '.join(tokens)]), every_copy)[0]
  return dict(zip((name.split('.')[1] for name in repetition.COLUMNS), values))


def test_duplicate_ngrams_are_measured_as_the_share_of_later_copies():
  tokens = unique(100)
  for n in range(5, 11):
    name = f'duplicate_{n}gram'
    assert repeats(tokens + tokens[:25])[name] == pytest.approx(25 / 125)
    assert repeats(tokens + tokens[:25], True)[name] == pytest.approx(50 / 125)


def test_top_ngram_is_measured_as_the_share_of_all_copies():
  tokens, text = unique(80), []
  for i in range(10):
    text += [*tokens[i * 8 : i * 8 + 8], 'xxxx', 'yyyy']
  values = repeats(text)
  assert values['top_2gram'] == pytest.approx(20 / 100)
  assert values['top_3gram'] == 0 and values['duplicate_5gram'] == 0


def test_overlapping_copies_count_once():
  values = repeats(['aaaa'] * 50)
  assert all(0 <= value <= 1 for value in values.values())
  assert values['top_2gram'] == 1


def reference(tokens, n, every_copy):
  """Share of characters of repeated n-grams, by a dict of tuples."""
  grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
  starts = {gram: grams.index(gram) for gram in set(grams)}
  covered = set()
  for i, gram in enumerate(grams):
    if i != starts[gram] or (every_copy and grams.count(gram) > 1):
      covered |= set(range(i, i + n))
  return sum(len(tokens[i]) for i in covered) / sum(map(len, tokens))


@pytest.mark.parametrize('every_copy', [False, True])
def test_coverage_is_that_of_the_plain_definition(every_copy):
  rng = np.random.default_rng(0)
  for _ in range(20):
    phrases = [['w' + 'x' * k for k in rng.integers(1, 40, 9)] for _ in range(3)]
    tokens = [
      w for i in rng.integers(0, 3, 6) for w in phrases[i][: rng.integers(3, 10)]
    ]
    values = repeats(tokens, every_copy)
    for n in range(5, 11):
      expected = reference(tokens, n, every_copy)
      assert values[f'duplicate_{n}gram'] == pytest.approx(expected, abs=1e-6)


def test_duplicate_lines_and_paragraphs_by_number_and_by_characters():
  text = 'one a\n\ntwo\nb\n\none a\n\nthree c'
  values = dict(zip(repetition.COLUMNS, repetition.measures(words.of([text]))[0]))
  assert values['repetition.duplicate_lines'] == pytest.approx(1 / 5)
  assert values['repetition.duplicate_paragraphs'] == pytest.approx(1 / 4)
  assert values['repetition.duplicate_line_characters'] == pytest.approx(5 / 21)
  assert values['repetition.duplicate_paragraph_characters'] == pytest.approx(5 / 21)


def test_lines_without_a_word_are_no_duplicates():
  text = '{{{\none\n}}}\n|---|\n{{{\ntwo\n}}}\n|---|\n{{{\none\n}}}'
  found = measured(text)
  assert found['repetition.duplicate_lines'].to_pylist() == [pytest.approx(1 / 3)]
  assert found['repetition.duplicate_line_characters'][0].as_py() == pytest.approx(
    1 / 3
  )


@pytest.mark.parametrize('n', range(5, 11))
def test_duplicate_coverage_at_the_threshold_stays_and_above_goes(n):
  limit = getattr(CONFIG.prose, f'max_duplicate_{n}gram')
  config = only(**{f'max_duplicate_{n}gram': limit})
  copies = round(limit * 100)
  texts = []
  for more in (0, 1):
    tokens = unique(100 - copies - more)
    texts.append(' '.join(tokens + tokens[: copies + more]))
  assert reasons(config, *texts) == [None, f'repetition.duplicate_{n}gram']


@pytest.mark.parametrize('n', [2, 3, 4])
def test_top_ngram_at_the_threshold_stays_and_above_goes(n):
  config = only(**{f'max_top_{n}gram': 0.24})
  texts = []
  for copies in (24 // n, 24 // n + 1):
    tokens, gram = unique(100 - n * copies), ['xxxx', 'yyyy', 'zzzz', 'vvvv'][:n]
    for i in range(copies):
      tokens[i * (n + 2) : i * (n + 2)] = gram
    texts.append(' '.join(tokens))
  assert reasons(config, *texts) == [None, f'repetition.top_{n}gram']


def test_logs_and_spam_go_and_prose_stays():
  log = '\n'.join(
    f'Error {i}: the connection to the server was lost' for i in range(60)
  )
  (reason,) = reasons(CONFIG, log)
  assert reason.startswith(('repetition.', 'fineweb.'))
  prose = (
    'The mill stands by the river, and it has stood there for two hundred years. '
    'My grandfather worked in it when he was a boy. He told us that the wheel had '
    'been made of oak, with iron bands around it. In winter the ice stopped it. Then '
    'all of the men had to climb down with axes and break what they could before the '
    'frost came back in the evening. Nobody was ever paid for that work.'
  )
  assert reasons(CONFIG, prose) == [None]


SIDES = [
  ('min_words', 50, ' '.join(unique(50)), ' '.join(unique(49)), 'length.words'),
  ('max_words', 60, ' '.join(unique(60)), ' '.join(unique(61)), 'length.many_words'),
  ('min_characters', 100, 'x' * 99 + '\n', 'x' * 99, 'length.characters'),
  ('min_mean_word', 3, 'abc de fghi', 'abc de fgh', 'gopher.short_words'),
  ('max_mean_word', 10, f'{"x" * 10} a{"y" * 9}', 'x' * 11, 'gopher.long_words'),
  ('max_symbols_per_word', 0.5, '# a b... c d', '# a b... c', 'gopher.symbols'),
  ('max_bullet_lines', 0.5, '- a\nb\n\n• c\nd', '- a\nb\n• c', 'gopher.bullet_lines'),
  ('max_ellipsis_lines', 0.5, 'a…\nb', 'a...\nb…\nc', 'gopher.ellipsis_lines'),
  ('min_letter_words', 0.5, 'a 1 b 2', 'a 1 b 2 3', 'gopher.letter_words'),
  ('min_stop_words', 2, 'The end of it', 'the the the', 'gopher.stop_words'),
  ('min_sentences', 2, 'One. Two!', 'One, 2.5 e.g', 'c4.sentences'),
  ('max_lorem_ipsum', 0, 'lorem and ipsum', 'Lorem ipsum.', 'c4.lorem_ipsum'),
  ('max_braces', 1, 'a { b }', 'a {{ b }}', 'c4.braces'),
  ('min_ended_lines', 0.5, 'a.\nb', 'a.\nb\nc', 'fineweb.ended_lines'),
  ('max_short_lines', 0.5, f'{"x" * 31}\na', 'x' * 30, 'fineweb.short_lines'),
  ('max_newlines_per_word', 0.5, 'a b\nc d\n', 'a\nb\nc', 'fineweb.newlines'),
  ('max_mojibake', 200, 'abcdÃ©fgh', 'abÃ©', 'encoding.mojibake'),
  ('max_mean_line', 10, f'{"x" * 10}\n\ny', 'x' * 11, 'code.mean_line'),
  ('max_longest_line', 10, f'{"x" * 10}\ny', f'{"x" * 11}\ny', 'code.longest_line'),
  ('min_alphanumeric', 0.5, 'a1 (;', 'a1 (;)', 'code.alphanumeric'),
  ('min_letters', 0.5, 'ab 12', 'ab 123', 'code.letters'),
  ('max_signs', 0.5, 'ab +;', 'ab +;;', 'code.signs'),
  ('min_code_lines', 0.5, 'if x {\n  y', 'if x {\ny\nz', 'code.code_lines'),
  ('min_tex', 100, '$x^2$ or 3', '$x^2 or 3 more', 'math.tex'),
]


@pytest.mark.parametrize('field, limit, inside, outside, reason', SIDES)
def test_a_value_at_the_threshold_stays_and_beyond_goes(
  field, limit, inside, outside, reason
):
  assert reasons(only(**{field: limit}), inside, outside) == [None, reason]


def test_every_threshold_has_a_rule_and_every_rule_is_tested_or_repetition():
  fields = {field.name for field in dataclasses.fields(heuristics.Limits)}
  assert {field for field, _, _ in heuristics.RULES} == fields
  tested = {side[0] for side in SIDES} | {'max_dirty_words'}
  assert all(re.match('max_(dup|top)', field) for field in fields - tested)


def test_5_dirty_words_in_1000_stay_and_6_go():
  texts = [' '.join(unique(1000 - n) + ['porn'] * n) for n in (5, 6)]
  batch = measured(*texts)
  assert batch['dirty.words'].to_pylist() == pytest.approx([5, 6])
  assert reasons(only(max_dirty_words=5), *texts) == [None, 'dirty.words']


def test_dirty_words_are_whole_words_and_phrases_of_the_users_list(tmp_path):
  path = tmp_path / 'list.txt'
  path.write_text('two words\n\n', 'utf-8')
  config = heuristics.Config(dirty_words=('badWORD',), dirty_path=str(path))
  text = ' '.join(unique(96) + ['Badword', 'badwords', 'Two', 'words'])
  assert measured(text, config=config)['dirty.words'].to_pylist() == [20]
  with pytest.raises(UserError, match='nothing.txt'):
    measured(text, config=heuristics.Config(dirty_path='nothing.txt'))


def test_measuring_drops_nothing_and_the_step_needs_no_text():
  batch = measured('short', ' '.join(unique(80)))
  assert batch['drop_reason'].null_count == 2
  batch = batch.drop_columns(['text'])
  config = only(min_words=50)
  found = heuristics.step(batch, config)
  assert found['drop_reason'].to_pylist() == ['length.words', None]
  assert found['drop_value'].to_pylist() == [1, None]
  other = only(min_words=81)
  assert heuristics.step(batch, other)['drop_reason'].null_count == 0


def test_documents_that_are_dropped_have_no_measures_and_keep_their_reason():
  batch = documents.drop(global_steps.batch([{'text': 'a'}]), {0: ('x.y', 7.0)})
  found = heuristics.step(heuristics.measure(batch, CONFIG), CONFIG)
  assert found['gopher.words'].to_pylist() == [None]
  assert found['drop_reason'].to_pylist() == ['x.y']


def test_prose_rules_leave_code_alone_and_formulas_are_no_symbols():
  code = 'for x in porn { ... }\n' * 30
  assert reasons(CONFIG, code, category='code') == [None]
  formula = ' '.join(
    f'\\frac{{{a}}}{{{b}}} # x_{a} {b}'
    for a, b in zip('abcdefghijklmnop' * 2, 'zyxwvut' * 5)
  )
  rules = {rule.reason for rule in heuristics.rules(CONFIG, 'math')}
  assert 'gopher.symbols' not in rules and 'dirty.words' in rules
  assert 'gopher.symbols' in reasons(only(max_symbols_per_word=0.1), formula)
  assert 'gopher.symbols' not in reasons(CONFIG, formula, category='math')


def test_minified_code_and_data_go():
  minified = 'function f(x){return x+1};' * 60
  table = '\n'.join('+-+-+-+-+-+-+' for _ in range(30))
  found = reasons(CONFIG, minified, table, category='code')
  assert found == ['code.mean_line', 'code.alphanumeric']


def test_languages_have_their_own_limits():
  config = dataclasses.replace(only(), overrides=(('de', 'min_words', 5.0),))
  assert reasons(config, 'ein Satz', lang='de') == ['length.words']
  assert reasons(config, 'one sentence', lang='en') == [None]
  assert reasons(config, 'x = 1', lang='de', category='code') == [None]
  english = {rule.reason for rule in heuristics.rules(CONFIG, 'general', 'en')}
  german = {rule.reason for rule in heuristics.rules(CONFIG, 'multilingual', 'de')}
  korean = {rule.reason for rule in heuristics.rules(CONFIG, 'multilingual', 'ko')}
  assert english - german == {'gopher.stop_words', 'fineweb.newlines'}
  assert german - korean == {
    'c4.sentences',
    'fineweb.ended_lines',
    'fineweb.short_lines',
  }
  with pytest.raises(UserError, match="'min_wrods'"):
    heuristics.rules(heuristics.Config(overrides=(('de', 'min_wrods', 1.0),)))


def test_thai_is_not_repetitive_for_its_alphabet_and_not_short():
  thai = (
    'ประเทศไทยเป็นประเทศที่ตั้งอยู่ในเอเชียตะวันออกเฉียงใต้ มีพรมแดนติดกับลาว กัมพูชา '
    'มาเลเซีย และพม่า เมืองหลวงคือกรุงเทพมหานคร ประชาชนส่วนใหญ่นับถือศาสนาพุทธ '
    'อาหารไทยมีชื่อเสียงทั่วโลก โดยเฉพาะต้มยำกุ้งและผัดไทย'
  )
  assert column('gopher.words', thai, lang='th')[0] >= 50
  assert reasons(CONFIG, thai, lang='th') == [None]


def test_batches_do_not_change_the_measures():
  texts = ['One two three. ' * 5, '', 'a\n\nb', ' '.join(unique(300) * 2)]
  together = measured(*texts)
  for i, text in enumerate(texts):
    alone = measured(text)
    for name in alone.schema.names[13:]:
      assert alone[name][0].as_py() == together[name][i].as_py(), name


COMMAND = (
  'DROP SMALL CURSOR\n\nDROP SMALL CURSOR — remove a small cursor\n\nSynopsis\n\n'
  'DROP SMALL CURSOR [ IF EXISTS ] name\n\nDescription\n\nDROP SMALL CURSOR removes a '
  'small cursor that was made before. To use DROP SMALL CURSOR you must be the owner '
  'of the small cursor.\n\nExamples\n\nDROP SMALL CURSOR report;\n\nCompatibility\n\n'
  'DROP SMALL CURSOR is an extension of the standard.'
)
NOTES = 'Release 3.2\n\n' + '\n'.join(
  f'- {verb} the {noun} of {thing}, so that {other} no longer has to be {end} by hand'
  for verb, noun, thing, other, end in (
    ('Fixed', 'handling', 'empty strings', 'a query', 'repeated'),
    ('Improved', 'speed', 'sorting', 'the cache', 'cleared'),
    ('Added', 'option', 'colours', 'every page', 'painted'),
    ('Removed', 'old form', 'dates', 'a year', 'written in full'),
    ('Changed', 'order', 'columns', 'the last one', 'named'),
    ('Documented', 'limits', 'large files', 'a reader', 'warned'),
  )
)
TABLE = (
  'The catalog of ranges has a row for each type of range. It is filled when a type is '
  'made, and its rows can be read by all.\n\nColumn\n\nDescription\n\n'
  + '\n\n'.join(
    f'{name} oid (references main_{name}.oid)\n\nThe {name} of {what}'
    for name, what in (
      ('owner', 'the row, who may drop it'),
      ('element', 'the range, a type by itself'),
      ('parent', 'the type'),
      ('array', 'many ranges in a row'),
      ('order', 'what is compared'),
      ('domain', 'the type, or zero if there is none'),
    )
  )
)
PARALLEL = '\n\n'.join(
  f'{name}(value)\n\nReturns the {what} of the value that the caller has given. The '
  f'value has to be a number, or an error is raised. {more}'
  for name, what, more in (
    ('floor', 'nearest whole number below', 'A whole number is its own floor.'),
    ('ceil', 'nearest whole number above', 'Here too whole numbers do not change.'),
    ('sqrt', 'square root', 'There is no root of what is less than zero.'),
    ('exp', 'power of the constant e', 'Large values are too much for the format.'),
  )
)


@pytest.mark.parametrize('text', [COMMAND, NOTES, TABLE, PARALLEL])
@pytest.mark.parametrize('lang', ['en', 'de'])
def test_pages_of_reference_and_release_notes_stay(text, lang):
  assert reasons(CONFIG, text, lang=lang) == [None]


def test_the_allowance_is_for_texts_of_sentences_and_can_be_switched_off():
  strict = dataclasses.replace(CONFIG, sentence_words=0)
  for text, reason in (
    (COMMAND, 'repetition.top_2gram'),
    (PARALLEL, 'duplicate_5gram'),
  ):
    assert reasons(strict, text, lang='en')[0].endswith(reason)
  bare = COMMAND.replace('.', '')
  assert reasons(CONFIG, bare, lang='en') == ['repetition.top_2gram']


def test_the_allowance_of_top_ngrams_falls_with_length():
  filler = 'The {} and the {} of the {} have been with that {}.\n'
  names = unique(4000)

  def page(sentences, share):
    lines = [filler.format(*names[4 * i : 4 * i + 4]) for i in range(sentences)]
    size = sum(map(len, lines)) * share / (1 - share)
    return ''.join(lines) + 'Great Sale. ' * int(size / 10)

  short, long = page(8, 0.3), page(200, 0.3)
  config = only(max_top_2gram=0.2)
  assert reasons(config, short, long) == [None, 'repetition.top_2gram']


MENU = ['Home', 'News', 'Contact us', 'About', 'Shop', 'My account', 'Search', 'Help']


@pytest.mark.parametrize(
  'text',
  [
    '\n'.join(f'{MENU[i % 8]} {MENU[i * 3 % 7]}' for i in range(80)),
    ' '.join(f'cheap {name} online buy {name} best price' for name in MENU * 5),
    COMMAND + '\n' + COMMAND + '\n' + COMMAND,
    '\n'.join(
      f'{name}, the best place for {name}. Find {name} here.' for name in MENU * 6
    ),
    '\n'.join(f'Local story about the {name} and more' for name in unique(60)),
  ],
)
@pytest.mark.parametrize('lang', ['en', 'de', 'pt'])
def test_menus_lists_and_templates_go(text, lang):
  assert reasons(CONFIG, text, lang=lang) != [None]


# Rae et al. 2021, table A1: the least share at which a document is removed.
GOPHER = {
  'duplicate_lines': 0.30,
  'duplicate_paragraphs': 0.30,
  'duplicate_line_characters': 0.20,
  'duplicate_paragraph_characters': 0.20,
  'top_2gram': 0.20,
  'top_3gram': 0.18,
  'top_4gram': 0.16,
  'duplicate_5gram': 0.15,
  'duplicate_6gram': 0.14,
  'duplicate_7gram': 0.13,
  'duplicate_8gram': 0.12,
  'duplicate_9gram': 0.11,
  'duplicate_10gram': 0.10,
}


@pytest.mark.parametrize('lang', ['en', 'de', 'zh'])
def test_the_limits_of_repetition_are_those_of_gopher(lang):
  found = {
    rule.column.removeprefix('repetition.'): (rule.limit, rule.high)
    for rule in heuristics.rules(CONFIG, lang=lang)
    if rule.column.startswith('repetition.')
  }
  assert found == {name: (limit, True) for name, limit in GOPHER.items()}


def test_the_limits_of_quality_are_those_of_gopher():
  """Rae et al. 2021, A.1.1."""
  found = {rule.column: rule.limit for rule in heuristics.rules(CONFIG, lang='en')}
  assert found['gopher.mean_word'] == 10 and CONFIG.prose.min_mean_word == 3
  assert (CONFIG.prose.min_words, CONFIG.prose.max_words) == (50, 100_000)
  assert found['gopher.symbols_per_word'] == 0.1
  assert found['gopher.bullet_lines'] == 0.9 and found['gopher.ellipsis_lines'] == 0.3
  assert found['gopher.letter_words'] == 0.8 and found['gopher.stop_words'] == 2
