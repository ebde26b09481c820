"""Reward scores with weights of few bits: distance, limit, a model that breaks."""

import numpy as np
import post_examples as toy
import pytest
import toy_scores
from scipy import stats

from llama3_jax.generate import programs
from llama3_jax.generate.settings import Settings
from llama3_jax.model import llama
from llama3_jax.model import rowwise
from llama3_jax.post import scores
from llama3_jax.report import page as pages

DRAWN = Settings(temperature=1.0, top_p=1.0, max_new=toy_scores.FREE + 3)


@pytest.mark.parametrize('seed', range(3))
def test_distance_is_that_of_scipy(seed):
  rng = np.random.default_rng(seed)
  a, b = rng.normal(size=(40, 3)).round(1), rng.normal(0.3, size=70).round(1)  # ties
  expected = stats.ks_2samp(a.ravel(), b).statistic
  assert scores.distance(a, b) == pytest.approx(expected)
  assert scores.distance(b, a) == scores.distance(a, b)
  assert scores.distance(a, a) == 0 and scores.distance(a, a + 100) == 1


def test_the_limit_counts_prompts_and_not_answers():
  """Answers to one prompt that are alike say no more than one of them."""
  rng = np.random.default_rng(0)
  a, b = rng.normal(size=(2, 60, 1))
  one = scores.by_chance(a, b, count=200)
  many = scores.by_chance(np.repeat(a, 8, 1), np.repeat(b, 8, 1), count=200)
  np.testing.assert_allclose(one, many)
  free = scores.by_chance(*rng.normal(size=(2, 480, 1)), count=200)
  assert np.median(free) < 0.6 * np.median(one)


def test_another_seed_is_within_and_a_shift_beyond():
  rng = np.random.default_rng(0)
  prompt = 3 * rng.normal(size=(400, 1))
  a, b, c = prompt + rng.normal(size=(3, 400, 4))
  found = scores.judge(a, b, c)
  assert found['verdict'] == 'within'
  assert found['distance'] == scores.distance(c, a) <= found['limit']
  assert found['seeds'] == scores.distance(a, b)
  assert found['other_seed'] == scores.distance(c, b)
  assert found['chance']['0.05'] < found['chance']['0.5'] < found['limit']
  far = scores.judge(a, b, c + 1)
  assert far['verdict'] == 'beyond' and far['limit'] == found['limit']


def test_the_summary_and_the_curve_are_of_all_answers():
  rewards = np.arange(101.0).reshape(1, 101)
  found = scores.summary(rewards)
  assert found['mean'] == 50 and found['quantiles']['0.25'] == 25
  assert scores.curve(rewards)[50] == 25 and scores.curve(rewards)[-1] == 100


def test_the_page_shows_verdict_and_scores():
  rewards = np.random.default_rng(0).normal(size=(3, 20, 2))
  names = 'whole weights', 'another seed', 'fp8'
  about = {n: scores.summary(r) | {'cut': 0.25} for n, r in zip(names, rewards)}
  found = scores.judge(*rewards) | {'weights': 'fp8', 'prompts': 20, 'answers': 40}
  curves = {n: scores.curve(r) for n, r in zip(names, rewards)}
  html = pages.render(scores.page(found | {'scores': about, 'curves': curves}))
  assert f'{found["verdict"]} {found["limit"]:.4f}' in html
  assert 'another seed' in html and '40 answers' in html


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  tokenizer = toy.tokenizer(tmp_path_factory.mktemp('vocabulary'))
  return toy_scores.trained(tokenizer), tokenizer, toy_scores.prompts(tokenizer)


def answered(trained, params, seed=0):
  """(rewards, share of answers whose first letter is right)."""
  scorer, tokenizer, prompts = trained
  config = toy_scores.CONFIG
  given = params, (scorer, config), prompts, tokenizer, config
  found = scores.sample(*given, DRAWN, 10, seed, 6)
  right = [
    toy_scores.right(tokenizer, prompt, answer)
    for prompt, answers in zip(prompts, found.sampled)
    for answer in answers
  ]
  assert found.rewards.shape == found.stopped.shape == (len(prompts), 10)
  return found.rewards, np.mean(right)


def test_scores_show_what_the_cap_prevents_and_a_benchmark_does_not(trained):
  """Inputs of a million at some tokens, of the same function: without the cap all other
  values of their rows vanish. What can be checked comes before these tokens."""
  made = trained[0].model
  loud = toy_scores.loud(made, 1e6)
  rows = np.array([trained[2][0] + [70, 71, 72]])
  expected, same = (llama.apply(p, rows, toy_scores.CONFIG) for p in (made, loud))
  np.testing.assert_allclose(same, expected, atol=1e-4)
  small = programs.prepared(loud, toy_scores.CONFIG, 'fp8')
  a, checked = answered(trained, made)
  b, _ = answered(trained, made, 1)
  assert checked > 0.9 and a.std() > 0.3
  capped, also = answered(trained, small)
  found = scores.judge(a, b, capped)
  assert found['verdict'] == 'within' and found['limit'] < 0.15
  uncapped, still = answered(trained, rowwise.capped(small, 0.0))
  found = scores.judge(a, b, uncapped)
  assert found['verdict'] == 'beyond' and found['distance'] > 2 * found['limit']
  assert uncapped.mean() < capped.mean() - 0.2
  assert abs(also - checked) < 0.02 and abs(still - checked) < 0.02
