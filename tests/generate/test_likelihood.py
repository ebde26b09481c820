"""Likelihoods of answers whose beginnings are shared: those of each text alone."""

import dataclasses

import jax
import numpy as np
import pytest
import toy_generate as toy

from llama3_jax import axes
from llama3_jax import mesh
from llama3_jax.base.errors import UserError
from llama3_jax.generate import likelihood
from llama3_jax.model import llama

params = toy.params  # fixture
RNG = np.random.default_rng(0)


def ids(n):
  return RNG.integers(1, 64, n).tolist()


def asked(shots, questions, choices=4):
  """(prompts, answers): questions after a common text, each with answers of which two
  begin alike."""
  common, prompts, answers = ids(shots), [], []
  for length in questions:
    prompt = common + ids(length)
    begin = ids(2)
    for i in range(choices):
      prompts.append(prompt)
      answers.append(begin + ids(3) if i < 2 else ids(1 + i))
  return prompts, answers


def logits(params, text, config):
  """Of each token of a text [T,V]; few shapes are compiled, the tail is not seen."""
  row = np.zeros((1, 64 * -(-len(text) // 64)), np.int32)
  row[0, : len(text)] = text
  return llama.apply(params, row, config)[0]


def alone(params, prompts, answers, config):
  found = []
  for prompt, answer in zip(prompts, answers):
    logp = jax.nn.log_softmax(logits(params, prompt + answer, config), -1)
    at = np.arange(len(prompt) - 1, len(prompt) + len(answer) - 1)
    found.append(float(np.asarray(logp)[at, answer].sum()))
  return np.array(found)


BEGIN = ids(40)  # five pages
CASES = {
  'one chunk': asked(0, (5, 9, 3)),
  'many chunks': asked(0, (20, 25, 30, 18, 40)),
  'common pages': asked(37, (5, 9, 3, 12, 20, 2)),
  'prompts that end with a page': asked(37, (3, 3, 11)),
  'a prompt that is the beginning of another': (
    [[*BEGIN, *[1] * 10], BEGIN],
    [[2, 3], [60, 5]],
  ),
  'longer than a chunk': asked(150, (90, 3)),
  'one token before': ([[7], [7], [9]], [[1], [2, 3], [4]]),
  'an answer that is the beginning of another': (
    [[7, 8]] * 3,
    [[1], [1, 2], [1, 2, 3]],
  ),
  'equal texts': ([[7, 8], [7, 8], [7]], [[1, 2], [1, 2], [8, 1, 2]]),
}


@pytest.mark.parametrize('name', CASES)
def test_likelihoods_are_those_of_each_text_alone(params, name):
  prompts, answers = CASES[name]
  found = likelihood.of_answers(params, prompts, answers, toy.CONFIG, 64, 8)
  np.testing.assert_allclose(
    found, alone(params, prompts, answers, toy.CONFIG), atol=2e-4
  )


def test_a_window_is_kept(params):
  config = dataclasses.replace(toy.CONFIG, window=10)
  prompts, answers = CASES['common pages']
  found = likelihood.of_answers(params, prompts, answers, config, 64, 8)
  np.testing.assert_allclose(found, alone(params, prompts, answers, config), atol=2e-4)


@pytest.mark.parametrize('sizes', [(1, 2, 1, 1, 2), (2, 2, 1, 2, 1)])
def test_same_likelihoods_on_a_mesh(params, sizes):
  prompts, answers = CASES['many chunks']
  expected = likelihood.of_answers(params, prompts, answers, toy.CONFIG, 64, 8)
  devices = jax.devices()[: int(np.prod(sizes))]
  with jax.set_mesh(mesh.create(dict(zip(axes.AXES, sizes)), devices)):
    made = jax.tree.map(axes.shard, params, llama.dims(toy.CONFIG))
    found = likelihood.of_answers(made, prompts, answers, toy.CONFIG, 64, 8)
  np.testing.assert_allclose(found, expected, atol=1e-4)


def test_common_beginnings_are_read_once(params):
  """Tokens that are computed: the common text once, and each question once."""
  prompts, answers = asked(160, [9] * 12)
  starts = list(map(len, prompts))
  texts = [tuple(p + a) for p, a in zip(prompts, answers)]
  parts = likelihood._packed(texts, starts, 64, 8)
  trees = [likelihood._Tree(texts, starts, *part) for part in parts]
  assert all(len(tree.tokens) <= 64 for tree in trees)
  bases = [base for *_, base in parts]
  assert min(bases[:-1]) >= 160
  computed = sum(len(tree.tokens) for tree in trees)
  assert computed < 12 * (9 + 4 * 4 + 8) < sum(map(len, texts)) / 15


@pytest.mark.parametrize(
  'prompt, answer, words',
  [([], [1], 'answer 0'), ([1], [], 'answer 0'), ([1], [2] * 57, '57 tokens')],
)
def test_what_cannot_be_measured_is_named(params, prompt, answer, words):
  with pytest.raises(UserError, match=words):
    likelihood.of_answers(params, [prompt], [answer], toy.CONFIG, 64, 8)
  assert len(likelihood.of_answers(params, [], [], toy.CONFIG)) == 0


@pytest.mark.parametrize('name', CASES)
def test_answer_is_greedy_where_each_token_is_the_likeliest(params, name):
  """By decoding itself: half of the answers are what it writes, or its beginning."""
  prompts, answers = CASES[name]
  answers, wanted = [list(a) for a in answers], []
  for i, (prompt, answer) in enumerate(zip(prompts, answers)):
    text = list(prompt)
    for _ in answer:
      last = logits(params, text, toy.CONFIG)[len(text) - 1]
      text.append(int(np.argmax(np.asarray(last))))
    if i % 2:
      answer[:] = text[len(prompt) :]
    wanted.append(answer == text[len(prompt) :])
  logp, greedy = likelihood.weighed(params, prompts, answers, toy.CONFIG, 64, 8)
  assert greedy.tolist() == wanted
  expected = alone(params, prompts, answers, toy.CONFIG)
  np.testing.assert_allclose(logp, expected, atol=2e-4)
