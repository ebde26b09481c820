"""Evaluation on tasks with checkable answers, with 95% confidence intervals (5.1)."""

import dataclasses
import functools
import math
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

from llama3_jax import feed
from llama3_jax.base import log
from llama3_jax.base.errors import UserError
from llama3_jax.config import ModelConfig
from llama3_jax.data import pipeline
from llama3_jax.data import shards
from llama3_jax.generate import engine
from llama3_jax.generate import likelihood
from llama3_jax.generate.settings import Settings
from llama3_jax.model import llama
from llama3_jax.tasks import suite
from llama3_jax.tasks import task as task_lib
from llama3_jax.tasks.task import Example
from llama3_jax.tasks.task import Task
from llama3_jax.text import chat
from llama3_jax.text.tokenizer import Tokenizer
from llama3_jax.train import loss as losses
from llama3_jax.train import step

GREEDY = Settings(temperature=0.0, max_new=32)


def interval(score: float, n: int) -> float:
  """Half width of the 95% confidence interval of a mean score: 1.96 sqrt(S(1-S)/N)."""
  return 1.96 * math.sqrt(max(score * (1 - score), 0) / max(n, 1))


def base_prompt(
  tokenizer: Tokenizer, task: Task, example: Example, shots: Sequence[Example]
) -> list[int]:
  """Ids of a question after solved ones, in the form of the pages of exercises."""
  solved = suite.document(shots) + '\n' if shots else ''
  return tokenizer.encode(solved + task.page(example), bos=True)


def chat_prompt(tokenizer: Tokenizer, task: Task, example: Example) -> list[int]:
  """Ids of a question as the user's message, with the assistant's header open."""
  messages = [chat.Message('user', task.prompt(example))]
  return chat.encode(tokenizer, messages, prompt=True).ids.tolist()


def answers(
  params: llama.Params,
  config: ModelConfig,
  tokenizer: Tokenizer,
  task: Task,
  examples: Sequence[Example],
  shots: Sequence[Example] | None = None,
  settings: Settings = GREEDY,
  batch_size: int = 16,
) -> list[str]:
  """The model's answer to each example of a task.

  shots None: in a chat. Otherwise as a base model after these solved examples: the text
  before `task.stop`. Where every example has choices, the answer is the likeliest.
  """
  if any(e.media for e in examples):
    raise UserError('this model reads text: the task has images or sound')
  if shots is None:
    prompts = [chat_prompt(tokenizer, task, e) for e in examples]
  else:
    prompts = [base_prompt(tokenizer, task, e, shots) for e in examples]
  if examples and all(e.choices for e in examples):
    lead = '' if shots is None else ' '  # an answer of a chat begins a message
    return _chosen(params, config, tokenizer, examples, prompts, lead)
  room = max(settings.max_new, task.max_new)
  settings = dataclasses.replace(
    settings, max_new=room, vocab_size=tokenizer.vocab_size
  )
  groups = engine.generate(
    params, prompts, config, tokenizer.stop_ids, settings, batch_size=batch_size
  )
  texts = [tokenizer.decode(completion.ids) for [completion] in groups]
  return texts if shots is None else [t.strip().split(task.stop)[0] for t in texts]


def _chosen(params, config, tokenizer, examples, prompts, lead):
  """For each example, the choice that is likeliest after its prompt and `lead`."""
  pairs = [
    (ids, tokenizer.encode(f'{lead}{choice}'))
    for e, ids in zip(examples, prompts)
    for choice in e.choices
  ]
  contexts, continuations = zip(*pairs)
  logp = iter(likelihood.of_answers(params, contexts, continuations, config))
  scores = [[next(logp) for _ in e.choices] for e in examples]
  return [e.choices[int(np.argmax(row))] for e, row in zip(examples, scores)]


def tasks(
  params: llama.Params,
  config: ModelConfig,
  tokenizer: Tokenizer,
  names: Sequence[str] = suite.TASKS,
  n: int = 100,
  seed: int = 0,
  shots: int | None = None,
  settings: Settings = GREEDY,
  batch_size: int = 16,
  record: Callable[[dict], None] | None = None,
) -> dict[str, dict]:
  """Mean score on up to `n` held-out examples a task: {task: {'score', 'n', 'ci'}}.

  shots None: in a chat; a number: as a base model after so many solved examples of the
  train split. 'macro' is the mean over tasks, independent of their n. record: called
  with {'task', 'question', 'answer', 'response', 'score'} of every example.
  """
  results = {}
  for name, task in {name: task_lib.load(name) for name in names}.items():
    examples = task.examples('heldout', n, seed)
    solved = None if shots is None else []
    if shots:
      solved = task.examples('train', shots, seed)
    with log.work(f'{name}: asking {len(examples):,} questions'):
      responses = answers(
        *(params, config, tokenizer, task, examples, solved, settings, batch_size)
      )
    scores = task_lib.scored(task, list(zip(examples, responses)))
    for e, text, score in zip(examples, responses, scores) if record else ():
      one = dict(task=name, question=e.prompt, answer=e.answer, response=text)
      record(one | {'score': score})
    count = len(examples)  # a task with few prompts gives fewer than n
    score = sum(scores) / max(count, 1)
    results[name] = {'score': score, 'n': count, 'ci': interval(score, count)}
  return {**results, 'macro': macro(results)}


def macro(results: Mapping[str, Mapping]) -> dict:
  """Macro average of task results; its interval takes the tasks as independent."""
  count = max(len(results), 1)
  return {
    'score': sum(r['score'] for r in results.values()) / count,
    'n': sum(r['n'] for r in results.values()),
    'ci': math.sqrt(sum(r['ci'] ** 2 for r in results.values())) / count,
  }


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
