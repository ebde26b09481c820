"""TriviaQA: questions of fact with many names for an answer (arXiv 1705.03551; 5.1).

--config.tasks="('triviaqa=FILE,TRAIN',)", in the paper after 5 solved examples. The
score is exact match with any of the names; the summary has F1 too.
"""

import statistics
from collections.abc import Mapping
from collections.abc import Sequence

from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError
from llama3_jax.tasks import choice
from llama3_jax.tasks import matching
from llama3_jax.tasks import reading
from llama3_jax.tasks import task

NAMES = ('triviaqa.jsonl', 'triviaqa_sm_sub.jsonl')
LEAD, TAIL = 'Question: ', '\nAnswer:'


def create(source: str = '') -> task.Task:
  """The Task of 'TEST' or 'TEST,TRAIN'."""
  return reading.create(
    *(source, NAMES, parse),
    score=score,
    prompt=lambda e: f'{e.prompt}\nGive the answer alone, in a few words.',
    page=choice.question,
    context=choice.context(choice.question),
    max_new=24,
    summary=summary,
    shots=5,
  )


def parse(row: Mapping, where: str) -> task.Example:
  """The Example of {"question", "answer": {"value", "aliases"}}, as published, or of
  {"context": "Question: ...", "answer", "aliases"}."""
  answer = row.get('answer', row.get('Answer'))
  if isinstance(answer, dict):
    lower = {k.lower(): v for k, v in answer.items()}
    name = 'question' if 'question' in row else 'Question'
    value, aliases = jsonl.text(lower, 'value', where), lower.get('aliases', [])
  else:
    name, value = reading.CONTEXT, jsonl.text(row, 'answer', where)
    aliases = row.get('aliases', [])
  asked = jsonl.text(row, name, where).removeprefix(LEAD).removesuffix(TAIL).strip()
  names = (value, *reading.texts(aliases, 'aliases', where, 0))
  if not asked or not matching.normal(value, ' '):
    raise UserError(f'{where}: the question or its answer is empty')
  return task.Example(asked, value, checks=tuple(dict.fromkeys(names)))


def score(example: task.Example, response: str) -> float:
  """1.0 when the response is one of the names, but for articles and punctuation."""
  return matching.best(matching.exact, response, example.checks, ' ')


def summary(
  examples: Sequence[task.Example], responses: Sequence[str]
) -> dict[str, float]:
  """{'f1': mean of the best F1 of each response with a name}."""
  pairs = zip(examples, responses, strict=True)
  values = [matching.best(matching.f1, r, e.checks, ' ') for e, r in pairs]
  return {'f1': statistics.fmean(values or [0.0])}
