"""All variants of all kinds asked of a model, and what each question was answered."""

import dataclasses
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
from absl import logging

from llama3_jax.base import log
from llama3_jax.base.errors import UserError
from llama3_jax.config import ModelConfig
from llama3_jax.eval import answering
from llama3_jax.eval import run
from llama3_jax.eval.robustness import spread
from llama3_jax.eval.robustness import variants
from llama3_jax.model import llama
from llama3_jax.tasks import task as tasks
from llama3_jax.text.tokenizer import Tokenizer

SHOTS = 4  # solved examples in the paper


@dataclasses.dataclass(frozen=True)
class Plan:
  """What is asked: a task's questions, the variants by kind and name, and each variant
  as a model is asked it, the usual one first."""

  task: str
  questions: Sequence[variants.Question]
  kinds: Mapping[str, Mapping[str, variants.Variant]]
  asked: Mapping[variants.Variant, answering.Asked]

  @classmethod
  def of(
    cls,
    tokenizer: Tokenizer,
    name: str,
    kinds: Mapping[str, Mapping[str, variants.Variant]],
    n: int,
    shots: int = run.PAPER,
    seed: int = 0,
  ) -> 'Plan':
    """name: of a task that is answered by letters. shots: solved examples, run.CHAT or
    run.PAPER, which are four. Raises UserError where labels cannot be told apart."""
    chat, shots = shots == run.CHAT, SHOTS if shots == run.PAPER else max(shots, 0)
    if not shots and 'bias' in kinds:
      logging.warning('biases are of solved examples (shots): they are left out')
      kinds = {kind: own for kind, own in kinds.items() if kind != 'bias'}
    if not kinds:
      raise UserError('biases, labels, orders and formats are empty: nothing varies')
    task = tasks.load(name)
    every = variants.questions(task, name, n, seed)
    before = variants.solved(task, name, every, shots, seed)
    asked = {}
    for v in (
      variants.Variant(),
      *(v for own in kinds.values() for v in own.values()),
    ):
      if v not in asked:  # kinds have the usual one in common
        asked[v] = variants.ask(tokenizer, task, v, every, before, chat)
        variants.starts(tokenizer, asked[v].lead, v.said)
    logging.info('the labels of each variant begin with different tokens')
    return cls(name, every, kinds, asked)


def measure(
  params: llama.Params, model: ModelConfig, tokenizer: Tokenizer, plan: Plan
) -> tuple[dict, list[dict]]:
  """({'task', 'n', 'score', 'interval' (as usually asked), 'kinds': {kind: of
  spread.kind}}, [{'task', 'question', 'choices', 'answer', 'chosen': {kind: {name:
  number of a choice}}} of each question])."""
  count = len(plan.questions)
  with log.work(f'asking {count:,} questions in {len(plan.asked)} ways'):
    places = variants.chosen(params, model, tokenizer, list(plan.asked.values()))
  ways = list(plan.asked)
  picked = variants.choices(plan.questions, ways, places)
  right = np.array([q.first(q.right) for q in plan.questions])
  kinds, rows = {}, records(plan)
  for kind, own in plan.kinds.items():
    which = [ways.index(v) for v in own.values()]
    kinds[kind] = spread.kind(list(own), picked[which], places[which], right)
    for row, chosen in zip(rows, picked[which].T.tolist()):
      row['chosen'][kind] = dict(zip(own, chosen))
  usual = spread.scored(picked[0] == right)
  return {'task': plan.task, **usual, 'kinds': kinds}, rows


def records(plan: Plan) -> list[dict]:
  """The rows of `measure` before anything is chosen."""
  return [
    {
      'task': plan.task,
      'question': q.text,
      'choices': list(q.choices),
      'answer': q.right,
      'chosen': {},
    }
    for q in plan.questions
  ]
