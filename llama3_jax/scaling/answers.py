"""Normalised NLL of the right answer, and choice by it (section 3.2.2).

Pure functions of parameters and a batch, for scaling laws and for evaluation.
"""

import numpy as np

from llama3_jax.base.errors import UserError
from llama3_jax.train import likelihood


def score(params, prompts, answers, characters, config, rows=32, length=128):
  """NLL a character, nats, of every answer after its prompt: np.float64 [n].

  Args:
    prompts, answers: lists of token ids; a prompt that is too long for a row loses its
      beginning.
    characters: of each answer.
    rows, length: of a batch.
  """
  logp = likelihood.of_answers(params, prompts, answers, config, rows, length)
  return -logp.astype(np.float64) / np.maximum(characters, 1)


def choose(values):
  """Of NLLs [questions, choices] with the right one first: the share of questions whose
  right answer is the most likely, and the mean NLL of the right answers."""
  values = np.asarray(values)
  right = values[:, 0] < values[:, 1:].min(1)
  return {'accuracy': float(right.mean()), 'nll': float(values[:, 0].mean())}


def questions(documents, decode, n, seed, choices=4, prompt=48, answer=16):
  """Which of some passages goes on a text? The right one first, the others from other
  documents: n questions as (prompts, answers, characters), n x choices each.

  Args:
    documents: list of np.uint32 arrays, held out of training.
    decode: list of ids -> text; for the characters of an answer.
    prompt, answer: tokens.
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
    asked = [int(i) for i in long[at][start : start + prompt]]
    options = [long[at][start + prompt : start + prompt + answer]]
    while len(options) < choices:
      other = int(rng.integers(len(long)))
      if other == at:
        continue
      begin = int(rng.integers(1, len(long[other]) - answer))
      options.append(long[other][begin : begin + answer])
    for option in options:
      ids = [int(i) for i in option]
      prompts.append(asked)
      answers.append(ids)
      characters.append(len(decode(ids)))
  return prompts, answers, characters
