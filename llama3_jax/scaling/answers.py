"""Normalised NLL of the right answer, and choice by it (section 3.2.2).

Pure functions of parameters and a batch, for scaling laws and for evaluation.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from llama3_jax import axes
from llama3_jax import feed
from llama3_jax.base.errors import UserError
from llama3_jax.model import llama
from llama3_jax.train import loss as losses


def nll(params, batch, config, chunk=1024):
  """Sums over the answer's tokens of each row: dict of float32 [B].

  Args: batch: tokens, targets, segment, position int32 [B,T]; weight float32 [B,T], 1
    where the target is part of the answer; characters float32 [B]: of the answer.

  Returns: `nll` nats, `count` tokens, `characters`.
  """
  hidden, _ = llama.forward(
    params, batch['tokens'], batch['position'], batch['segment'], config
  )
  found, _ = losses.logprobs(params, hidden, batch['targets'], config, chunk)
  weight = batch['weight']
  return {
    'nll': -jnp.sum(found * weight, 1),
    'count': jnp.sum(weight, 1),
    'characters': batch['characters'],
  }


@functools.partial(jax.jit, static_argnums=(2, 3))
def _rows(params, batch, config, chunk):
  # The sums of all rows on every device: they are read on the host.
  return jax.tree.map(lambda x: axes.shard(x, '_'), nll(params, batch, config, chunk))


def batches(prompts, answers, characters, rows, length):
  """Padded batches of prompt + answer.

  Args:
    prompts, answers: lists of lists of token ids; a prompt has one token at least.
    characters: of each answer.
    rows, length: of every batch. A prompt that is too long loses its beginning.

  Returns: list of dicts of np arrays, as `nll` takes; the last is filled with rows of
    weight 0.
  """
  found = []
  for start in range(0, len(prompts), rows):
    fields = ('tokens', 'targets', 'segment', 'position')
    batch = {n: np.zeros((rows, length), np.int32) for n in fields}
    batch['weight'] = np.zeros((rows, length), np.float32)
    batch['characters'] = np.ones(rows, np.float32)
    for r, i in enumerate(range(start, min(start + rows, len(prompts)))):
      answer = list(answers[i])
      room = length + 1 - len(answer)
      if room < 1 or not answer or not prompts[i]:
        raise UserError(f'answer {i} has {len(answer)} tokens, a row has {length}')
      ids = np.array([*prompts[i][-room:], *answer], np.int32)
      n = len(ids) - 1
      batch['tokens'][r, :n], batch['targets'][r, :n] = ids[:-1], ids[1:]
      batch['segment'][r, :n], batch['position'][r, :n] = 1, np.arange(n)
      batch['weight'][r, n - len(answer) : n] = 1
      batch['characters'][r] = max(characters[i], 1)
    found.append(batch)
  return found


def score(params, prompts, answers, characters, config, rows=32, length=128):
  """NLL a character, nats, of every answer after its prompt: np.float64 [n]."""
  found = []
  for batch in batches(prompts, answers, characters, rows, length):
    sums = jax.device_get(_rows(params, feed.place(batch), config, 1024))
    found.append(sums['nll'].astype(np.float64) / sums['characters'])
  return np.concatenate(found)[: len(prompts)]


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
