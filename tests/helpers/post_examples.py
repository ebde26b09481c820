"""A byte vocabulary, a toy model and a few examples for the tests of post-training."""

import dataclasses

import jax
import numpy as np

from llama3_jax.config import ModelConfig
from llama3_jax.model import llama
from llama3_jax.post import reject
from llama3_jax.post.policy import Policies
from llama3_jax.post.policy import Policy
from llama3_jax.post.preference import Preference
from llama3_jax.text import vocabulary
from llama3_jax.text.chat import Message
from llama3_jax.text.tokenizer import Tokenizer

CONFIG = ModelConfig(2, 32, 4, 2, 8, 64, vocab_size=512, dtype='float32')


def tokenizer(folder):
  """One token a byte: 256 + 256 special tokens."""
  path = folder / 'bytes.model'
  vocabulary.write([bytes([i]) for i in range(256)], path)
  return Tokenizer.load(path)


def model(seed=0):
  return jax.jit(llama.init, static_argnums=1)(jax.random.key(seed), CONFIG)


def answer(text):
  return Message('assistant', text)


def examples(n=6, seed=0):
  """Sums: edited > chosen > rejected in every other example, else two responses."""
  rng = np.random.default_rng(seed)
  made = []
  for i in range(n):
    a, b = (int(x) for x in rng.integers(1, 9, 2))
    answers = (f'It is {a + b}.', f'{a + b}', f'{a + b + 1}')
    prompt = (Message('user', f'{a}+{b}?'),)
    said = tuple(map(answer, answers))
    made.append(Preference(prompt, said if i % 2 else said[1:], 'sum'))
  return made


def multi_turn():
  return Preference(
    (
      Message('system', 'Be short.'),
      Message('user', 'hi'),
      Message('assistant', 'hello'),
      Message('user', '1+1?'),
    ),
    (answer('2'), answer('3')),
  )


def first(rows, n):
  return jax.tree.map(lambda array: array[:n], rows)


def changed(example, **fields):
  return dataclasses.replace(example, **fields)


def sampled(
  model, scorer, prompts, tokenizer, settings, samples, seed=0, batch=8, system=''
):
  """Candidates of one model of CONFIG by one reward model."""
  own = dataclasses.replace(settings, vocab_size=tokenizer.vocab_size)
  given = {'model': (model, CONFIG)}, {'reward': (scorer, CONFIG)}, tokenizer
  policies = Policies(Policy(own, system), {})
  made = reject.Sampler(*given, policies, samples, seed, batch)
  asked = [reject.Asked(tuple(prompt)) for prompt in prompts]
  made.prepare(asked)
  return made(asked)
