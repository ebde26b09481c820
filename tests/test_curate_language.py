"""Language identification, offline."""

import zipfile

import pytest

from llama3_jax.curate import documents
from llama3_jax.curate import language

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


def test_text_without_letters_has_no_language():
  assert language.detect('12 + 34 = 46 !!!') == ('und', 0.0)
  assert language.detect('') == ('und', 0.0)


def test_step_marks_code_and_drops_unclear_text():
  rows = [
    {'text': TEXTS['de'], 'category': 'general'},
    {'text': 'def f(x): return x', 'category': 'code'},
    {'text': '1 2 3', 'category': 'general'},
  ]
  found = language.step(documents.table(rows))
  assert found['lang'].to_pylist() == ['de', 'code', 'und']
  assert found['drop_reason'].to_pylist() == [None, None, 'language.unclear']


def test_articles_of_human_rights_are_recognised(assets):
  names = {'eng': 'en', 'deu': 'de', 'fra': 'fr', 'ita': 'it', 'spa': 'es'}
  with zipfile.ZipFile(assets / 'udhr' / 'udhr2.zip') as archive:
    for stem, lang in names.items():
      text = archive.read(f'udhr2/{stem}.txt').decode('utf-8')
      parts = [part for part in text.split('\n') if len(part) > 60]
      right = sum(language.detect(part)[0] == lang for part in parts)
      assert right >= 0.9 * len(parts) > 0, stem
