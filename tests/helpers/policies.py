"""Rows of rollouts in miniature, and a run of reinforcement learning on a toy model."""

import numpy as np
import post_examples as toy

from llama3_jax import feed
from llama3_jax.model import llama
from llama3_jax.post import rollout
from llama3_jax.text import chat


def empty(kind, shape):
  """Rows without weight, numpy."""
  return feed.empty(kind, dict(zip('BT', shape)))


def prompts(tokenizer, texts):
  """Prompts of texts of the user."""
  made = []
  for text in texts:
    messages = (chat.Message('user', text),)
    ids = chat.encode(tokenizer, messages, prompt=True).ids.tolist()
    made.append(rollout.Prompt(messages, tuple(ids)))
  return made


def forward(params, rows):
  """Log-probabilities of all targets, by all logits and a softmax, numpy f64 [B,T]."""
  hidden, _ = llama.forward(
    params, rows.tokens, rows.position, rows.segment, toy.CONFIG
  )
  logits = np.asarray(llama.logits(params, hidden, toy.CONFIG), np.float64)
  picked = np.take_along_axis(logits, rows.targets[..., None], -1)[..., 0]
  return picked - np.log(np.exp(logits).sum(-1))
