"""Two spellings of one text in Unicode are one text."""

import unicodedata

import global_steps
import pytest

from llama3_jax.curate.duplicates import minhash
from llama3_jax.curate.measures import language
from llama3_jax.curate.measures import words
from llama3_jax.curate.rules import normal

TEXTS = (
  'Le garçon très fatigué a déjà mangé la crème brûlée près de la fenêtre fermée.',
  'Tiếng Việt có nhiều dấu và người ta viết chúng bằng nhiều cách khác nhau.',
  '날쌘 갈색 여우가 게으른 개를 뛰어넘고 정원에서 아침까지 잠을 잡니다.',
)


def forms(text, **fields):
  rows = [{'text': unicodedata.normalize(f, text), **fields} for f in ('NFC', 'NFD')]
  return global_steps.batch(rows)


@pytest.mark.parametrize('text', TEXTS)
def test_both_forms_have_one_language_and_one_signature(text):
  found = normal.step(forms(text))
  assert found['text'].to_pylist() == [text, text]
  found = language.step(found)
  assert len(set(found['lang'].to_pylist())) == 1
  assert len(set(found['lang_score'].to_pylist())) == 1
  one, other = minhash.signatures(words.analyse(found), minhash.Config())
  assert (one == other).all()


def test_code_and_compatibility_characters_stay():
  batch = forms('x = "é"', category='code')
  assert normal.step(batch)['text'].to_pylist() == batch['text'].to_pylist()
  kept = forms('ﬁne ① Ａ ｱ')
  assert normal.step(kept)['text'].to_pylist() == kept['text'].to_pylist()
