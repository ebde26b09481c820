"""A chat model as the judge: the likelihood of each class as the answer."""

import jax
import numpy as np
import pytest
from post_examples import CONFIG

from llama3_jax.generate import likelihood
from llama3_jax.model import llama


def test_likelihoods_are_those_of_one_answer_at_a_time():
  params = llama.init(jax.random.key(0), CONFIG)
  prompts, answers = [[1, 5, 6], [1, 7], [2, 8, 9, 4]], [[3, 4], [5]]
  found = likelihood.of_each(params, prompts, answers, CONFIG)
  assert found.shape == (3, 2)
  for i, prompt in enumerate(prompts):
    for k, answer in enumerate(answers):
      ids = np.array([prompt + answer])
      hidden, _ = llama.forward(
        params, ids, np.arange(ids.size)[None], np.ones_like(ids), CONFIG
      )
      head, _ = llama.head(params)
      logits = np.asarray(hidden[0] @ head).astype(np.float64)
      logp = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
      rows = range(len(prompt) - 1, ids.size - 1)
      expected = sum(logp[r, t] for r, t in zip(rows, answer))
      assert found[i, k] == pytest.approx(expected, abs=1e-4)
