"""A model that is asked: one answer to each dialog, of a pool or of a judge (4.2.1)."""

import os
from collections.abc import Callable
from collections.abc import Sequence

import numpy as np
from ml_collections import ConfigDict

from llama3_jax import config as configs
from llama3_jax.generate import engine
from llama3_jax.generate import likelihood
from llama3_jax.generate.settings import Settings
from llama3_jax.post import reward
from llama3_jax.text import chat
from llama3_jax.train import belongs
from llama3_jax.train import models


def answers(
  name: str | os.PathLike,
  dialogs: Sequence[Sequence[chat.Message]],
  sample: ConfigDict,
  seed: int = 0,
  batch_size: int = 16,
  field: str = 'pool',
) -> list[chat.Message]:
  """The answer of a model (a run, a folder, a name) to each dialog, with its ids.

  sample: fields of generate/settings.Settings; field: of the config, with the name.
  """
  tokenizer = belongs.tokenizer('', name, field)
  own = Settings(vocab_size=tokenizer.vocab_size)
  params, model = models.load(name, field=field)
  found = engine.generate(
    params,
    [chat.encode(tokenizer, d, prompt=True).ids.tolist() for d in dialogs],
    model,
    tokenizer.stop_ids,
    configs.fill(own, sample, 'sample'),
    seed,
    batch_size=batch_size,
  )
  return [chat.sampled(tokenizer, completion.sampled) for (completion,) in found]


def scorer(
  workdir: str | os.PathLike, batch_size: int = 16
) -> Callable[[Sequence[Sequence[chat.Message]]], np.ndarray]:
  """score(dialogs) -> rewards, float32 [N], of a finished reward model."""

  def score(dialogs):
    tokenizer = belongs.tokenizer('', workdir, 'judges')
    params, model = reward.load(workdir, 'judges')
    ids = [chat.encode(tokenizer, d).ids.tolist() for d in dialogs]
    return reward.score(params, ids, model, batch_size)

  return score


def weigher(name: str | os.PathLike) -> Callable[[Sequence[str]], np.ndarray]:
  """weigh(texts) -> log-probabilities of the answers A and B of a model, [N,2]."""

  def weigh(texts):
    tokenizer = belongs.tokenizer('', name, 'judges')
    params, model = models.load(name, field='judges')
    dialogs = [(chat.Message('user', text),) for text in texts]
    asked = [chat.encode(tokenizer, d, prompt=True).ids.tolist() for d in dialogs]
    letters = [tokenizer.encode(letter) for letter in 'AB']
    return likelihood.of_each(params, asked, letters, model)

  return weigh


def judge(
  name: str | os.PathLike, sample: ConfigDict, batch_size: int = 16
) -> Callable[[Sequence[str]], list[str]]:
  """ask(texts) -> replies of a model, the likeliest ones, for annotators.judge."""
  greedy = ConfigDict({**sample.to_dict(), 'temperature': 0.0, 'max_new': 8})

  def ask(texts):
    dialogs = [(chat.Message('user', text),) for text in texts]
    said = answers(name, dialogs, greedy, 0, batch_size, 'judges')
    return [message.content for message in said]

  return ask
