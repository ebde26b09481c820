"""C4's rules for lines (3.1.1; Raffel et al. 2020, 2.2)."""

import dataclasses
import functools
from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from llama3_jax.curate.measures import phrases
from llama3_jax.curate.measures import repetition
from llama3_jax.curate.measures import words as texts

POLICIES = (
  'terms of use',
  'privacy policy',
  'cookie policy',
  'uses cookies',
  'use of cookies',
  'use cookies',
)


@dataclasses.dataclass(frozen=True)
class Config:
  """Which lines are removed.

  Attributes:
    terminal: lines that do not end with terminal punctuation. C4 removes them; that
      loses headings, lists and verses, so it is off.
    min_words: shorter lines; 0 = off, for the same reason (C4: 3).
    max_word: lines with a longer word, in characters; 0 = off.
    javascript: lines with the word javascript.
    policy: lines with one of POLICIES.
    max_line_words: javascript and policy judge lines up to so many words: a paragraph
      about cookies is not a notice; 0 = all lines, as in C4.
    categories: of documents that are left alone.
  """

  terminal: bool = False
  min_words: int = 0
  max_word: int = 1000
  javascript: bool = True
  policy: bool = True
  max_line_words: int = 30
  categories: tuple[str, ...] = ('code', 'math')


def step_lines(
  batch: pa.RecordBatch, config: Config, state: Mapping[str, np.ndarray] | None = None
) -> pa.RecordBatch:
  """Removes lines; a document without any other is dropped as 'c4.nothing_left'."""
  categories = np.array(batch['category'].to_pylist(), object)
  words = texts.analyse(batch, np.isin(categories, config.categories))
  first, lines = words.line_words(), words.lines
  count = np.diff(first)
  remove = np.zeros(len(lines), bool)
  if config.terminal:
    remove |= lines['flags'] & texts.ENDS_SENTENCE == 0
  remove |= count < config.min_words
  if config.max_word:
    long = np.append(0, np.cumsum(words.sizes > config.max_word))
    remove |= np.diff(long[first]) > 0
  listed = [*['javascript'] * config.javascript, *POLICIES * config.policy]
  if listed:
    matched = phrases.count(words, first, _table(tuple(listed)))[0] > 0
    short = count <= config.max_line_words if config.max_line_words else True
    remove |= matched & short
  remove &= lines['hash'] != 0  # blank lines separate paragraphs
  return repetition.cut(batch, words, remove, 'c4.nothing_left')


@functools.lru_cache(maxsize=8)
def _table(entries):
  return phrases.table(list(entries))
