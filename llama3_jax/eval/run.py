"""Evaluation on tasks with checkable answers, with 95% intervals (5.1)."""

import dataclasses
import functools
import math
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

from llama3_jax import feed
from llama3_jax.base import confidence
from llama3_jax.base import log
from llama3_jax.config import ModelConfig
from llama3_jax.data import pipeline
from llama3_jax.data import shards
from llama3_jax.eval import answering
from llama3_jax.eval.kept import Kept
from llama3_jax.generate.settings import Settings
from llama3_jax.model import llama
from llama3_jax.tasks import coding
from llama3_jax.tasks import reading
from llama3_jax.tasks import suite
from llama3_jax.tasks import task as task_lib
from llama3_jax.text.tokenizer import Tokenizer
from llama3_jax.train import loss as losses
from llama3_jax.train import step

CHAT, PAPER = -1, -2  # in place of a number of solved examples


@dataclasses.dataclass(frozen=True)
class How:
  """How a model is asked.

  shots: None or CHAT: in a chat; a number: as a base model after so many solved
    examples of the train split; PAPER: after Task.shots.
  turns: solved examples before a question of a chat, as its earlier turns; or PAPER.
  settings: of sampling; max_new is what an answer has where its task needs no more.
  batch: prompts that are answered together.
  longest: tokens of any answer, whatever its task needs; 0: no limit.
  samples: of each question that is answered by writing; its score is their mean, and
    'summary' has pass@k.
  """

  shots: int | None = CHAT
  turns: int = 0
  settings: Settings = answering.GREEDY
  batch: int = 16
  longest: int = 0
  samples: int = 1

  def asked(
    self, tokenizer: Tokenizer, name: str, n: int, seed: int
  ) -> answering.Asked:
    """Up to `n` held-out questions of a task, with what is shown before them."""
    task, chat = task_lib.load(name), self.shots in (None, CHAT)
    count = self.turns if chat else self.shots
    count = task.shots if count == PAPER else count
    solved = []
    if count and task.solved:
      solved = functools.partial(task.solved, n=count)
    elif count:
      solved = reading.first(task.examples('train', count, seed), count, name)
    return answering.Asked.of(
      *(tokenizer, task, task.examples('heldout', n, seed)),
      **dict(shots=None if chat else solved, turns=solved if chat else ()),
      **dict(settings=self.settings, longest=self.longest, samples=self.samples),
    )


def tasks(
  params: llama.Params,
  config: ModelConfig,
  tokenizer: Tokenizer,
  names: Sequence[str] = suite.TASKS,
  n: int | Mapping[str, int] = 100,
  seed: int = 0,
  how: How = How(),
  record: Callable[[dict], None] | None = None,
  kept: Kept | None = None,
) -> dict[str, dict]:
  """Mean score on up to `n` held-out examples a task: {task: {'score', 'n', 'ci' (the
  paper's half width), 'interval': [low, high]}}.

  n: one number, or that of each task. 'macro' is the mean over tasks, independent of
  their n; 'summary' is that of a task which has one, 'grid' that of a task with cells;
  'perplexity' is that of the choice, where each question has one. record: called with
  {'task', 'question', 'prompt' (as asked, without solved examples), 'answer',
  'response', 'score'} of every example. kept: as of answering.weighed.
  """
  every = {}
  for name in dict.fromkeys(names):
    every[name] = how.asked(tokenizer, name, n if isinstance(n, int) else n[name], seed)
  count = sum(len(asked.examples) for asked in every.values())
  with log.work(f'asking {count:,} questions of {len(every)} tasks'):
    asked = list(every.values())
    found, logps = answering.weighed(
      *(params, config, tokenizer, asked, how.batch, kept, seed)
    )
  results = {}
  for name, own, texts, logp in zip(every, asked, found, logps):
    results[name] = _measured(name, own, texts, record) | _perplexity(logp)
  return {**results, 'macro': macro(results)}


def _measured(name, asked, texts, record):
  """The result of a task, each of whose answers is recorded."""
  task, examples = asked.task, asked.examples
  several = asked.samples > 1 and not asked.chooses
  every = [text if several else [text] for text in texts]
  pairs = [(e, text) for e, own in zip(examples, every) for text in own]
  flat = iter(task_lib.scored(task, pairs))
  each = [[next(flat) for _ in own] for own in every]
  scores = [sum(own) / len(own) for own in each]
  for e, own, score in zip(examples, every, scores) if record else ():
    shown = task.prompt(e) if asked.chat else task.page(e)
    one = dict(task=name, question=e.prompt, prompt=shown, answer=e.answer)
    one |= {'response': own[0], 'score': score}
    record(one | ({'responses': own} if several else {}))
  count = len(examples)  # a task with few prompts gives fewer than n
  score = sum(scores) / max(count, 1)
  found = {'score': score, 'n': count, 'ci': confidence.paper(score, count)}
  found['interval'] = confidence.of_scores(scores)
  if task.cell and examples:
    found['grid'] = _grid(list(map(task.cell, examples)), scores)
  firsts = [own[0] for own in every]
  summary = task.summary(examples, firsts) if task.summary else {}
  summary = (_passed(each) if several else {}) | summary
  return found | ({'summary': summary} if summary else {})


def _passed(each):
  """{'pass@k': chance that one of k answers is right} of scores of each question's
  answers; {} where an answer may be right in part."""
  count = len(each[0]) if each else 0
  if not {score for own in each for score in own} <= {0.0, 1.0}:
    return {}
  chance = lambda k: sum(coding.pass_at_k(count, int(sum(own)), k) for own in each)
  sizes = sorted({1, 10, 100, count})
  return {f'pass@{k}': chance(k) / len(each) for k in sizes if 1 <= k <= count}


def _grid(cells, scores):
  """{'lengths', 'depths', 'recall' `[depths][lengths]`: means, None of no question,
  'samples': most questions of a cell}."""
  lengths, depths = (sorted(set(values)) for values in zip(*cells))
  found = {}
  for cell, score in zip(cells, scores, strict=True):
    found.setdefault(cell, []).append(score)
  mean = lambda own: sum(own) / len(own) if own else None
  recall = [[mean(found.get((n, d))) for n in lengths] for d in depths]
  most = max(map(len, found.values()))
  return {'lengths': lengths, 'depths': depths, 'recall': recall, 'samples': most}


def _perplexity(logps):
  """{'perplexity', 'perplexity_interval'} of answers' log-probabilities; {} of none."""
  if not logps:
    return {}
  of = lambda drawn: np.exp(-drawn.mean(-1))
  interval = confidence.bootstrap(logps, of)
  return {'perplexity': float(of(np.array(logps))), 'perplexity_interval': interval}


def macro(results: Mapping[str, Mapping]) -> dict:
  """Macro average of task results, in which each task counts alike, and under 'micro'
  the one in which each question does; intervals take the tasks as independent."""
  every, count = list(results.values()), max(len(results), 1)
  total = sum(r['n'] for r in every)
  average = lambda weights: {
    'score': sum(r['score'] * w for r, w in zip(every, weights)),
    'n': total,
    'ci': math.sqrt(sum((r['ci'] * w) ** 2 for r, w in zip(every, weights))),
    'interval': confidence.of_mean(every, weights),
  }
  alike, by_size = [1 / count] * len(every), [r['n'] / max(total, 1) for r in every]
  return average(alike) | {'micro': average(by_size)}


@functools.cache  # one loss a model, so that it compiles once
def _loss(config):
  return functools.partial(losses.next_token, config=config)


def held_out(
  params: llama.Params,
  config: ModelConfig,
  sources: Mapping[str, shards.Source],
  batch: int,
  length: int,
  batches: int,
  positions: str = 'row',
) -> dict[str, float]:
  """Loss of each source's held-out documents, nats a token.

  sources: name -> source of `shards.open_source(folder, split='heldout')`.
  """
  measured = {}
  for name, source in sources.items():
    rows = pipeline.heldout({name: source}, batch, length, batches, positions)
    placed = [feed.place(row) for row in rows]
    if placed:
      with log.work(f'{name}: held-out loss of {len(placed)} batches'):
        measured[name] = step.evaluate(params, placed, _loss(config))['loss']
  return measured
