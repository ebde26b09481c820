"""The 25 kinds of instructions of IFEval (arXiv 2311.07911), by their published names.

`checked` reads an instruction; `followed` and `followed_loosely` judge a response.
"""

import difflib
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence

from llama3_jax.base.errors import UserError
from llama3_jax.tasks.instructions import form
from llama3_jax.tasks.instructions import wording

Instruction = tuple[str, Mapping[str, object]]
RELATIONS = ('less than', 'at least')


def _is_count(value):
  return type(value) is int and value >= 0


def _is_text(value):
  return isinstance(value, str) and bool(value.strip())


def _is_texts(value):
  return isinstance(value, list) and bool(value) and all(map(_is_text, value))


# What a field holds: (whether a value is one, in words).
COUNT = _is_count, 'a number of 0 or more'
TEXT = _is_text, 'a text'
TEXTS = _is_texts, 'a list of texts'
LETTER = lambda v: _is_text(v) and len(v) == 1, 'one letter'
RELATION = lambda v: v in RELATIONS, "'less than' or 'at least'"
FIELDS = {
  'keywords': TEXTS,
  'keyword': TEXT,
  'frequency': COUNT,
  'relation': RELATION,
  'forbidden_words': TEXTS,
  'letter': LETTER,
  'let_frequency': COUNT,
  'let_relation': RELATION,
  'language': TEXT,
  'num_sentences': COUNT,
  'num_paragraphs': COUNT,
  'num_words': COUNT,
  'nth_paragraph': (lambda v: _is_count(v) and v > 0, 'a number of 1 or more'),
  'first_word': TEXT,
  'num_placeholders': COUNT,
  'postscript_marker': TEXT,
  'num_bullets': COUNT,
  'num_highlights': COUNT,
  'section_spliter': TEXT,
  'num_sections': COUNT,
  'prompt_to_repeat': TEXT,
  'end_phrase': TEXT,
  'capital_frequency': COUNT,
  'capital_relation': RELATION,
}
# (name, its check, the fields that the check takes)
_TABLE = (
  ('keywords:existence', wording.existence, 'keywords'),
  ('keywords:frequency', wording.frequency, 'keyword frequency relation'),
  ('keywords:forbidden_words', wording.forbidden, 'forbidden_words'),
  (
    *('keywords:letter_frequency', wording.letters),
    'letter let_frequency let_relation',
  ),
  ('language:response_language', wording.in_language, 'language'),
  ('length_constraints:number_sentences', wording.sentences, 'num_sentences relation'),
  ('length_constraints:number_paragraphs', wording.paragraphs, 'num_paragraphs'),
  ('length_constraints:number_words', wording.words, 'num_words relation'),
  (
    *('length_constraints:nth_paragraph_first_word', wording.first_word),
    'num_paragraphs nth_paragraph first_word',
  ),
  ('detectable_content:number_placeholders', form.placeholders, 'num_placeholders'),
  ('detectable_content:postscript', form.postscript, 'postscript_marker'),
  ('detectable_format:number_bullet_lists', form.bullets, 'num_bullets'),
  ('detectable_format:constrained_response', form.constrained, ''),
  ('detectable_format:number_highlighted_sections', form.highlights, 'num_highlights'),
  (
    'detectable_format:multiple_sections',
    form.sections,
    'section_spliter num_sections',
  ),
  ('detectable_format:json_format', form.is_json, ''),
  ('detectable_format:title', form.title, ''),
  ('combination:two_responses', form.two_responses, ''),
  ('combination:repeat_prompt', form.repeats, 'prompt_to_repeat'),
  ('startend:end_checker', form.ends, 'end_phrase'),
  ('startend:quotation', form.quoted, ''),
  (
    *('change_case:capital_word_frequency', wording.capital_words),
    'capital_frequency capital_relation',
  ),
  ('change_case:english_capital', wording.capitals, ''),
  ('change_case:english_lowercase', wording.small_letters, ''),
  ('punctuation:no_comma', form.no_comma, ''),
)
KINDS: dict[str, tuple[Callable, tuple[str, ...]]] = {
  name: (check, tuple(fields.split())) for name, check, fields in _TABLE
}


def checked(name: object, fields: object, where: str) -> Instruction:
  """(name without 'en:', its fields without those that are null) of one instruction.

  Raises:
    UserError, beginning with `where`: a name that is none of the 25, or a field that is
      missing, is of another instruction, or holds what it cannot.
  """
  name = name.removeprefix('en:') if isinstance(name, str) else name
  if name not in KINDS:
    near = difflib.get_close_matches(str(name), KINDS, 1, cutoff=0)
    raise UserError(f'{where}: instruction {name!r} is unknown: is it {near[0]!r}?')
  if not isinstance(fields, dict):
    raise UserError(f'{where}: kwargs of {name} are not {{"field": value, ...}}')
  given = {k: v for k, v in fields.items() if v is not None}
  needed = KINDS[name][1]
  if left := [field for field in needed if field not in given]:
    raise UserError(f'{where}: {name} needs {left[0]!r} in its kwargs')
  if more := [field for field in given if field not in needed]:
    takes = ', '.join(needed) or 'nothing'
    raise UserError(f'{where}: {name} takes {takes}, not {more[0]!r}')
  for field, value in given.items():
    fits, what = FIELDS[field]
    if not fits(value):
      raise UserError(f'{where}: {field} of {name} is {value!r}, not {what}')
  return name, given


def followed(instruction: Instruction, response: str) -> bool:
  """Whether a response follows an instruction; an empty one follows none."""
  name, fields = instruction
  return bool(response.strip()) and bool(KINDS[name][0](response, **fields))


def followed_loosely(instruction: Instruction, response: str) -> bool:
  """Whether the response or one of its seven variants follows an instruction.

  The variants: without the first line, the last or both (such as 'Sure, here it is:'),
  and each, and the response itself, without asterisks (the marks of Markdown).
  """
  return any(followed(instruction, variant) for variant in _variants(response))


def _variants(response: str) -> Sequence[str]:
  lines = response.split('\n')
  parts = [response]
  parts += ['\n'.join(kept).strip() for kept in (lines[1:], lines[:-1], lines[1:-1])]
  return [*parts, *(part.replace('*', '') for part in parts)]
