"""Who says which of two answers is better (4.2.1): one function type, six makers.

An annotator is given questions and returns a Verdict for each, or None where it has
none: both are right, nobody labelled it, or a judge answered nonsense.
"""

import collections
import dataclasses
import hashlib
import json
import math
import os
import re
import statistics
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError
from llama3_jax.post import formats
from llama3_jax.post import preference
from llama3_jax.post.preference import STRENGTHS
from llama3_jax.text import chat

SURE = (0.6, 0.75, 0.9)  # sigma of a difference, from which on the strength is more
HOWS = ('majority', 'minimum')
SHOWN = """\
Two answers to a request follow. Say which one is better.

Request:
{prompt}

Answer A:
{a}

Answer B:
{b}

Reply with one letter, A or B"""
TEMPLATE = f"""{SHOWN}, and how much better it is, a number from 1 (marginally) to 4 \
(significantly), such as A3. Write nothing else."""
LETTER = f'{SHOWN}. Write nothing else.'
REPLY = re.compile(r'\W*([AB])[\s:=-]*([1-4])\W*')


@dataclasses.dataclass(frozen=True)
class Question:
  """A prompt and two answers in any order, with the models that gave them."""

  id: str
  prompt: tuple[chat.Message, ...]
  answers: tuple[chat.Message, chat.Message]
  models: tuple[str, ...] = ()
  category: str = ''  # of the prompt
  subcategory: str = ''


@dataclasses.dataclass(frozen=True)
class Verdict:
  """best: 0 or 1; strength: 1 to 4 (of STRENGTHS); edited: better than both."""

  best: int
  strength: int
  edited: chat.Message | None = None


Annotator = Callable[[Sequence[Question]], list[Verdict | None]]


def checkable(right: Callable[[Question, chat.Message], bool]) -> Annotator:
  """Of a task whose answers can be checked: a right one is significantly better."""

  def annotate(questions):
    marks = [[right(q, answer) for answer in q.answers] for q in questions]
    return [Verdict(int(b), len(STRENGTHS)) if a != b else None for a, b in marks]

  return annotate


def labels(path: str | os.PathLike, field: str = 'labels') -> Annotator:
  """Of people: a file of preference rows with `id` and `strength`, as the page writes.

  Raises UserError for a row without an id, and for an id that is there twice.
  """
  known: dict[str, preference.Preference] = {}
  for example in preference.read(path, field):
    if not example.id or example.id in known:
      what = f'id {example.id!r} is there twice' if example.id else 'a label has no id'
      raise UserError(f'{example.where}: {what}: each names the row that it is of')
    known[example.id] = example

  def one(question):
    if (example := known.get(question.id)) is None:
      return None
    ranks = [_rank(example.responses, answer) for answer in question.answers]
    if None in ranks or ranks[0] == ranks[1]:
      return None  # labels of other answers to the same prompt
    edited = example.responses[0] if min(ranks) else None
    return Verdict(int(ranks[1] < ranks[0]), example.strength or 1, edited)

  return lambda questions: [one(question) for question in questions]


def _rank(responses, answer):
  same = lambda m: (m.content, m.calls) == (answer.content, answer.calls)
  return next((i for i, m in enumerate(responses) if same(m)), None)


def judge(
  ask: Callable[[Sequence[str]], Sequence[str]],
  template: str = TEMPLATE,
  counts: collections.Counter | None = None,
) -> Annotator:
  """Of a model: ask(texts) -> replies. Each pair is shown in both orders, since judges
  like one place more; the strength is the lower one.

  counts: takes how many were 'asked', were 'nonsense' (a reply that is no verdict) and
  'contradicted' (the order decided).
  """
  counts = collections.Counter() if counts is None else counts
  checked(template)

  def annotate(questions):
    replies = [_reply(text) for text in ask(both(template, questions))]
    counts['asked'] += len(questions)
    found = []
    for first, second in zip(replies[::2], replies[1::2], strict=True):
      if first is None or second is None:
        counts['nonsense'] += 1
      elif first[0] == second[0]:
        counts['contradicted'] += 1
      agree = first and second and first[0] != second[0]
      found.append(Verdict(first[0], min(first[1], second[1])) if agree else None)
    return found

  return annotate


def _shown(template, question, order):
  turns = [f'{m.role}: {m.content}' for m in question.prompt]
  alone = len(turns) == 1 and question.prompt[0].role == 'user'
  values = {'prompt': question.prompt[0].content if alone else '\n'.join(turns)}
  values |= {n: question.answers[i].content for n, i in zip('ab', order)}
  # One pass, so that a text which contains a name in braces is not filled in again.
  return re.sub(r'\{(prompt|a|b)\}', lambda found: values[found[1]], template)


def _reply(text):
  """(place, strength) of a reply, None of one that is no verdict."""
  found = REPLY.fullmatch(text.strip())
  return ('AB'.index(found[1]), int(found[2])) if found else None


def scored(
  score: Callable[[Sequence[Sequence[chat.Message]]], np.ndarray],
) -> Annotator:
  """Of a reward model: score(dialogs) -> float [N]. The strength is how sure it is,
  sigma of the difference: from 0.6, 0.75 and 0.9 on it is one more than marginally;
  equal or not finite rewards give no verdict."""

  def annotate(questions):
    dialogs = [(*q.prompt, answer) for q in questions for answer in q.answers]
    rewards = np.asarray(score(dialogs), np.float64).reshape(-1, 2)
    return [_surer(*pair) for pair in rewards.tolist()]

  return annotate


def weighed(
  weigh: Callable[[Sequence[str]], np.ndarray], template: str = LETTER
) -> Annotator:
  """Of a model that need not write a verdict: weigh(texts) -> log-probabilities of the
  letters A and B, float [N,2]. Each pair is shown in both orders, and what counts is
  the mean of both: how much the model likes a letter by itself falls out. The strength
  is as in `scored`."""
  checked(template)

  def annotate(questions):
    odds = np.asarray(weigh(both(template, questions)), np.float64) @ (1, -1)
    pairs = odds.reshape(-1, 2).tolist()
    return [_surer((first - second) / 2, 0) for first, second in pairs]

  return annotate


def _surer(a, b):
  """The verdict of two rewards; the strength by sigma of their difference."""
  if not (math.isfinite(a) and math.isfinite(b)) or a == b:
    return None
  sure = 1 / (1 + math.exp(-min(abs(a - b), 30)))
  return Verdict(int(b > a), 1 + sum(sure >= bar for bar in SURE))


def checked(template: str) -> None:
  """Raises UserError where a judge's template lacks what it is to read."""
  missing = [f'{{{n}}}' for n in ('prompt', 'a', 'b') if f'{{{n}}}' not in template]
  if missing:
    raise UserError(f'template lacks {", ".join(missing)}: what the judge is to read')


def both(template: str, questions: Sequence[Question]) -> list[str]:
  """Texts that ask each question twice: with its first answer first, and second."""
  orders = ((0, 1), (1, 0))
  return [_shown(template, q, order) for q in questions for order in orders]


def ensemble(members: Sequence[Annotator], how: str = 'majority') -> Annotator:
  """Of several: by the 'majority' of the verdicts that were given, none at a tie, with
  the median strength of those who agree; or 'minimum', where all must have given the
  same one, with the lowest strength."""
  if how not in HOWS:
    raise UserError(f'ensemble={how!r} is unknown: use one of {", ".join(HOWS)}')

  def one(verdicts):
    given = [v for v in verdicts if v is not None]
    votes = [sum(v.best == side for v in given) for side in (0, 1)]
    if votes[0] == votes[1] or how == 'minimum' and max(votes) < len(verdicts):
      return None
    best = int(votes[1] > votes[0])
    agree = [v for v in given if v.best == best]
    level = statistics.median_low if how == 'majority' else min
    edited = next((v.edited for v in agree if v.edited), None)
    return Verdict(best, level([v.strength for v in agree]), edited)

  return lambda questions: [
    one(verdicts)
    for verdicts in zip(*(member(questions) for member in members), strict=True)
  ]


def row(question: Question, verdict: Verdict, source: str = 'annotated') -> dict:
  """The preference row, as `reward` and `dpo` read it."""
  order = (verdict.best, 1 - verdict.best)
  responses = [question.answers[i] for i in order]
  models = [question.models[i] for i in order] if question.models else []
  if verdict.edited is not None:
    responses = [verdict.edited, *responses]
    models = ['person', *models] if models else []
  made = {
    'id': question.id,
    'prompt': [chat.fields(m) for m in question.prompt],
    'responses': [chat.fields(m) for m in responses],
    'strength': STRENGTHS[verdict.strength - 1],
    'source': source,
  }
  return made | ({'models': models} if models else {})


def questions(
  rows: Sequence[tuple[str, Mapping]], bad: Callable[[UserError], None] | None = None
) -> list[Question]:
  """Questions of (where, row) with `prompt` and `responses`, of which the first and the
  next that differs are compared: candidates of `reject`, or of post/pool.py.

  A row without an id gets one of its content, and so does one whose id another row has;
  the same row twice is one question. bad: is called with the error of a row that is
  none; None: it raises.
  """
  found: dict[str, Question] = {}
  for where, one in rows:
    try:
      question = _question(one, where)
    except UserError as error:
      if bad is None:
        raise
      bad(error)
      continue
    if found.get(question.id, question) != question:
      question = dataclasses.replace(question, id=f'{question.id} {_mark(question)}')
    found[question.id] = question
  return list(found.values())


def _question(one, where):
  answers = preference.listed(one, 'responses', where)
  text = lambda m: m.get('content') if isinstance(m, Mapping) else m
  texts = [text(answer) for answer in answers]
  other = next((i for i, t in enumerate(texts) if t != texts[0]), None)
  if other is None:
    raise UserError(f'{where}: no two answers differ, so neither is better')
  prompt = formats.prompt(one.get('prompt'), where)
  picked = {'prompt': prompt, 'responses': [answers[0], answers[other]]}
  example = preference.parse(picked, where)
  models = one.get('models') or ()
  names = tuple(models[i] for i in (0, other)) if len(models) > other else ()
  kinds = [
    '' if one.get(name) is None else jsonl.text(one, name, where)
    for name in ('category', 'subcategory')
  ]
  said = example.prompt, example.responses, names, *kinds
  question = Question(str(one.get('id', '')), *said)
  return question if question.id else dataclasses.replace(question, id=_mark(question))


def _mark(question):
  texts = [chat.fields(m) for m in (*question.prompt, *question.answers)]
  text = json.dumps(texts, sort_keys=True)
  return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
