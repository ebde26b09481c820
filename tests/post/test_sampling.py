"""Rejection sampling by policy, in waves and in parts (4.2.2)."""

import dataclasses
import json
import math

import jax
import numpy as np
import post_examples as toy
import pytest

from llama3_jax.base.errors import UserError
from llama3_jax.generate.settings import Settings
from llama3_jax.model import llama
from llama3_jax.post import best_of_k
from llama3_jax.post import choice
from llama3_jax.post import parts
from llama3_jax.post import policy
from llama3_jax.post import reject
from llama3_jax.post import reward
from llama3_jax.post.policy import Policies
from llama3_jax.post.policy import Policy
from llama3_jax.post.reject import Asked
from llama3_jax.post.reject import Candidates
from llama3_jax.text.chat import Message

EOT = 256 + 9  # made likely, so that most answers end
DRAWN = Settings(temperature=1.0, top_p=1.0, max_new=12, bias=((EOT, 5.0),))
ASKED = [Asked((Message('user', f'{i}+1?'),), 'ab'[i % 2]) for i in range(5)]
BASE = Policies(Policy(DRAWN), {})


@pytest.fixture(scope='module')
def tokenizer(tmp_path_factory):
  made = toy.tokenizer(tmp_path_factory.mktemp('vocabulary'))
  assert made.eot == EOT
  return made


@pytest.fixture(scope='module')
def models():
  """(models that answer, reward models)."""
  answering = {'one': (toy.model(), toy.CONFIG), 'two': (toy.model(5), toy.CONFIG)}
  first = reward.init(jax.random.key(1), toy.model(3), toy.CONFIG)
  # A reward model may have other sizes than the models whose answers it scores.
  other = dataclasses.replace(toy.CONFIG, n_heads=2, d_head=16)
  model = jax.jit(llama.init, static_argnums=1)(jax.random.key(4), other)
  second = reward.init(jax.random.key(2), model, other)
  return answering, {'reward': (first, toy.CONFIG), 'second': (second, other)}


def sampled(models, tokenizer, policies=BASE, samples=4, asked=ASKED, **more):
  made = reject.Sampler(*models, tokenizer, policies, samples, batch=2, **more)
  made.prepare(ASKED)
  return made(asked)


def test_every_answer_has_its_model_number_and_both_rewards(models, tokenizer):
  found = sampled(models, tokenizer)
  for asked, c in zip(ASKED, found):
    assert (c.prompt, c.capability) == (asked.messages, asked.capability)
    assert c.models == ('one',) * 4 + ('two',) * 4
    assert c.numbers == (0, 1, 2, 3) * 2
    assert len(c.rewards) == len(c.others['second']) == 8
    assert c.rewards != c.others['second']
  rows = json.loads(json.dumps(reject.candidate_rows(found)))
  assert [reject.candidates(row) for row in rows] == found


def test_waves_give_the_answers_of_one(models, tokenizer):
  whole = sampled(models, tokenizer)
  waves = sampled(models, tokenizer, wave=2)

  def told(c):
    every = zip(c.models, c.numbers, c.responses)
    return {(model, number): m for model, number, m in every}

  assert [told(c) for c in waves] == [told(c) for c in whole]
  for a, b in zip(waves, whole):
    np.testing.assert_allclose(sorted(a.rewards), sorted(b.rewards), atol=1e-5)


def test_a_prompt_above_the_bar_gets_no_further_wave(models, tokenizer):
  whole = sampled(models, tokenizer, wave=2)
  firsts = [max(c.rewards[:4]) for c in whole]  # of two of each model
  bar = float(np.median([r for r in firsts if r > reject.CUT]))
  found = sampled(models, tokenizer, wave=2, bar=bar)
  assert [len(c.rewards) for c in found] == [4 if r >= bar else 8 for r in firsts]
  assert {len(c.rewards) for c in found} == {4, 8}


def test_parts_of_the_prompts_give_the_same_answers(models, tokenizer):
  whole = sampled(models, tokenizer)
  some = sampled(models, tokenizer, asked=ASKED[2:4])
  assert [c.responses for c in some] == [c.responses for c in whole[2:4]]


def test_each_capability_has_its_policy(models, tokenizer):
  cold = Policy(dataclasses.replace(DRAWN, temperature=0.0))
  steered = Policy(DRAWN, system='Say it twice.')
  found = sampled(models, tokenizer, Policies(steered, {'a': cold}))
  plain = sampled(models, tokenizer)
  for asked, c, other in zip(ASKED, found, plain):
    same = len(set(c.responses[:4])) == 1  # greedy
    assert same == (asked.capability == 'a')
    assert c.prompt == asked.messages  # without the system prompt
    assert c.responses != other.responses


def test_answers_in_another_script_are_never_taken(models, tokenizer):
  strange = Policies(Policy(DRAWN, script='cyrillic'), {})
  plain = sampled(models, tokenizer)
  for c, other in zip(sampled(models, tokenizer, strange), plain):
    for m, r, before in zip(c.responses, c.rewards, other.rewards):
      letters = any(x.isalpha() for x in m.content)
      assert r == (reject.CUT if letters else before)


@pytest.mark.parametrize(
  'told, text, fits',
  [
    (dict(script='latin'), 'Two and two', True),
    (dict(script='latin'), 'Два и два', False),
    (dict(script='cyrillic'), 'Два и два и two', True),
    (dict(script='latin'), '2 + 2 = 4', True),
    (dict(language='de'), 'Das ist ein ganz gewöhnlicher deutscher Satz.', True),
    (dict(language='de'), 'This is quite an ordinary English sentence.', False),
    ({}, 'anything', True),
  ],
)
def test_language_and_script(told, text, fits):
  assert Policy(**told).fits(text) == fits


def config(tmp_path, rows):
  from configs import reject as reject_config

  c = reject_config.get_config()
  if rows is not None:
    path = tmp_path / 'policies.json'
    path.write_text(rows if isinstance(rows, str) else json.dumps(rows))
    c.policies = str(path)
  return c


def test_policies_are_read_over_those_of_the_config(tmp_path):
  rows = {'maths': {'temperature': 0.2, 'system': 'Be brief.', 'max_new': 99}}
  found = policy.of(config(tmp_path, rows), 300)
  assert found['maths'].settings.temperature == 0.2
  assert found['maths'].system == 'Be brief.' and found['other'].system == ''
  assert found['other'].settings == found.default.settings
  assert found['maths'].settings.vocab_size == 300 and found.longest == 99


@pytest.mark.parametrize(
  'rows, said',
  [
    ('{', 'no JSON'),
    ([1], 'must be'),
    ({'maths': 3}, 'must be'),
    ({'maths': {'temprature': 1}}, 'maths.temprature: nothing reads it'),
    ({'maths': {'temperature': 'hot'}}, 'maths.temperature'),
    ({'maths': {'temperature': -1}}, 'temperature'),
    ({'maths': {'system': 3}}, 'maths.system must be a text'),
    ({'maths': {'vocab_size': 3}}, 'vocab_size'),
  ],
)
def test_wrong_policies_are_named(tmp_path, rows, said):
  with pytest.raises(UserError, match=said):
    policy.of(config(tmp_path, rows), 300)


def test_a_missing_file_of_policies_is_named(tmp_path):
  c = config(tmp_path, None)
  c.policies = str(tmp_path / 'none.json')
  with pytest.raises(UserError, match='policies=.*No such file'):
    policy.of(c, 300)


def candidates(rewards, second=None, lengths=None):
  lengths = lengths or [1] * len(rewards)
  said = tuple(Message('assistant', 'a' * n) for n in lengths)
  others = {'second': tuple(second)} if second else {}
  return Candidates((Message('user', 'q'),), said, tuple(rewards), others=others)


def test_the_minimum_takes_what_both_models_like():
  found = [
    candidates([9.0, 2.0, 0.0, 1.0], [-3.0, 2.0, 0.0, 1.0]),
    candidates([1.0, 0.0, reject.CUT, -1.0], [1.0, 0.0, reject.CUT, -1.0]),
  ]
  assert [c.best for c in found] == [0, 0]
  by = choice.chosen(found, 'minimum')
  assert [c.best for c in by] == [1, 0] and by[1].rewards[2] == reject.CUT
  assert [c.best for c in choice.chosen(found, 'reward')] == [0, 0]


def test_length_is_taken_out_of_the_reward_within_prompts():
  """Rewards that are log length and something else: the something chooses."""
  rng = np.random.default_rng(0)
  found, wanted = [], []
  for i in range(40):
    lengths = (2 ** rng.permutation(8)).tolist()
    own = rng.standard_normal(8)
    rewards = own + 8 * np.log1p(lengths) + i  # prompts differ too
    wanted.append(int(np.argmax(own)))
    found.append(candidates(rewards.tolist(), lengths=lengths))
  right = lambda by: np.mean([c.best == w for c, w in zip(by, wanted)])
  assert right(choice.chosen(found, 'reward')) < 0.5
  assert right(choice.chosen(found, 'length')) > 0.9


def test_answers_that_agree_win_over_one_that_is_liked_too_well():
  said = ['4', '5', '4 ', '4', '7', '6']
  rewards = (1.0, 2.5, 1.0, 1.1, reject.CUT, 0.0)
  one = Candidates(
    (Message('user', 'q'),), tuple(Message('assistant', t) for t in said), rewards
  )
  assert choice.chosen([one], 'reward')[0].best == 1
  [by] = choice.chosen([one], 'votes')
  assert by.best == 3 and by.rewards[4] == reject.CUT
  single = candidates([1.0, 2.0])
  assert choice.chosen([single], 'votes')[0].best == 1  # both say the same


def test_votes_hold_where_the_reward_alone_is_exploited():
  """Right answers are one text, wrong ones are all different and scored with noise."""
  rng = np.random.default_rng(0)
  found, right = [], []
  for _ in range(200):
    true = rng.random(16) < 0.5
    texts = ['yes' if t else f'no {i}' for i, t in enumerate(true)]
    rewards = np.where(true, 0.5, rng.standard_normal(16))
    said = tuple(Message('assistant', t) for t in texts)
    found.append(Candidates((Message('user', 'q'),), said, tuple(rewards.tolist())))
    right.append(true)
  at = lambda how: {
    p['k']: p['right'] for p in choice.curve(found, how, {'right': np.array(right)})
  }
  alone, votes = at('reward'), at('votes')
  assert alone[1] == pytest.approx(votes[1], abs=0.03)
  assert alone[16] < alone[1] - 0.2 and votes[16] > 0.95
  assert [votes[k] for k in (2, 4, 8)] == sorted(votes[k] for k in (2, 4, 8))


def test_drawn_subsets_have_the_mean_of_all():
  rng = np.random.default_rng(0)
  rewards, exact = rng.standard_normal((300, 8)), rng.integers(0, 2, (300, 8))
  take = lambda rows, picked: rewards[rows[:, None], picked]
  points = best_of_k.drawn(rewards, take, {'exact': exact})
  for a, b in zip(points, best_of_k.curve(rewards, {'exact': exact}), strict=True):
    assert a['k'] == b['k'] and a['reward'] == pytest.approx(b['reward'], abs=0.03)
    assert a['exact'] == pytest.approx(b['exact'], abs=0.03)


def test_a_reward_that_is_exploited_is_seen():
  """The truth follows the reward but for the rare answers that exploit it."""
  rng = np.random.default_rng(0)
  true = rng.standard_normal((400, 16))
  trap = rng.random((400, 16)) < 0.06
  rewards = true + np.where(trap, 5, 0)
  points = best_of_k.curve(rewards, {'true': np.where(trap, -2, true)})
  assert best_of_k.peak(points, 'reward') == 16
  assert best_of_k.peak(points, 'true') in (2, 4)
  at = {p['k']: p for p in points}
  assert at[16]['true'] + at[16]['true_ci'] < at[4]['true'] - at[4]['true_ci']
  assert math.isclose(at[1]['true'], np.where(trap, -2, true).mean())


def test_parts_are_written_by_any_host_and_once(tmp_path):
  calls = []

  def work(number):
    calls.append(number)
    path = parts.path(tmp_path, number)
    path.write_text(json.dumps({'n': number}) + '\n')
    return 1

  parts.path(tmp_path, 0).parent.mkdir()
  for number in (1, 3):
    work(number)  # those of the other host
  parts.run(tmp_path, work, 4, hosts=2, host=0)
  assert calls == [1, 3, 0, 2]
  parts.run(tmp_path, work, 4)
  assert calls == [1, 3, 0, 2]
  assert [row['n'] for row in parts.rows(tmp_path, 4)] == [0, 1, 2, 3]
  with pytest.raises(UserError, match='host=2'):
    parts.run(tmp_path, work, 4, hosts=2, host=2)
