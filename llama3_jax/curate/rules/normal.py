"""Text in one Unicode form (NFC), as web corpora have it (CCNet, FineWeb).

A letter followed by a combining accent and the precomposed letter look the same but are
different bytes: language, line keys, MinHash and the tokenizer would see two texts. NFC
changes no meaning; compatibility forms (NFKC) would. Code is left unchanged, since its
strings are bytes.
"""

import unicodedata
from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from llama3_jax.curate.machine import documents


def nfc(text: str) -> str:
  """The text in NFC."""
  return unicodedata.normalize('NFC', text)


def step(
  batch: pa.RecordBatch,
  config: None = None,
  state: Mapping[str, np.ndarray] | None = None,
) -> pa.RecordBatch:
  """Puts the text of every document that is not code into NFC."""
  rows = documents.alive(batch)
  texts = documents.take(batch, 'text', rows)
  categories = documents.take(batch, 'category', rows)
  changed = {
    int(row): nfc(text)
    for row, text, category in zip(rows, texts, categories)
    if text and category != 'code' and not unicodedata.is_normalized('NFC', text)
  }
  return (
    documents.put(batch, 'text', [*changed], [*changed.values()]) if changed else batch
  )
