"""Normalised NLL of the right answer, and choice by it (section 3.2.2).

Pure functions of parameters and a batch, for scaling laws and for evaluation.
"""

import os
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence

import numpy as np

from llama3_jax.base.errors import UserError
from llama3_jax.config import ModelConfig
from llama3_jax.data import shards
from llama3_jax.model import llama
from llama3_jax.train import likelihood


def of_sources(
  root: str | os.PathLike,
  sources: Iterable[str],
  decode: Callable,
  count: int,
  seed: int,
  **lengths: int,
) -> dict[str, tuple]:
  """{source: `questions` of its held-out documents}, `count` of each.

  root: folder of token shards; decode, seed, lengths (prompt, answer): see `questions`.
  """
  found = {}
  for name in sources:
    parts = shards.members(f'{root}/{name}') or [name]
    parts = [shards.open_source(f'{root}/{n}', split='heldout') for n in parts]
    documents = [part[i] for part in parts for i in range(len(part))]
    found[name] = questions(documents, decode, count, seed, **lengths)
  return found


def score(
  params: llama.Params,
  prompts: Sequence[Sequence[int]],
  answers: Sequence[Sequence[int]],
  characters: Sequence[int],
  config: ModelConfig,
  rows: int = 32,
  length: int = 128,
) -> np.ndarray:
  """NLL a character, nats, of every answer after its prompt: np.float64 [n].

  Args:
    prompts, answers: lists of token ids; a prompt that is too long for a row loses its
      beginning.
    characters: of each answer.
    rows, length: shape of a batch.
  """
  logp = likelihood.of_answers(params, prompts, answers, config, rows, length)
  return -logp.astype(np.float64) / np.maximum(characters, 1)


def choose(values: np.ndarray | Sequence[Sequence[float]]) -> dict[str, float]:
  """{'accuracy', 'nll'}: share of questions whose right answer is the most likely, and
  mean NLL of the right answers. values: NLLs [questions, choices], right one first."""
  values = np.asarray(values)
  right = values[:, 0] < values[:, 1:].min(1)
  return {'accuracy': float(right.mean()), 'nll': float(values[:, 0].mean())}


def questions(
  documents: Sequence[np.ndarray],
  decode: Callable[[list[int]], str],
  n: int,
  seed: int,
  choices: int = 4,
  prompt: int = 48,
  answer: int = 16,
) -> tuple[list[list[int]], list[list[int]], list[int]]:
  """Questions which of several passages continues a text, from held-out documents.

  Returns (prompts, answers, characters) of n questions, lists of n x choices: ids, ids
  and length of an answer. The right answer is first, the others are of other documents.

  Args:
    documents: np.uint32 arrays of ids, held out of training.
    decode: ids -> text, to count the characters of an answer.
    prompt, answer: length in tokens.
  """
  rng = np.random.default_rng(seed)
  long = [d for d in documents if len(d) >= prompt + answer + 2]
  if len(long) < 2:
    raise UserError(
      f'data.root: {len(long)} held-out documents have {prompt + answer} tokens, 2 are '
      'needed for questions; write the shards with more held-out documents'
    )
  prompts, answers, characters = [], [], []
  for _ in range(n):
    at = int(rng.integers(len(long)))
    start = int(rng.integers(len(long[at]) - prompt - answer))
    context = [int(i) for i in long[at][start : start + prompt]]
    options = [long[at][start + prompt : start + prompt + answer]]
    while len(options) < choices:
      other = int(rng.integers(len(long)))
      if other == at:
        continue
      begin = int(rng.integers(1, len(long[other]) - answer))
      options.append(long[other][begin : begin + answer])
    for option in options:
      ids = [int(i) for i in option]
      prompts.append(context)
      answers.append(ids)
      characters.append(len(decode(ids)))
  return prompts, answers, characters
