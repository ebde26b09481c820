"""SQuAD: answers that stand in a passage, or not at all (arXiv 1806.03822; 5.1).

--config.tasks="('squad=dev-v2.0.json,train-v2.0.json',)" --config.shots=1. As in the
paper, a base model is shown the questions of the passage that come before, with their
answers. The score is exact match; the summary has F1, and both for questions with and
without an answer.
"""

import dataclasses
import statistics
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence

from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError
from llama3_jax.tasks import matching
from llama3_jax.tasks import reading
from llama3_jax.tasks import task

NAMES = ('squad.jsonl', 'dev-v2.0.json', 'dev-v1.1.json')
NONE = 'no answer'
SAY_SO = f'Answer with words of the text alone, or with "{NONE}" where it has none.'


def create(source: str = '') -> task.Task:
  """The Task of 'TEST' or 'TEST,TRAIN'."""
  return reading.create(
    *(source, NAMES, parse, linked),
    score=score,
    prompt=lambda e: f'{e.prompt}\n\n{SAY_SO}',
    page=page,
    context=lambda e, solved: '\n\n'.join(
      [f'{page(s)} {s.answer}' for s in solved] + [page(e)]
    ),
    max_new=32,
    summary=summary,
    shots=1,
  )


def page(e: task.Example) -> str:
  """The passage, the questions before with their answers, and the question."""
  text, question, *before = e.checks[0]
  lines = [f'Question: {q}\nAnswer: {a}' for q, a in before]
  return '\n'.join([f'Text: {text}', *lines, f'Question: {question}\nAnswer:'])


def score(e: task.Example, response: str) -> float:
  """1.0 when the response is one of the right answers."""
  return matching.best(matching.exact, response, e.checks[1])


def summary(
  examples: Sequence[task.Example], responses: Sequence[str]
) -> dict[str, float]:
  """{'f1', and of questions that the passage answers, or not, 'f1' and 'exact'}."""
  found = {}
  for e, response in zip(examples, responses, strict=True):
    f1 = matching.best(matching.f1, response, e.checks[1])
    kind = 'without an answer' if e.answer == NONE else 'with an answer'
    for name, value in (('f1', f1), (f'{kind}, f1', f1)):
      found.setdefault(name, []).append(value)
    found.setdefault(f'{kind}, exact', []).append(score(e, response))
  return {name: statistics.fmean(values) for name, values in found.items()}


def parse(row: Mapping, where: str) -> list[task.Example]:
  """Examples of a row {"context", "question", "answers": {"text"}}, of an article
  {"paragraphs"}, or of the whole file as published, {"data": articles}."""
  return [_example(*asked) for asked in _asked(row, where)]


def _example(text, question, answers, where):
  text, question = text.strip(), question.strip()
  if not text or not question:
    raise UserError(f'{where}: the passage or the question is empty')
  answer = answers[0] if answers else NONE
  checks = ((text, question), tuple(answers) or (NONE, ''))
  return task.Example(f'{text}\n\n{question}', answer, checks=checks)


def linked(examples: Sequence[task.Example]) -> list[task.Example]:
  """The examples with the questions, and answers, of their passage that were before."""
  found, before = [], {}
  for e in examples:
    text, question = e.checks[0]
    earlier = before.setdefault(text, [])
    checks = ((text, question, *earlier), e.checks[1])
    found.append(dataclasses.replace(e, checks=checks))
    earlier.append((question, e.answer))
  return found


def _asked(row, where) -> Iterator[tuple[str, str, list[str], str]]:
  """Yields (passage, question, right answers, where) of each question in a row."""
  if 'data' in row or 'paragraphs' in row:
    seen = set()
    for article in _objects(row, 'data', where) if 'data' in row else [row]:
      for paragraph in _objects(article, 'paragraphs', where):
        text = jsonl.text(paragraph, reading.CONTEXT, where)
        for asked in _objects(paragraph, 'qas', where):
          number = asked.get('id', len(seen))
          if not isinstance(number, (str, int)):
            raise UserError(f'{where}: an id is a {jsonl.kind(number)}')
          if number in seen:
            raise UserError(f'{where}: id {number!r} is there twice')
          seen.add(number)
          at = f'{where}, question {number}'
          given = [jsonl.text(a, 'text', at) for a in _objects(asked, 'answers', at)]
          yield text, jsonl.text(asked, 'question', at), given, at
    return
  answers = row.get('answers')
  if not isinstance(answers, dict):
    raise UserError(f"{where}: field 'answers' is not {{'text': [...]}}")
  given = reading.texts(answers.get('text'), 'answers.text', where, 0)
  text, question = (
    jsonl.text(row, name, where) for name in (reading.CONTEXT, 'question')
  )
  yield text, question, given, where


def _objects(row, name, where):
  value = row.get(name)
  if not isinstance(value, list) or not all(isinstance(v, dict) for v in value):
    raise UserError(f'{where}: field {name!r} is not a list of objects')
  return value
