"""Heuristic filters: length, repetition, Gopher, C4, FineWeb, dirty words (3.1.1).

`measure` reads the text once and adds a column for every measure; `step` compares the
columns with thresholds and needs no text, so thresholds can be tried again without
reading. A value equal to its threshold is kept. `rules` returns the thresholds as data.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from llama3_jax.base.errors import UserError
from llama3_jax.config import nearest
from llama3_jax.curate.machine import documents
from llama3_jax.curate.measures import mojibake
from llama3_jax.curate.measures import phrases
from llama3_jax.curate.measures import repetition
from llama3_jax.curate.measures import words as texts
from llama3_jax.curate.rules import allowance

# A stand-in for the user's list (config.dirty_words): plain, unambiguous English.
DIRTY_WORDS = (
  'porn',
  'porno',
  'milf',
  'blowjob',
  'camgirl',
  'camgirls',
  'hentai',
  'handjob',
  'gangbang',
  'cumshot',
  'upskirt',
)
STOP_WORDS = ('the', 'be', 'to', 'of', 'and', 'that', 'have', 'with')
# (field of Limits, reason, measured column); min_ and max_ say which side is dropped.
RULES = (
  ('min_words', 'length.words', 'gopher.words'),
  ('max_words', 'length.many_words', 'gopher.words'),
  ('min_characters', 'length.characters', 'text.characters'),
  ('max_duplicate_lines', *['repetition.duplicate_lines'] * 2),
  ('max_duplicate_paragraphs', *['repetition.duplicate_paragraphs'] * 2),
  ('max_duplicate_line_characters', *['repetition.duplicate_line_characters'] * 2),
  (
    'max_duplicate_paragraph_characters',
    *['repetition.duplicate_paragraph_characters'] * 2,
  ),
  *((f'max_top_{n}gram', *[f'repetition.top_{n}gram'] * 2) for n in repetition.TOP),
  *(
    (f'max_duplicate_{n}gram', *[f'repetition.duplicate_{n}gram'] * 2)
    for n in repetition.DUPLICATE
  ),
  ('min_mean_word', 'gopher.short_words', 'gopher.mean_word'),
  ('max_mean_word', 'gopher.long_words', 'gopher.mean_word'),
  ('max_symbols_per_word', 'gopher.symbols', 'gopher.symbols_per_word'),
  ('max_bullet_lines', *['gopher.bullet_lines'] * 2),
  ('max_ellipsis_lines', *['gopher.ellipsis_lines'] * 2),
  ('min_letter_words', *['gopher.letter_words'] * 2),
  ('min_stop_words', *['gopher.stop_words'] * 2),
  ('min_sentences', *['c4.sentences'] * 2),
  ('max_lorem_ipsum', *['c4.lorem_ipsum'] * 2),
  ('max_braces', *['c4.braces'] * 2),
  ('min_ended_lines', *['fineweb.ended_lines'] * 2),
  ('max_short_lines', *['fineweb.short_lines'] * 2),
  ('max_newlines_per_word', 'fineweb.newlines', 'fineweb.newlines_per_word'),
  ('max_dirty_words', 'dirty.words', 'dirty.words'),
  ('max_mojibake', *['encoding.mojibake'] * 2),
  ('max_mean_line', *['code.mean_line'] * 2),
  ('max_longest_line', *['code.longest_line'] * 2),
  ('min_alphanumeric', *['code.alphanumeric'] * 2),
  ('min_letters', *['code.letters'] * 2),
  ('max_signs', *['code.signs'] * 2),
  ('min_code_lines', *['code.code_lines'] * 2),
  ('min_tex', *['math.tex'] * 2),
)


@dataclasses.dataclass(frozen=True)
class Limits:
  """Thresholds of a kind of documents; None switches a rule off.

  Shares are 0 to 1. Repetition and Gopher: Rae et al. 2021, table A1 and A.1.1.
  """

  min_words: float | None = 50  # characters / words.UNSPACED, without spaces
  max_words: float | None = 100_000
  min_characters: float | None = None
  max_duplicate_lines: float | None = 0.30
  max_duplicate_paragraphs: float | None = 0.30
  max_duplicate_line_characters: float | None = 0.20
  max_duplicate_paragraph_characters: float | None = 0.20
  max_top_2gram: float | None = 0.20
  max_top_3gram: float | None = 0.18
  max_top_4gram: float | None = 0.16
  max_duplicate_5gram: float | None = 0.15
  max_duplicate_6gram: float | None = 0.14
  max_duplicate_7gram: float | None = 0.13
  max_duplicate_8gram: float | None = 0.12
  max_duplicate_9gram: float | None = 0.11
  max_duplicate_10gram: float | None = 0.10
  min_mean_word: float | None = 3  # characters
  max_mean_word: float | None = 10
  max_symbols_per_word: float | None = 0.1  # hashes and ellipses
  max_bullet_lines: float | None = 0.9
  max_ellipsis_lines: float | None = 0.3
  min_letter_words: float | None = 0.8  # of what is between spaces: '--' is a word
  min_stop_words: float | None = None  # different ones of STOP_WORDS
  min_sentences: float | None = None
  max_lorem_ipsum: float | None = 0
  max_braces: float | None = None
  min_ended_lines: float | None = None  # lines that end with punctuation
  max_short_lines: float | None = None
  max_newlines_per_word: float | None = None
  max_dirty_words: float | None = 5.0  # in 1,000 words
  max_mojibake: float | None = 3.0  # in 1,000 characters (measures/mojibake.py)
  max_mean_line: float | None = None  # characters
  max_longest_line: float | None = None
  min_alphanumeric: float | None = None  # of the characters that are no space
  min_letters: float | None = None  # of the same
  max_signs: float | None = None  # punctuation and symbols, of the same
  min_code_lines: float | None = None  # indented, or ended by a brace or semicolon
  min_tex: float | None = None  # backslashes and dollars in 1,000 characters


OFF = Limits(*[None] * len(dataclasses.fields(Limits)))
# Formulas repeat, consist of short words and symbols, and do not end sentences.
MATH = dataclasses.replace(
  Limits(),
  max_top_2gram=0.30,
  max_top_3gram=0.27,
  max_top_4gram=0.24,
  max_duplicate_5gram=0.30,
  max_duplicate_6gram=0.28,
  max_duplicate_7gram=0.26,
  max_duplicate_8gram=0.24,
  max_duplicate_9gram=0.22,
  max_duplicate_10gram=0.20,
  min_mean_word=1.5,
  max_symbols_per_word=None,
  min_letter_words=0.4,
)
# Code has limits of code curation (against generated lines, and data in place of code)
# and none of prose. Twice the usual 100 and 1,000 characters: pages of code have lines
# of prose, which are long.
CODE = dataclasses.replace(
  OFF,
  min_characters=100,
  max_mean_line=200,
  max_longest_line=2000,
  min_alphanumeric=0.25,
)
# FineWeb's and C4's limits were chosen for English. Of them, languages that end their
# sentences and separate their words as English does have those that tell menus, links
# and keywords from texts.
ALIKE = 'ca cs da de es fi fr hu it nl no pl pt ro sv tr'.split()
OVERRIDES = (
  *((lang, 'min_sentences', 3) for lang in ALIKE),
  *((lang, 'min_ended_lines', 0.12) for lang in ALIKE),
  *((lang, 'max_short_lines', 0.67) for lang in ALIKE),
  ('en', 'min_stop_words', 2),
  ('en', 'min_sentences', 3),
  ('en', 'min_ended_lines', 0.12),
  ('en', 'max_short_lines', 0.67),
  ('en', 'max_newlines_per_word', 0.3),
  *((lang, 'min_mean_word', None) for lang in texts.UNSPACED),
)


@dataclasses.dataclass(frozen=True)
class Config:
  """Everything about the heuristics.

  Attributes:
    prose, math, code: thresholds by category; prose is general and multilingual.
    overrides: (language, field of Limits, value): thresholds of a language's prose.
    every_copy: repeated n-grams count from their first copy (see repetition).
    sentence_words: a text with a sentence every so many words, or more, is allowed more
      repetition and signs (see allowance); 0: none is.
    dirty_words: words and phrases; with dirty_path, those of a file (one a line) too.
    max_characters: of a document that are measured.
  """

  prose: Limits = Limits()
  math: Limits = MATH
  code: Limits = CODE
  overrides: tuple[tuple[str, str, float | None], ...] = OVERRIDES
  every_copy: bool = False
  sentence_words: float = 60
  dirty_words: tuple[str, ...] = DIRTY_WORDS
  dirty_path: str = ''
  max_characters: int = 1_000_000


@dataclasses.dataclass(frozen=True)
class Rule:
  """A document is dropped for `reason` if `column` is above (high) or below `limit`."""

  reason: str
  column: str
  high: bool
  limit: float


def rules(config: Config, category: str = 'general', lang: str = '') -> list[Rule]:
  """Thresholds of the documents of a category and language, in the order of RULES.

  Raises:
    UserError: an override names an unknown field.
  """
  limits = {'math': config.math, 'code': config.code}.get(category, config.prose)
  values = dataclasses.asdict(limits)
  for where, field, value in config.overrides:
    if field not in values:
      near = nearest(field, [*values])
      hint = f'did you mean {" or ".join(near)}?' if near else 'see heuristics.Limits'
      raise UserError(f'curate.heuristics.overrides: no limit {field!r}; {hint}')
    if where == lang and category not in ('math', 'code'):
      values[field] = value
  return [
    Rule(reason, column, field.startswith('max_'), values[field])
    for field, reason, column in RULES
    if values[field] is not None
  ]


def measure(
  batch: pa.RecordBatch, config: Config, state: Mapping[str, np.ndarray] | None = None
) -> pa.RecordBatch:
  """Adds every measured column; drops nothing.

  Columns are float32, null for documents that are dropped already or have no text.
  """
  words = texts.analyse(batch, limit=config.max_characters)
  values = {**measures(words, config), **repetition.columns(words, config.every_copy)}
  values = _allowed(values, words, config.sentence_words)
  missing = ~np.asarray(batch['drop_reason'].is_null())
  missing |= np.asarray(batch['text'].is_null())
  for name, value in values.items():
    batch = documents.put_floats(batch, name, value.astype(np.float32), missing)
  return batch


def step(
  batch: pa.RecordBatch, config: Config, state: Mapping[str, np.ndarray] | None = None
) -> pa.RecordBatch:
  """Drops documents by the measured columns and records the first rule that applies."""
  alive = documents.alive(batch)
  groups = {}
  columns = (documents.take(batch, name, alive) for name in ('category', 'lang'))
  for row, category, lang in zip(alive.tolist(), *columns):
    groups.setdefault((category, lang), []).append(row)
  values, drops = {}, {}
  for (category, lang), rows in groups.items():
    rows = np.array(rows)
    for rule in rules(config, category, lang or ''):
      if rule.column not in values:
        values[rule.column] = documents.floats(batch, rule.column)
      value, limit = values[rule.column][rows], np.float32(rule.limit)
      for row in rows[value > limit if rule.high else value < limit].tolist():
        drops.setdefault(row, (rule.reason, float(values[rule.column][row])))
  return documents.drop(batch, drops)


def measures(words: texts.Words, config: Config) -> dict[str, np.ndarray]:
  """{column: float64 [documents]} of all measures but repetition."""
  kinds, tally = words.counts[:, : texts.SYMBOL + 1], allowance.tally(words)
  count = np.diff(words.first)
  per_word = 1 / np.maximum(count, 1)
  characters, spaces = kinds.sum(1), kinds[:, texts.SPACE]
  ink = np.maximum(characters - spaces, 1)
  letters = kinds[:, : texts.MARK + 1].sum(1)
  inside = np.append(0, np.cumsum(words.sizes, dtype=np.int64))[words.first]
  marks = kinds[:, texts.SENTENCE : texts.SYMBOL + 1].sum(1)
  marks -= kinds[:, texts.CONTROL]
  symbols = words.counts[:, [texts.HASH, texts.ELLIPSIS, texts.DOTS]].sum(1)
  dirty = phrases.count(words, words.first, vocabulary(config))[0]
  kept = np.append(0, np.cumsum(words.lines['hash'] != 0))
  filled = np.diff(kept[words.line_first])
  return {
    'text.characters': characters + words.counts[:, texts.NEWLINES],
    'gopher.words': count / words.scale,
    'gopher.mean_word': np.diff(inside) * per_word,
    'gopher.symbols_per_word': symbols * per_word * words.scale,
    'gopher.letter_words': words.counts[:, texts.LETTER_RUNS]
    / np.maximum(words.counts[:, texts.RUNS], 1),
    'gopher.stop_words': phrases.count(words, words.first, _table(STOP_WORDS))[1],
    'c4.sentences': words.counts[:, texts.SENTENCES] + tally[:, allowance.LISTING],
    'c4.lorem_ipsum': phrases.count(words, words.first, _table(('lorem ipsum',)))[0],
    'c4.braces': kinds[:, texts.OPEN],
    # Of lines that are not blank: FineWeb's texts have no blank lines, ours do.
    'fineweb.newlines_per_word': filled * per_word * words.scale,
    'dirty.words': 1000 * dirty * per_word * words.scale,
    'encoding.mojibake': 1000 * mojibake.count(words) / np.maximum(characters, 1),
    'code.alphanumeric': (letters + kinds[:, texts.DIGIT]) / ink,
    'code.letters': letters / ink,
    'code.signs': marks / ink,
    'math.tex': 1000
    * kinds[:, [texts.BACKSLASH, texts.DOLLAR]].sum(1)
    / np.maximum(characters, 1),
    **_lines(words, tally / np.maximum(count, 1)[:, None]),
    'code.longest_line': tally[:, allowance.LONGEST],
  }


def vocabulary(config: Config) -> phrases.Table:
  """phrases.Table of the dirty words of a config."""
  return _table(tuple(config.dirty_words), config.dirty_path)


def _allowed(values, words, most):
  """The measures, those that have an allowance divided by it."""
  factors = allowance.factors(words, values['c4.sentences'], most)
  for column in repetition.COLUMNS:
    values[column] = values[column] / factors[allowance.kind(column)]
  values['gopher.ellipsis_lines'] = values['gopher.ellipsis_lines'] / factors['lines']
  for column in ('fineweb.ended_lines', 'c4.sentences'):
    values[column] = values[column] * factors['lines']
  values['gopher.stop_words'] = values['gopher.stop_words'] * factors['top']
  signs = 1 - values['gopher.letter_words']
  values['gopher.letter_words'] = 1 - signs / factors['signs']
  return values


def _lines(words, inside):
  """Measures of the lines that are not blank."""
  filled = words.lines['hash'] != 0
  first = np.append(0, np.cumsum(filled))[words.line_first]
  flags, size = words.lines['flags'][filled], words.lines['size'][filled]
  count = np.maximum(np.diff(first), 1)

  def share(values):
    return np.diff(np.append(0, np.cumsum(values, dtype=np.int64))[first]) / count

  short = share(size <= allowance.BRIEF)
  ended = share(flags & texts.ENDS_SENTENCE != 0)
  return {
    'gopher.bullet_lines': share(flags & texts.STARTS_BULLET != 0),
    'gopher.ellipsis_lines': share(flags & texts.ENDS_ELLIPSIS != 0),
    # Cells of a table are many lines and few words.
    'fineweb.ended_lines': np.maximum(ended, inside[:, allowance.ENDED]),
    'fineweb.short_lines': np.minimum(short, inside[:, allowance.SHORTER]),
    'code.code_lines': share(flags & texts.LOOKS_CODE != 0),
    'code.mean_line': share(size),
  }


@functools.lru_cache(maxsize=8)
def _table(entries, path=''):
  if path:
    try:
      lines = pathlib.Path(path).read_text('utf-8').splitlines()
    except (OSError, UnicodeDecodeError) as error:
      raise UserError(
        f'curate.heuristics.dirty_path: {path}: cannot be read: {error}'
      ) from None
    entries = (*entries, *(line.strip() for line in lines if line.strip()))
  return phrases.table(list(entries))
