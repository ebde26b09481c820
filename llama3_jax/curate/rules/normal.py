"""Text in one Unicode form (NFC), as web corpora have it (CCNet, FineWeb).

An accent after its letter and the letter with it look the same and are other bytes:
language, line keys, MinHash and the tokenizer would see two texts. NFC changes no
meaning; compatibility forms (NFKC) would. Code stays: a string of a program is bytes.
"""

import unicodedata

from llama3_jax.curate.machine import documents


def nfc(text: str) -> str:
  """The text in NFC."""
  return unicodedata.normalize('NFC', text)


def step(batch, config=None, state=None):
  """Puts the text of every document that is not code into NFC."""
  rows = documents.alive(batch)
  texts = documents.take(batch, 'text', rows)
  categories = documents.take(batch, 'category', rows)
  found = {
    int(row): nfc(text)
    for row, text, category in zip(rows, texts, categories)
    if text and category != 'code' and not unicodedata.is_normalized('NFC', text)
  }
  return documents.put(batch, 'text', [*found], [*found.values()]) if found else batch
