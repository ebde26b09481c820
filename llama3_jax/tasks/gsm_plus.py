"""GSM-Plus: questions of GSM8K, each changed in eight ways (arXiv 2402.19255; 5.1.2).

--config.tasks="('gsm_plus=TEST,TRAIN',)": TEST has rows {question, solution, answer,
perturbation_type, seed_question, ...}; TRAIN, the solved examples, is of GSM8K, such as
gsm8k/train.jsonl, or in the same form. A row whose answer is None lacks what is needed:
right is what ends with None and no number, and such rows are a kind of their own. The
summary has each kind, and their mean.
"""

import dataclasses
import re
from collections.abc import Mapping
from fractions import Fraction

from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError
from llama3_jax.tasks import gsm8k
from llama3_jax.tasks import reading
from llama3_jax.tasks import task

NAMES = ('gsm_plus.jsonl', 'gsm_plus/test.jsonl')
NONE = 'None'
ASK = (
  '\nSolve it step by step. End with #### and the number that is the answer, or with '
  '#### None where something that is needed is not said.'
)
PART = re.compile(r'-?\d[\d,]*(?:\.\d+)?(?:\s*/\s*\d[\d,]*)?')
MARKS = str.maketrans('', '', ',$%€£')


def create(source: str = '') -> task.Task:
  """The Task of 'TEST' or 'TEST,TRAIN'."""
  made = reading.create(
    *(source, NAMES, parse),
    score=score,
    prompt=lambda e: e.prompt + ASK,
    stop='\nQ:',
    max_new=512,
    summary=summary,
    shots=8,
  )

  def examples(split, n, seed):
    if split != 'train':
      return made.examples(split, n, seed)
    # Nor is a question shown solved that one of the asked was made from.
    asked = {e.checks[1] for e in made.examples('heldout', 1 << 40, seed)}
    found = made.examples(split, 1 << 40, seed)
    return [e for e in found if e.prompt not in asked][:n]

  return dataclasses.replace(made, examples=examples)


def parse(row: Mapping, where: str) -> task.Example:
  """The Example of a row of GSM-Plus, or of GSM8K; a UserError starts with `where`.

  `checks` are its kind and the question that it was made from.
  """
  if 'perturbation_type' not in row and 'solution' not in row:
    return dataclasses.replace(gsm8k.parse(row, where), checks=('', ''))
  asked, kind = (
    jsonl.text(row, k, where).strip() for k in ('question', 'perturbation_type')
  )
  given = row.get('answer', '')
  text = str(given).strip() if not isinstance(given, (bool, list, dict)) else ''
  answer = NONE if text == NONE else text.translate(MARKS).strip()
  if not asked or not kind or (answer != NONE and value(answer) is None):
    raise UserError(
      f"{where}: not a question with a 'perturbation_type' and, in 'answer', a number "
      'or None'
    )
  steps = jsonl.text(row, 'solution', where, '').strip()
  worked = steps if '####' in steps else f'{steps}\n#### {answer}'.strip()
  seed = jsonl.text(row, 'seed_question', where, '').strip()
  kind = f'{kind} (None)' if answer == NONE else kind
  return task.Example(asked, answer, worked=worked, checks=(kind, seed))


def value(text: str) -> Fraction | None:
  """The number that a whole text is, such as 3, -2.50 or 1/4; None for another text."""
  if not PART.fullmatch(text):
    return None
  above, _, below = text.replace(',', '').partition('/')
  low = Fraction(below.strip() or 1)
  return Fraction(above.strip()) / low if low else None


def score(e: task.Example, response: str) -> float:
  """1.0 when the number after the last ####, else the last one of the text, is equal to
  the answer; where that is None, when None is there and no number."""
  _, mark, after = response.translate(MARKS).rpartition('####')
  if e.answer == NONE:
    last = after if mark else after.strip().rpartition('\n')[2]
    said = re.search(r'\bnone\b', last, re.I)
    return float(bool(said) and not PART.search(last))
  found = PART.findall(after)
  said = value(found[0 if mark else -1]) if found else None
  return float(said is not None and said == value(e.answer))


summary = task.by_kind(score, 'mean over kinds')
