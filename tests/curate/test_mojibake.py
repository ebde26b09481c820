"""Text that was decoded wrongly is told from text with accents."""

import numpy as np
import pytest

from llama3_jax.curate.measures import mojibake
from llama3_jax.curate.measures import words

TEXTS = {
  'fr': "Élève, l'été fut agréable : « déjà vu », “l’idée du café” à Noël…",
  'de': 'Die Größe des Flusses („Süßwasser“) überrascht jährlich die Gäste: „Spaß“.',
  'es': '¿Cuándo llegó el niño? ¡Mañana será otro día!, exclamó el señor Muñoz.',
  'pt': 'A informação não está disponível; as condições são públicas (nº 3, 5ª ed.).',
  'vi': 'Người ta không biết trước được những việc sẽ xảy ra ở thành phố này.',
  'ru': 'Река замёрзла зимой, и люди ходили по льду на другой берег.',
  'el': 'Ο ποταμός πάγωσε τον χειμώνα και οι άνθρωποι περνούσαν απέναντι.',
  'hi': 'सर्दियों में नदी जम गई और लोग बर्फ पर चलकर दूसरी ओर गए।',
  'ja': '冬になると川が凍り、人々は氷の上を歩いて向こう岸へ渡った。',
  'ko': '겨울에 강이 얼어서 사람들은 얼음 위를 걸어 건너편으로 갔다.',
  'upper': 'LE CAFÉ « ÉTÉ » : À VOIR, ÇÀ ET LÀ – ÂGÉ DE « 12 ANS » À L’ÎLE.',
}


def counted(text):
  return int(mojibake.count(words.of([text]))[0])


@pytest.mark.parametrize('lang', TEXTS)
def test_text_that_was_decoded_rightly_has_none(lang):
  assert counted(TEXTS[lang]) == 0


@pytest.mark.parametrize('lang', TEXTS)
@pytest.mark.parametrize('wrong', ['latin-1', 'cp1252'])
def test_every_character_that_was_decoded_wrongly_counts(lang, wrong):
  text = TEXTS[lang]
  once = text.encode().decode(wrong, 'replace')
  lost = once.count('\ufffd')  # bytes that windows-1252 does not have
  accents = sum(not char.isascii() for char in text)
  assert accents - lost <= counted(once) <= accents
  if not lost:
    assert counted(once.encode().decode(wrong, 'replace')) >= accents


def test_documents_are_counted_by_themselves():
  texts = ['', 'plain', 'cafÃ© dÃ©jÃ\xa0', 'é' * 9, 'x\n\nÃ©']
  assert np.array_equal(mojibake.count(words.of(texts)), [0, 0, 3, 0, 1])


def test_a_long_text_with_a_single_pair_is_not_looked_at():
  assert counted('x' * 20_000 + ' Ã©') == 0
