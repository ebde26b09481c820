"""Benchmark items in training data are found."""

import dataclasses
import gzip
import json
import pathlib
import re
import unicodedata

import global_steps
import pytest

from llama3_jax.base.errors import UserError
from llama3_jax.curate.machine import documents
from llama3_jax.curate.rules import exclude

ITEM = (
  'A farmer has twelve brown cows and seven white goats on a hill. '
  'How many legs do all of his animals have together?'
)
WORDS = re.findall(r'\w+', ITEM)
PROSE = 'Nothing of the kind is written here, on this page about boats.'


@pytest.fixture
def config(tmp_path):
  path = tmp_path / 'bench.jsonl'
  items = [{'question': ITEM, 'answer': 'Yes'}, {'question': 'Who was the first king?'}]
  path.write_text('\n'.join(json.dumps(item) for item in items), 'utf-8')
  return exclude.Config(files=(str(path),), fields=('question', 'answer'))


def run(config, *texts):
  found = exclude.step(global_steps.batch([{'text': text} for text in texts]), config)
  columns = ('drop_reason', exclude.ITEM, exclude.COLUMN)
  return list(zip(*(found[name].to_pylist() for name in columns)))


def test_an_item_as_document_paragraph_or_line_is_exact(config):
  texts = [ITEM.upper(), f'{PROSE}\n\n{ITEM}\n\nEnd.', f'{PROSE}\n{ITEM}\nMore.']
  texts += [f'{PROSE}\n\n' + ITEM.replace('. ', '.\n')]
  expected = ('benchmark.exact', 'bench.jsonl#0.question', 1.0)
  assert run(config, *texts) == [expected] * 4


def test_a_short_item_is_found_as_a_whole_only(config):
  found = run(config, 'Who was the first king?', 'Who was the first king? Me.')
  assert found[0][:2] == ('benchmark.exact', 'bench.jsonl#1.question')
  assert found[1][0] is None


def test_items_below_the_least_words_are_not_looked_for(config):
  assert run(config, 'Yes', PROSE) == [(None, None, 0.0)] * 2


def test_an_item_inside_a_sentence_is_found_by_its_8_grams(config):
  assert run(config, f'{PROSE} {ITEM} {PROSE}') == [
    ('benchmark.ngram', 'bench.jsonl#0.question', 1.0)
  ]


def test_a_share_of_half_the_8_grams_goes_and_below_stays(config):
  grams = len(WORDS) - 7
  half = (grams + 1) // 2
  parts = [' '.join(WORDS[: n + 7]) for n in (half - 1, half)]
  below, above = run(config, *(f'{PROSE} {part} {PROSE}' for part in parts))
  assert below[0] is None and below[2] == pytest.approx((half - 1) / grams)
  assert above[0] == 'benchmark.ngram' and above[2] == pytest.approx(half / grams)


def test_repeats_of_one_8_gram_count_once(config):
  part = ' '.join(WORDS[:8])
  assert run(config, f'{part} xx ' * 50)[0][2] == pytest.approx(1 / (len(WORDS) - 7))


def test_dropped_documents_are_left_as_they_are(config):
  batch = global_steps.batch([{'text': ITEM}])
  batch = documents.drop(batch, {0: ('x.y', 1.0)})
  found = exclude.step(batch, config)
  assert found['drop_reason'].to_pylist() == ['x.y']
  assert found[exclude.COLUMN].to_pylist() == [None]


def test_chinese_items_are_found_in_chinese_documents(tmp_path):
  item = '一个农夫在山上有十二头牛和七只羊，他的动物一共有多少条腿？'
  path = tmp_path / 'zh.jsonl.gz'
  path.write_bytes(gzip.compress(json.dumps({'question': item}).encode()))
  batch = global_steps.batch([{'text': f'题目：{item}请回答。', 'lang': 'zh'}])
  found = exclude.step(batch, exclude.Config(files=(str(path),)))
  assert found['drop_reason'].to_pylist() == ['benchmark.ngram']


def test_broken_files_are_named(tmp_path):
  for text, match in (
    ('{"a": 1}', 'no item has a text question'),
    ('{"question": "x"}\nnope', 'line 2'),
    ('[1]', 'line 1: a list, not an object'),
  ):
    path = tmp_path / f'{len(text)}.jsonl'
    path.write_text(text, 'utf-8')
    with pytest.raises(UserError, match=match):
      exclude.load(exclude.Config(files=(str(path),)))
  with pytest.raises(UserError, match='nothing.jsonl'):
    exclude.load(exclude.Config(files=('nothing.jsonl',)))


def test_mgsm_in_english_is_found_to_be_gsm8k(assets):
  """The first 250 test items; training items are not."""
  lines = (assets / 'mgsm/mgsm_en.tsv').read_text('utf-8').splitlines()
  mgsm = [line.split('\t')[0] for line in lines]
  train = (assets / 'gsm8k/train.jsonl').read_text('utf-8').splitlines()[:500]
  train = [json.loads(line)['question'] for line in train]
  config = exclude.Config(files=(str(assets / 'gsm8k/test_first300.jsonl'),))
  wrapped = [f'Solve this: {question} Give the number.' for question in mgsm]
  found = run(config, *mgsm, *wrapped, *train)
  names = [f'test_first300.jsonl#{i}.question' for i in range(250)]
  assert [item for _, item, _ in found[:500]] == names * 2
  assert {reason for reason, _, _ in found[:250]} == {'benchmark.exact'}
  assert {reason for reason, _, _ in found[250:500]} == {'benchmark.ngram'}
  assert {reason for reason, _, _ in found[500:]} == {None}


ITEMS = {
  'ja': '農夫のヤマさんは丘の上に牛を12頭とヤギを7匹飼っています。'
  '動物の足は全部で何本ですか？',
  'zh': '一个农夫在山上有12头牛和7只羊，他的动物一共有多少条腿？请写出计算过程。',
  'th': 'ชาวนาคนหนึ่งมีวัว 12 ตัวและแพะ 7 ตัวอยู่บนเนินเขา สัตว์ทั้งหมดมีขารวมกันกี่ขา',
  'hi': 'एक किसान के पास पहाड़ी पर 12 गायें और 7 बकरियाँ हैं। सब जानवरों के कुल कितने पैर हैं?',
  'ar': 'يملك مزارع 12 بقرة و7 ماعز على التل. كم عدد أرجل جميع حيواناته معا؟',
  'ko': '한 농부가 언덕 위에 소 12마리와 염소 7마리를 키웁니다. '
  '동물들의 다리는 모두 몇 개입니까?',
}
DIGITS = {'ja': '０１２３４５６７８９', 'th': '๐๑๒๓๔๕๖๗๘๙', 'hi': '०१२३४५६७८९'}
DIGITS |= {'zh': DIGITS['ja'], 'ar': '٠١٢٣٤٥٦٧٨٩', 'ko': DIGITS['ja']}


@pytest.fixture
def many(tmp_path):
  lines = [json.dumps({'question': item}) for item in ITEMS.values()]
  (tmp_path / 'many.jsonl').write_text('\n'.join(lines), 'utf-8')
  return exclude.Config(files=(str(tmp_path / 'many.jsonl'),))


@pytest.mark.parametrize('lang', ITEMS)
def test_an_item_is_found_whatever_the_language_of_its_document(many, lang):
  item = ITEMS[lang]
  numbers = item.translate(str.maketrans('0123456789', DIGITS[lang]))
  middle = f'{PROSE} Problem 7. "{numbers}" (answer 15) {PROSE}'
  rows = [
    {'text': text, 'lang': label, 'category': category}
    for text in (item, numbers, middle, unicodedata.normalize('NFD', middle))
    for label in (lang, 'en', 'th', None)
    for category in ('general', 'code')
  ]
  batch = global_steps.batch(rows)
  found = exclude.step(batch, many)
  name = f'many.jsonl#{[*ITEMS].index(lang)}.question'
  assert set(found[exclude.ITEM].to_pylist()) == {name}
  reasons = found['drop_reason'].to_pylist()
  assert reasons == ['benchmark.exact'] * 16 + ['benchmark.ngram'] * 16
  assert found['text'].equals(batch['text'])  # what is kept is left as it is


def test_a_file_of_all_items_as_code_is_found(many):
  text = pathlib.Path(many.files[0]).read_text('utf-8')
  text = '\n'.join(
    json.dumps(json.loads(x), ensure_ascii=False) for x in text.split('\n')
  )
  batch = global_steps.batch([{'text': text, 'category': 'code'}])
  assert exclude.step(batch, many)['drop_reason'].to_pylist() == ['benchmark.ngram']


def test_other_questions_of_a_language_are_kept(many):
  others = [f'{PROSE} {item[len(item) // 2 :]}' for item in ITEMS.values()]
  others += ['12 7 12 7 12 7', 'ขา ' * 40, '足は全部で何本ですか？']
  batch = global_steps.batch([{'text': text} for text in others])
  found = exclude.step(batch, dataclasses.replace(many, share=0.6))
  assert set(found['drop_reason'].to_pylist()) == {None}


@pytest.mark.parametrize('lang', ['de', 'es', 'fr', 'th'])
def test_mgsm_is_found_in_documents_of_another_language(assets, tmp_path, lang):
  lines = (assets / f'mgsm/mgsm_{lang}.tsv').read_text('utf-8').splitlines()
  items = [line.split('\t')[0] for line in lines]
  path = tmp_path / 'mgsm.jsonl'
  path.write_text('\n'.join(json.dumps({'question': item}) for item in items))
  wide = str.maketrans('0123456789', DIGITS['ja'])
  rows = [
    {'text': f'{PROSE} {item.translate(wide)} {PROSE}', 'lang': 'en', 'category': kind}
    for kind in ('general', 'code')
    for item in items
  ]
  train = (assets / 'gsm8k/train.jsonl').read_text('utf-8').splitlines()[:500]
  rows += [{'text': json.loads(line)['question']} for line in train]
  found = exclude.step(global_steps.batch(rows), exclude.Config(files=(str(path),)))
  names = [f'mgsm.jsonl#{i}.question' for i in range(250)]
  assert found[exclude.ITEM].to_pylist() == names * 2 + [None] * 500
  assert found['drop_reason'].to_pylist() == ['benchmark.ngram'] * 500 + [None] * 500


NUMBERS = str.maketrans('0123456789', '3579246813')


@pytest.mark.parametrize('lang', ITEMS)
def test_an_item_with_other_numbers_is_named_as_such(many, lang):
  other = ITEMS[lang].translate(NUMBERS)
  same = f'{PROSE} Problem 7. "{ITEMS[lang]}" (answer 15) {PROSE}'
  middle = f'{PROSE} Problem 7. "{other}" (answer 15) {PROSE}'
  wide = middle.translate(str.maketrans('0123456789', DIGITS[lang]))
  found = run(many, other, middle, wide, same)
  name = f'many.jsonl#{[*ITEMS].index(lang)}.question'
  assert found == [
    *[('benchmark.numbers', name, 1.0)] * 3,
    ('benchmark.ngram', name, 1.0),
  ]
  off = run(dataclasses.replace(many, numbers_share=0), other, middle)
  assert all(reason in (None, 'benchmark.ngram') for reason, _, _ in off)


@pytest.mark.parametrize(
  ('old', 'new', 'reason'),
  [
    ('twelve', 'forty', 'benchmark.numbers'),
    ('twelve', '1,300', 'benchmark.numbers'),
    ('seven', '7.5', 'benchmark.numbers'),
    ('cows', 'mares', 'benchmark.ngram'),
    ('A farmer', 'The farmer', 'benchmark.ngram'),
    ('farmer has twelve brown cows and seven white goats on a hill', 'x', None),
  ],
)
def test_numbers_may_be_words_and_have_separators(config, old, new, reason):
  text = f'{PROSE} {ITEM.replace(old, new)} {PROSE}'
  assert run(config, text)[0][0] == reason


def test_training_questions_are_not_test_items_with_other_numbers(assets):
  lines = (assets / 'gsm8k/train.jsonl').read_text('utf-8').splitlines()
  train = [json.loads(line)['question'] for line in lines]
  path = assets / 'gsm8k/test_first300.jsonl'
  config = exclude.Config(files=(str(path),), numbers_share=0.5)
  assert not any(reason for reason, _, _ in run(config, *train))
  lines = path.read_text('utf-8').splitlines()
  items = [json.loads(line)['question'] for line in lines]
  changed = [f'{PROSE} {item.translate(NUMBERS)} {PROSE}' for item in items]
  reasons = [reason for reason, _, _ in run(config, *changed)]
  assert None not in reasons and reasons.count('benchmark.numbers') >= 290
