"""Language identification, offline."""

import importlib.util
import pathlib
import zipfile

import pytest

from llama3_jax.curate.machine import documents
from llama3_jax.curate.measures import language

TEXTS = {
  'en': 'The quick brown fox jumps over the lazy dog near the river.',
  'de': 'Der schnelle braune Fuchs springt über den faulen Hund am Fluss.',
  'fr': 'Le rapide renard brun saute par-dessus le chien paresseux.',
  'it': 'La volpe veloce salta sopra il cane pigro vicino al fiume.',
  'pt': 'A rápida raposa marrom pula sobre o cão preguiçoso perto do rio.',
  'es': 'El rápido zorro marrón salta sobre el perro perezoso.',
  'hi': 'तेज़ भूरी लोमड़ी आलसी कुत्ते के ऊपर कूदती है।',
  'th': 'สุนัขจิ้งจอกสีน้ำตาลกระโดดข้ามสุนัขขี้เกียจ',
}


@pytest.mark.parametrize('lang', TEXTS)
def test_the_papers_languages_are_recognised(lang):
  found, score = language.detect(TEXTS[lang])
  assert found == lang and 0.3 < score <= 1


def test_capitals_do_not_change_the_language():
  assert language.detect(TEXTS['de'].upper())[0] == 'de'


def test_text_without_letters_has_no_language():
  assert language.detect('12 + 34 = 46 !!!') == ('und', 0.0)
  assert language.detect('') == ('und', 0.0)


def test_a_declared_language_decides_only_where_the_model_is_unsure():
  text = 'Radio, Hotel, Taxi'
  labels, _ = language._model().predict(text, k=3)
  first, second, _ = [label.removeprefix('__label__') for label in labels]
  assert language.detect(text, 'zz', 1.1)[0] == first
  assert language.detect(text, second, 1.1)[0] == second
  assert language.detect(text, second, 0.0)[0] == first
  assert language.detect(TEXTS['en'], 'de', 0.5)[0] == 'en'


def test_step_marks_code_and_drops_unclear_text():
  rows = [
    {'text': TEXTS['de'], 'category': 'general'},
    {'text': 'def f(x): return x', 'category': 'code'},
    {'text': '1 2 3', 'category': 'general'},
  ]
  found = language.step(documents.batch(rows), language.Config())
  assert found['lang'].to_pylist() == ['de', 'code', 'und']
  assert found['drop_reason'].to_pylist() == [None, None, 'language.unclear']
  reason, column, high, limit = language.rule(language.Config(min_score=0.4))
  assert (reason, column, high, limit) == ('language.unclear', 'lang_score', False, 0.4)


def test_articles_of_human_rights_are_recognised(assets):
  file = pathlib.Path(__file__).parents[2] / 'bench/language.py'
  spec = importlib.util.spec_from_file_location('bench_language', file)
  bench = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(bench)
  with zipfile.ZipFile(assets / 'udhr' / 'udhr2.zip') as archive:
    found = bench.paragraphs(archive, bench.MAIN)[::5]
  right = sum(language.detect(text)[0] == code for code, text in found)
  assert len(found) > 400 and right >= 0.95 * len(found)


@pytest.mark.parametrize(
  'text',
  ['Radio', 'De Bilt', 'In Amsterdam', 'Hotel Taxi', 'Ha Noi', '東京都', '中国人民'],
)
def test_of_a_few_words_nothing_is_said(text):
  found = language.step(documents.batch([{'text': text, 'category': 'general'}]))
  assert found['drop_reason'].to_pylist() == ['language.unclear']


@pytest.mark.parametrize('lang', ['en', 'de', 'fr', 'it', 'es', 'hi'])
def test_the_score_of_a_text_falls_with_its_length(lang):
  scores = [language.detect(text)[1] for text in (TEXTS[lang], TEXTS[lang][:4])]
  assert scores[1] <= scores[0] and scores[0] > 0.3


def test_chinese_and_japanese_are_told_apart_by_kana():
  chinese = '这台机器每天早上把面粉送到城里的面包店'
  japanese = '毎朝この機械は町のパン屋へ小麦粉を運ぶ'
  assert language.detect(chinese)[0] == 'zh'
  assert language.detect(japanese)[0] == 'ja'
  assert language.detect('東京大学文学部日本史学研究室')[0] == 'zh'  # no kana at all


def test_vietnamese_without_marks_and_swahili_are_known_by_frequent_words():
  vietnamese = 'Nguoi dan trong lang khong duoc nuoc sach va phai di xa de lay'
  swahili = 'Watu wengi katika kijiji hiyo walitembea kwa miguu wakati wa mvua'
  assert language.detect(vietnamese)[0] == 'vi'
  assert language.detect(swahili)[0] == 'sw'


def test_general_pages_in_other_languages_become_multilingual():
  rows = [
    {'text': TEXTS['de'], 'category': 'general'},
    {'text': TEXTS['en'], 'category': 'general'},
    {'text': TEXTS['fr'], 'category': 'math'},
    {'text': 'Radio', 'category': 'general'},
  ]
  batch = documents.batch(rows)
  found = language.step(batch)['category'].to_pylist()
  assert found == ['multilingual', 'general', 'math', 'general']
  config = language.Config(general=('en', 'de'))
  assert language.step(batch, config)['category'].to_pylist()[0] == 'general'
  off = language.step(batch, language.Config(general=()))
  assert off['category'].to_pylist() == batch['category'].to_pylist()


def test_a_table_of_code_does_not_hide_the_language_of_its_page():
  row = '|----+-----|\n||=**[[Query(a{0}=new&m{0}=,n)]]**=||`x[i:{0}]`||'
  rows = [row.format(i) for i in range(40)]
  prose = (
    'The operations in the following table are defined on the types that can be '
    'changed, and none of them makes a copy of what the list has in it. '
  )
  found, score = language.detect(prose + '\n'.join(rows))
  assert found == 'en' and score > 0.6
  assert language.detect('\n'.join(rows))[1] < 0.3
