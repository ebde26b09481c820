"""Evaluation on tasks with checkable answers, with 95% confidence intervals (5.1)."""

import dataclasses
import functools
import math
from collections.abc import Mapping
from collections.abc import Sequence

from llama3_jax import chat
from llama3_jax import feed
from llama3_jax.config import ModelConfig
from llama3_jax.data import pipeline
from llama3_jax.generate import engine
from llama3_jax.generate.sample import Settings
from llama3_jax.model import llama
from llama3_jax.tasks import suite
from llama3_jax.tokenizer import Tokenizer
from llama3_jax.train import loss as losses
from llama3_jax.train import step

GREEDY = Settings(temperature=0.0, max_new=32)


def interval(score: float, n: int) -> float:
  """Half width of the 95% confidence interval of a mean score: 1.96 sqrt(S(1-S)/N)."""
  return 1.96 * math.sqrt(max(score * (1 - score), 0) / max(n, 1))


def base_prompt(tokenizer: Tokenizer, example, shots: Sequence) -> list[int]:
  """Ids of a question after solved ones, in the form of the pages of exercises."""
  solved = suite.document(shots) + '\n' if shots else ''
  return tokenizer.encode(f'{solved}Q: {example.prompt}\nA:', bos=True)


def chat_prompt(tokenizer: Tokenizer, example) -> list[int]:
  """Ids of a question as the user's message, with the assistant's header open."""
  said = [chat.Message('user', example.prompt)]
  return chat.encode(tokenizer, said, prompt=True).ids.tolist()


def answers(
  params: llama.Params,
  config: ModelConfig,
  tokenizer: Tokenizer,
  examples: Sequence,
  shots: Sequence | None = None,
  settings: Settings = GREEDY,
  batch_size: int = 16,
) -> list[str]:
  """The model's answer to each example: as a base model after `shots` (first line
  only), or in a chat when `shots` is None."""
  if shots is None:
    prompts = [chat_prompt(tokenizer, e) for e in examples]
  else:
    prompts = [base_prompt(tokenizer, e, shots) for e in examples]
  settings = dataclasses.replace(settings, vocab_size=tokenizer.vocab_size)
  found = engine.generate(
    params, prompts, config, tokenizer.stop_ids, settings, batch_size=batch_size
  )
  texts = [tokenizer.decode(completion.ids) for [completion] in found]
  return texts if shots is None else [t.strip().split('\n')[0] for t in texts]


def tasks(
  params: llama.Params,
  config: ModelConfig,
  tokenizer: Tokenizer,
  names: Sequence[str] = tuple(suite.TASKS),
  n: int = 100,
  seed: int = 0,
  shots: int | None = None,
  settings: Settings = GREEDY,
  batch_size: int = 16,
) -> dict[str, dict]:
  """Exact match on up to `n` held-out examples a task: {task: {'score', 'n', 'ci'}}.

  shots None asks in a chat; a number asks a base model after so many solved examples
  of the train split. 'macro' is the mean over tasks, whatever their n.
  """
  results = {}
  for name in names:
    examples = suite.examples(name, n, seed, 'heldout')
    solved = None if shots is None else suite.examples(name, shots, seed, 'train')
    said = answers(params, config, tokenizer, examples, solved, settings, batch_size)
    right = sum(suite.score(e, text) for e, text in zip(examples, said))
    count = len(examples)  # a task with few prompts gives fewer than n
    score = right / count
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
  sources: Mapping,
  batch: int,
  length: int,
  batches: int,
  positions: str = 'row',
) -> dict[str, float]:
  """Loss of each source's held-out documents, nats a token.

  sources: name -> source of `shards.open_source(folder, split='heldout')`.
  """
  found = {}
  for name, source in sources.items():
    rows = pipeline.heldout({name: source}, batch, length, batches, positions)
    placed = [feed.place(row) for row in rows]
    if placed:
      found[name] = step.evaluate(params, placed, _loss(config))['loss']
  return found
