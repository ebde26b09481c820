"""Rollouts: answers of the current weights to the prompts of a step (blog of 3.0; 4.1).

Answers come from the engine, whose weights `Engine.update` swaps in place. Log
probabilities that a loss compares are those of the model's own forward: the engine
attends over pages and may round, and its numbers would make ratios other than 1 before
anything was learnt. How far the two are apart is a metric, `engine_gap`.
"""

import collections
import dataclasses
import functools
from collections.abc import Sequence

import jax
import numpy as np
from flax import struct
from ml_collections import ConfigDict

from llama3_jax import axes
from llama3_jax import feed
from llama3_jax.base import rows as files
from llama3_jax.base.errors import UserError
from llama3_jax.config import ModelConfig
from llama3_jax.generate import engine
from llama3_jax.generate.settings import Settings
from llama3_jax.model import llama
from llama3_jax.post import preference
from llama3_jax.post import rows as rows_lib
from llama3_jax.post import split as shares
from llama3_jax.tasks import suite
from llama3_jax.tasks import task as tasks
from llama3_jax.text import chat
from llama3_jax.text.library import Library
from llama3_jax.text.tokenizer import Tokenizer
from llama3_jax.train import likelihood

EVERY = 10**9  # examples: all there are


@dataclasses.dataclass(frozen=True)
class RolloutConfig:
  """The `rollout` part of a config; the answers of a step are train.batch."""

  samples: int = 8  # answers a prompt; train.batch is a multiple
  max_new: int = 256  # tokens of an answer; a longer one is cut off
  rows: int = 64  # answers that decode together
  pages: int = 0  # of the engine's memory; 0: for all rows at their longest
  minibatch: int = 0  # answers of an update; 0: all of the step
  epochs: int = 1  # updates with each answer of a step
  stop_kl: float = 0.0  # a step ends at an update this far from its start; 0: never
  task: float = 1.0  # weight of the task's score in the reward
  model: float = 1.0  # weight of the reward model's
  cut: float = 1.0  # by how much an answer that was cut off is below the lowest


@dataclasses.dataclass(frozen=True)
class Prompt:
  """Messages that are answered, their ids, and the Example that checks the answer."""

  messages: tuple[chat.Message, ...]
  ids: tuple[int, ...]
  example: tasks.Example | None = None


@struct.dataclass
class Asked:
  """The prompts of a step, padded rows; number: of each among all."""

  tokens: jax.Array = feed.field('BT')
  segment: jax.Array = feed.field('BT')
  number: jax.Array = feed.field('B')


@struct.dataclass
class Answers:
  """Prompts with an answer, a row each; log-probabilities are of the targets."""

  tokens: jax.Array = feed.field('BT')
  targets: jax.Array = feed.field('BT')
  segment: jax.Array = feed.field('BT')
  position: jax.Array = feed.field('BT')
  weight: jax.Array = feed.field('BT', np.float32)  # 1: a token of the answer
  old: jax.Array = feed.field('BT', np.float32)  # under the weights that answered
  start: jax.Array = feed.field('BT', np.float32)  # under the model before training
  advantage: jax.Array = feed.field('BT', np.float32)


class Prompts(rows_lib.Rows):
  """Serves the prompts of a step: a `samples`-th of its number of answers."""

  def __init__(
    self, prompts: Sequence[Prompt], length: int, samples: int, seed: int = 0
  ) -> None:
    placed = [rows_lib.place(list(p.ids), length) for p in prompts]
    made = feed.empty(Asked, dict(B=len(prompts), T=length))
    for i, row in enumerate(placed):
      made.tokens[i], made.segment[i] = row.tokens, row.segment
    made.number[:] = np.arange(len(prompts))
    super().__init__(made, length, seed)
    self.samples = samples

  def plan(self, size: int, length: int) -> list[int]:
    """The numbers of the next prompts, for `size` answers."""
    if size % self.samples:
      raise UserError(
        f'train.batch={size} answers are no multiple of rollout.samples={self.samples}'
      )
    return super().plan(size // self.samples, length)


def prompts(
  config: ConfigDict, tokenizer: Tokenizer | Library, split: str
) -> list[Prompt]:
  """Prompts of a split ('train', 'heldout') by a config's `data`: those of tasks, whose
  answers can be checked, then those of files: questions with answers (tasks/rows.py),
  or preferences, whose prompts a reward model judges."""
  data, encode = config.data, functools.partial(chat.encode, tokenizer, prompt=True)
  count = data.tasks if split == 'train' else data.heldout_tasks
  made = suite.mixed(count, config.seed, split, data.task_names) if count else []
  found = [_question(example) for example in made]
  if split == 'train':
    found += shares.train(data, _read, _said)
  else:
    for path in data.heldout_files:
      found += _read(path, 'data.heldout_files')
    found += shares.heldout(data, _read, _said)
  if any(example is None for _, example in found) and not config.reward_from:
    raise UserError(
      'reward_from is empty, and rows of data.files have no answer to check: name a '
      'reward model, or give rows {"question", "answer"}'
    )
  if split == 'train' and not found:
    raise UserError('no prompts: set data.tasks, or give rows with --files=rows.jsonl')
  return [
    Prompt(messages, tuple(encode(messages).ids.tolist()), example)
    for messages, example in found
  ]


def _question(example):
  """(messages, Example) of a question of a task."""
  text = tasks.load(example.task).prompt(example)
  return (chat.Message('user', text),), example


def _read(path, field, quiet=False):
  """[(messages, Example or None)] of a file: questions with answers, or preferences."""
  first = next(iter(files.read(path, field)), (None, {}))[1]
  if 'answer' in first:
    every = tasks.load(f'rows={path}').examples('heldout', EVERY, 0)
    return [_question(example) for example in every]
  return [(row.prompt, None) for row in preference.read(path, field, quiet)]


def _said(pair):
  return shares.question(pair[0])


class Sampler:
  """The engine of a run; `answers` gives those of the weights it is given."""

  def __init__(
    self,
    model: ModelConfig,
    tokenizer: Tokenizer | Library,
    config: RolloutConfig,
    length: int,
  ) -> None:
    self.model, self.tokenizer, self.config = model, tokenizer, config
    together = max(config.rows // config.samples, 1)
    sizes = engine.sizes(length, together, config.samples)
    self.sizes = dataclasses.replace(sizes, pages=config.pages or sizes.pages)
    self.engine = None

  def answers(
    self,
    params: llama.Params,
    prompts: Sequence[Prompt],
    samples: int,
    seed: int,
    temperature: float = 1.0,
  ) -> list[list[engine.Completion]]:
    """`samples` completions of each prompt; seed below 2**32. They are drawn from the
    model as it is, of which a loss needs the probabilities: no top-p, no penalties."""
    if self.engine is None:
      self.engine = engine.Engine(params, self.model, self.sizes)
    else:
      self.engine.update(params)
    settings = Settings(
      temperature=temperature,
      top_p=1.0,
      max_new=self.config.max_new,
      vocab_size=self.tokenizer.vocab_size,
    )
    # Equal prompts of a step would get equal answers: each time another seed.
    times, groups = collections.Counter(), [None] * len(prompts)
    turns = collections.defaultdict(list)
    for i, prompt in enumerate(prompts):
      turns[times[prompt.ids]].append(i)
      times[prompt.ids] += 1
    for turn, numbers in turns.items():
      ids = [prompts[i].ids for i in numbers]
      stops, own = self.tokenizer.stop_ids, (seed + turn) % 2**32
      try:
        made = engine.complete(self.engine, ids, stops, settings, own, samples)
      except UserError as error:
        raise UserError(
          f'{error}: lower rollout.samples or rollout.max_new, or raise rollout.pages'
        ) from None
      for i, group in zip(numbers, made):
        groups[i] = group
    return groups


def rows(
  prompts: Sequence[Prompt],
  groups: Sequence[Sequence[engine.Completion]],
  length: int,
  kind: type = Answers,
) -> Answers:
  """Rows [answers,T] of all answers in order, numpy; the weight is 1 on the sampled
  tokens, the stop token included; `old` is the engine's until `recomputed`."""
  made = feed.empty(kind, dict(B=sum(map(len, groups)), T=length))
  pairs = [(prompt, one) for prompt, group in zip(prompts, groups) for one in group]
  for i, (prompt, one) in enumerate(pairs):
    ids, n = [*prompt.ids, *one.sampled], len(prompt.ids)
    mask = np.arange(len(ids)) >= n
    row = rows_lib.place(ids, length, mask)
    for field in dataclasses.fields(row):
      getattr(made, field.name)[i] = getattr(row, field.name)
    made.old[i, n - 1 : len(ids) - 1] = one.logps
  return made


@functools.partial(jax.jit, static_argnums=(2, 3))
def _logps(params, batch, config, chunk):
  logp = likelihood.of_targets(params, batch, config, chunk) * batch.weight
  return axes.shard(logp, '__')  # replicated: it is read on the host


def logps(
  params: llama.Params, rows: Answers, config: ModelConfig, size: int, chunk: int
) -> np.ndarray:
  """Log-probability of every token of the answers under `params`, float32 [B,T], 0
  elsewhere; `size` rows at a time."""
  return in_order(
    [_logps(params, feed.place(b), config, chunk) for b in feed.batches(rows, size)],
    rows,
  )


def in_order(parts: Sequence[jax.Array], rows: Answers) -> np.ndarray:
  """Replicated [size,T] of the batches of rows as one array [B,T] of the rows, columns
  in their own order."""
  found = np.concatenate([np.asarray(part) for part in parts])[: len(rows.tokens)]
  result = np.empty_like(found)
  result[:, feed.order(found.shape[1])] = found
  return result


def gap(rows: Answers, logp: np.ndarray) -> float:
  """Mean distance a token between the engine's log-probabilities and the model's."""
  count = max(rows.weight.sum(), 1)
  return float((np.abs(rows.old - logp) * rows.weight).sum() / count)
