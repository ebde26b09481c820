"""Needle in a haystack, and the gate of long-context pre-training (3.4.2, 5.2)."""

import dataclasses
import itertools
import random
from collections.abc import Sequence

import numpy as np

from llama3_jax.base.errors import UserError
from llama3_jax.config import ModelConfig
from llama3_jax.eval import answering
from llama3_jax.generate.settings import Settings
from llama3_jax.model import llama
from llama3_jax.tasks import needle
from llama3_jax.tasks.task import Example
from llama3_jax.tasks.task import Task
from llama3_jax.text.tokenizer import Tokenizer

ANSWER = 8  # tokens left for the answer
FRAME = 1  # begin_of_text


@dataclasses.dataclass(frozen=True)
class NeedleConfig:
  """The `needle` part of a config: recall is measured where there are lengths (5.2)."""

  lengths: tuple[int, ...] = ()  # tokens
  # Of the text; at 1.0 a needle would be beside its question at any length.
  depths: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75)
  samples: int = 8  # haystacks a length and depth
  facts: int = 3  # in a haystack, one of which is asked for
  tokenizer: str = 'runs/herd/tokenizer/tokenizer.model'
  documents: str = 'runs/herd/curate/documents'  # haystacks are of category general


def haystack(
  tokenizer: Tokenizer,
  sentences: Sequence[str],
  length: int,
  depth: float,
  n_facts: int = 1,
) -> Task:
  """The Task of a fact at `depth` (0 = the beginning) of `length` tokens, the answer
  included, in the form of the pages of exercises, which a base model can continue."""
  count = lambda text: len(tokenizer.encode(text))

  def make(rng):
    room = length - FRAME
    while True:
      context, question, answer = needle.haystack(
        rng, sentences, room, depth, n_facts, count
      )
      text = needle.prompt(context, question)
      # Joined sentences may take a few tokens more than separate ones.
      if (over := FRAME + count(text) + ANSWER - length) <= 0:
        return Example(text, answer)
      room -= over

  def examples(split, n, seed):
    draw = lambda i: random.Random(f'{seed}/{length}/{depth}/{i}')
    return [make(draw(i)) for i in range(n)]

  begins = lambda e, response: float(response.startswith(e.answer))
  return Task(examples, begins, page=lambda e: e.prompt, max_new=ANSWER)


def grid(
  params: llama.Params,
  config: ModelConfig,
  tokenizer: Tokenizer,
  sentences: Sequence[str],
  lengths: Sequence[int],
  depths: Sequence[float],
  samples: int = 4,
  seed: int = 0,
  n_facts: int = 1,
  batch_size: int = 8,
) -> dict:
  """Recall, 0 to 1, of a fact at each depth (0 = the beginning) of each length.

  Returns {'lengths', 'depths', 'recall': `[depths][lengths]`, 'samples'}; greedy. The
  haystacks depend on seed, length, depth and number only. Raises UserError for a length
  without room for a fact and its question.
  """
  for length in lengths:
    if length < 64:
      raise UserError(f'needle.lengths: {length} is too short; use 64 tokens or more')
  asked = []
  for depth, length in itertools.product(depths, lengths):
    task = haystack(tokenizer, sentences, length, depth, n_facts)
    examples = task.examples('heldout', samples, seed)
    settings = Settings(0.0, max_new=ANSWER)
    asked.append(answering.Asked.of(tokenizer, task, examples, (), settings))
  # Rows of one size, where they are short: a program each takes longer to compile than
  # all answers.
  room = max((own.room for own in asked), default=0)
  room = room if room <= answering.ROOM else 0
  found = answering.responses(params, config, tokenizer, asked, batch_size, room)
  right = [
    sum(map(own.task.score, own.examples, texts)) for own, texts in zip(asked, found)
  ]
  recall = np.reshape(right, (len(depths), len(lengths))) / samples
  return {
    'lengths': [int(n) for n in lengths],
    'depths': [float(d) for d in depths],
    'recall': recall.tolist(),
    'samples': samples,
  }


def gate(
  short_now: float,
  short_before: float,
  recall: float | Sequence,
  tolerance: float = 0.01,
  perfect: float = 1.0,
) -> tuple[bool, str]:
  """Whether training may move to the next context length, and why (3.4.2).

  Both must hold: the short-context held-out loss has recovered (short_now at most
  short_before * (1 + tolerance), nats a token), and the needle is recalled at every
  length up to this one: `recall`, `[depths][lengths]` as of `grid`, is at least
  `perfect` in the mean over depths, since a single cell has few haystacks.
  """
  lowest = float(np.min(np.mean(np.atleast_2d(recall), 0)))
  limit = short_before * (1 + tolerance)
  reasons = []
  if not short_now <= limit:
    reasons.append(
      f'short-context loss {short_now:.4f} has not recovered to {limit:.4f}'
    )
  if not lowest >= perfect:
    reasons.append(f'lowest needle recall {lowest:.2f} is below {perfect:.2f}')
  if reasons:
    return False, '; '.join(reasons)
  return True, f'short-context loss {short_now:.4f} <= {limit:.4f}, recall {lowest:.2f}'
