"""Properties of rejection sampling."""

import itertools

import jax
import numpy as np
import post_examples as toy
import pytest

from llama3_jax.generate.settings import Settings
from llama3_jax.post import best_of_k
from llama3_jax.post import reject
from llama3_jax.post import reward
from llama3_jax.text.chat import Message

PROMPTS = [(Message('user', f'{i}+1?'),) for i in range(5)]
DRAWN = Settings(temperature=1.0, top_p=1.0, max_new=6)


@pytest.fixture(scope='module')
def tokenizer(tmp_path_factory):
  return toy.tokenizer(tmp_path_factory.mktemp('vocabulary'))


@pytest.fixture(scope='module')
def models():
  policy = toy.model()
  return policy, reward.init(jax.random.key(1), toy.model(3), toy.CONFIG)


def test_every_prompt_gets_its_samples_and_rewards(models, tokenizer):
  found = toy.sampled(*models, PROMPTS, tokenizer, DRAWN, 4, batch=2)
  assert [c.prompt for c in found] == PROMPTS
  assert all(len(c.responses) == len(c.rewards) == 4 for c in found)
  again = toy.sampled(*models, PROMPTS, tokenizer, DRAWN, 4, batch=2)
  assert found == again


def test_answers_that_were_cut_off_are_never_kept():
  said = tuple(Message('assistant', text) for text in 'ab')
  cut = reject.Candidates(PROMPTS[0], said, (reject.CUT, 0.1))
  none = reject.Candidates(PROMPTS[1], said, (reject.CUT, reject.CUT))
  rows = reject.sft_rows([cut, none])
  assert [row['messages'][-1]['content'] for row in rows] == ['b']
  assert rows[0]['messages'][0] == {'role': 'user', 'content': '0+1?'}


def test_curve_is_the_mean_over_all_subsets():
  rng = np.random.default_rng(0)
  rewards, exact = rng.standard_normal((7, 6)), rng.integers(0, 2, (7, 6))
  for point in best_of_k.curve(rewards, {'exact': exact}, ks=range(1, 7)):
    k = point['k']
    best, right = [], []
    for r, e in zip(rewards, exact):
      for subset in itertools.combinations(range(6), k):
        top = max(subset, key=lambda i, r=r: r[i])
        best.append(r[top])
        right.append(e[top])
    np.testing.assert_allclose(point['reward'], np.mean(best), rtol=1e-9)
    np.testing.assert_allclose(point['exact'], np.mean(right), rtol=1e-9)


def test_best_of_k_rises_with_k():
  rewards = np.random.default_rng(0).standard_normal((50, 10))
  points = best_of_k.curve(rewards)
  assert [point['k'] for point in points] == [1, 2, 4, 8, 10]
  means = [point['reward'] for point in points]
  assert means == sorted(means)


def test_curve_survives_cut_off_answers():
  rewards = np.array([[reject.CUT, 1.0], [reject.CUT, reject.CUT]])
  assert all(np.isfinite(point['reward']) for point in best_of_k.curve(rewards))
