"""Rollouts, their rewards, and whole runs of GRPO and PPO on checkable sums."""

import contextlib
import math

import jax
import numpy as np
import policies
import post_examples as toy
import pytest
import toy_chat
import toy_run
from toy_tasks import sums

from configs import grpo as grpo_config
from configs import ppo as ppo_config
from experiments import grpo
from experiments import ppo
from llama3_jax import config as configs
from llama3_jax import mesh
from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError
from llama3_jax.generate import engine
from llama3_jax.generate.engine import Completion
from llama3_jax.model import llama
from llama3_jax.post import learner
from llama3_jax.post import reward
from llama3_jax.post import rollout
from llama3_jax.post import verdicts
from llama3_jax.tasks import task
from llama3_jax.train import final
from llama3_jax.train import metrics
from llama3_jax.train import models
from llama3_jax.train import step

C = rollout.RolloutConfig(samples=3, max_new=6, rows=6)
LENGTH = 64


@pytest.fixture(scope='module')
def tokenizer(tmp_path_factory):
  return toy.tokenizer(tmp_path_factory.mktemp('vocabulary'))


@pytest.fixture(scope='module')
def asked(tokenizer):
  return policies.prompts(tokenizer, ['1+1?', '2+3?', '1+1?'])


@pytest.fixture(scope='module')
def sampler(tokenizer):
  return rollout.Sampler(toy.CONFIG, tokenizer, C, LENGTH)


@pytest.fixture(scope='module')
def groups(sampler, asked):
  return sampler.answers(toy.model(), asked, 3, seed=5)


def test_rows_hold_what_was_sampled_and_its_probabilities(asked, groups):
  rows = rollout.rows(asked, groups, LENGTH)
  every = [(p, one) for p, group in zip(asked, groups) for one in group]
  assert len(rows.tokens) == len(every) == 9
  for i, (prompt, one) in enumerate(every):
    weighted = rows.weight[i] > 0
    assert tuple(rows.targets[i][weighted]) == one.sampled
    assert np.flatnonzero(weighted)[0] == len(prompt.ids) - 1
    np.testing.assert_allclose(rows.old[i][weighted], one.logps)
  found = rollout.logps(toy.model(), rows, toy.CONFIG, 4, 0)
  expected = policies.forward(toy.model(), rows) * rows.weight
  np.testing.assert_allclose(found, expected, atol=1e-4)
  assert rollout.gap(rows, found) < 1e-4
  assert rollout.gap(rows, found + 0.5 * rows.weight) == pytest.approx(0.5, abs=1e-4)


def test_equal_prompts_of_a_step_get_other_answers(groups):
  assert [one.sampled for one in groups[0]] != [one.sampled for one in groups[2]]


def test_answers_are_those_of_the_weights_that_are_given(
  sampler, asked, groups, tokenizer
):
  other = sampler.answers(toy.model(7), asked, 3, seed=5)
  fresh = rollout.Sampler(toy.CONFIG, tokenizer, C, LENGTH)
  assert other == fresh.answers(toy.model(7), asked, 3, seed=5) != groups
  assert sampler.answers(toy.model(), asked, 3, seed=5) == groups
  assert sampler.answers(toy.model(), asked, 3, seed=6) != groups


def test_prompts_of_a_chat_template_are_answered_and_judged():
  library = toy_chat.byte_level()
  example = task.Example('1+1?', '2', task='toy_tasks.sums')
  [prompt] = policies.prompts(library, ['1+1?'])
  prompt = rollout.Prompt(prompt.messages, prompt.ids, example)
  sampler = rollout.Sampler(toy.CONFIG, library, C, LENGTH)
  [group] = sampler.answers(toy.model(), [prompt], 3, seed=1)
  found = verdicts.Judge(library, C)([prompt], [group])
  assert len(group) == 3 and all(max(one.sampled) < 261 for one in group)
  assert len(found.rewards) == 3 and found.said['exact'] == 0
  digit = library.encode('2')
  right = Completion(tuple(digit), (0.0,), True, library.stop_ids[0])
  assert verdicts.Judge(library, C)([prompt], [[right]]).said['exact'] == 1


def test_too_few_pages_are_one_line(tokenizer, asked):
  small = rollout.RolloutConfig(samples=3, max_new=6, rows=6, pages=2)
  short = rollout.Sampler(toy.CONFIG, tokenizer, small, LENGTH)
  with pytest.raises(UserError, match='there are 2: lower rollout.samples or'):
    short.answers(toy.model(), asked, 3, seed=0)


def said(*texts):
  """Completions of texts; one that begins with - was cut off."""
  made = []
  for text in texts:
    ids = tuple(text.strip('-').encode())
    made.append(Completion(ids, (0.0,) * len(ids), not text.startswith('-')))
  return made


def judged(tokenizer, scores=None, c=C):
  """Verdicts on four answers to a sum: right, wrong, cut off, right."""
  prompt = policies.prompts(tokenizer, ['1+1?'])[0]
  example = task.Example('1+1?', '2', task='toy_tasks.sums')
  prompt = rollout.Prompt(prompt.messages, prompt.ids, example)
  judge = verdicts.Judge(tokenizer, c)
  if scores is not None:
    judge.scorer, judge.model, judge.name = 'a model', toy.CONFIG, 'runs/reward'
  return judge([prompt], [said('2', '3', '-2', '2')])


def test_rewards_are_of_tasks_and_of_the_reward_model(tokenizer, monkeypatch):
  plain = judged(tokenizer)
  np.testing.assert_allclose(plain.rewards, [1, 0, -1, 1])  # cut: the lowest less 1
  assert plain.valid.all() and plain.said['exact'] == 0.5 and plain.said['cut'] == 0.25
  values = np.array([0.5, 2.0, 9.0, -3.0], np.float32)
  monkeypatch.setattr(verdicts.together, 'rewards', lambda *a: [values])
  c = rollout.RolloutConfig(task=2.0, model=0.5, cut=0.25)
  both = judged(tokenizer, values, c)
  np.testing.assert_allclose(both.rewards, [2.25, 1.0, 0.25, 0.5])


def test_rewards_that_are_no_numbers_are_left_out_and_counted(tokenizer, monkeypatch):
  values = np.array([np.nan, 1.0, np.inf, 2.0], np.float32)
  monkeypatch.setattr(verdicts.together, 'rewards', lambda *a: [values])
  found = judged(tokenizer, values)
  assert found.valid.tolist() == [False, True, True, True]
  assert np.all(np.isfinite(found.rewards)) and found.said['bad_rewards'] == 1
  values[:] = np.nan
  with pytest.raises(UserError, match='reward_from=runs/reward: none of 3 rewards'):
    judged(tokenizer, values)


def test_steps_without_an_answer_are_counted_and_end_the_run():
  made = learner.Learner(Update(), play_nothing, (), C, 0, most=3)
  state = State(np.int32(0))
  for _ in range(2):
    state, found = made(state, Batch())
    assert float(found['updates']) == 0 and math.isfinite(float(found['loss']))
  with pytest.raises(UserError, match='rollout.max_new=6 tokens in 3 steps in a row'):
    made(state, Batch())


class Update:
  """A step of training that must not run."""

  loss = guard = start = None
  whole = staticmethod(lambda state: None)


class Batch:
  number = np.zeros(0, np.int32)


class State:
  def __init__(self, step):
    self.step = step

  def replace(self, step):
    return State(step)


def play_nothing(params, prompts, number):
  return policies.empty(rollout.Answers, (3, 8)), {'cut': 1.0}


def test_a_step_goes_over_its_answers_in_another_order_each_time():
  c = rollout.RolloutConfig(samples=1, epochs=2, minibatch=2)
  rows = policies.empty(rollout.Answers, (6, 4))
  rows.weight[:] = 1
  rows.tokens[:, 0] = np.arange(6)
  rows.weight[4] = 0
  made = learner.Learner(Update(), None, (), c, 3, 1)
  order = lambda number: [
    p.tokens[:, 0].tolist() for p in made._minibatches(rows, number)
  ]
  first = order(0)
  assert len(first) == 6 and sorted(sum(first[:3], [])) == list(range(6))
  assert first[:3] != first[3:] and first == order(0) != order(1)


@pytest.fixture(scope='module')
def taught(tmp_path_factory):
  """The folder of a model that answers sums, wrong in 60% of its rows."""
  folder = tmp_path_factory.mktemp('sums')
  sums.model(folder)
  return folder


def config(recipe, folder, steps, batch=256):
  c = recipe.get_config()
  c.init_from, c.reward_from = str(folder / 'sums'), ''
  c.data.tokenizer = str(folder / 'bytes.model')
  c.data.update(dict(tasks=400, heldout_tasks=60, task_names=('toy_tasks.sums',)))
  c.rollout.update(dict(max_new=4, minibatch=batch // 4))
  c.rollout.samples = 8 if recipe is grpo_config else 2
  c.train.update(dict(steps=steps, batch=batch, save_every=1, eval_every=0))
  c.optim.update(dict(peak=5e-4, warmup=1))
  return c


def rises(folder, found):
  """Exact match rises by more than the intervals of both ends; the distance from the
  start is bounded."""
  logged = [row for row in metrics.read(folder) if 'exact' in row]
  first, last = logged[0]['exact'], logged[-1]['exact']
  spread = [1.96 * math.sqrt(p * (1 - p) / 256) for p in (first, last)]
  assert last - first > sum(spread), (first, last)
  assert max(row['kl'] for row in logged) < 0.5 and logged[-1]['kl'] > 0
  before = next(r for r in metrics.read(folder) if 'eval/exact' in r)
  assert found['score'] > before['eval/exact']
  assert max(row['engine_gap'] for row in logged) < 1e-4
  page = (folder / 'report.html').read_text('utf-8')
  assert 'nats a token from the start' in page.lower()


def test_grpo_teaches_sums_by_more_than_the_interval(taught, monkeypatch):
  made, plain = [], engine.Engine.__init__

  def count(self, *a, **k):
    made.append(self)
    plain(self, *a, **k)

  monkeypatch.setattr(engine.Engine, '__init__', count)
  folder = taught / 'grpo'
  rises(folder, grpo.main(config(grpo_config, taught, 6), str(folder)))
  assert len(made) == 1  # the weights are swapped in it


def test_ppo_teaches_sums_by_more_than_the_interval(taught):
  folder = taught / 'ppo'
  rises(folder, ppo.main(config(ppo_config, taught, 6), str(folder)))
  assert models.config(folder) == models.config(taught / 'sums')


@pytest.mark.parametrize('recipe', [grpo, ppo])
def test_a_run_that_died_between_a_rollout_and_its_updates_goes_on_to_the_same_bits(
  taught, monkeypatch, recipe
):
  module = grpo_config if recipe is grpo else ppo_config
  c = config(module, taught, 3, batch=32)
  whole, broken = (taught / f'{recipe.__name__}_{name}' for name in 'ab')
  recipe.main(c, str(whole))
  calls, plain = [], step.TrainStep.__call__

  def dies(self, state, batch):
    calls.append(0)
    if len(calls) == 7:  # of 4 a step: inside the second
      raise toy_run.Dies
    return plain(self, state, batch)

  with monkeypatch.context() as patch:
    patch.setattr(step.TrainStep, '__call__', dies)
    with pytest.raises(toy_run.Dies):
      recipe.main(c, str(broken))
  recipe.main(c, str(broken))
  toy_run.equal(models.load(whole)[0], models.load(broken)[0])
  assert toy_run.steady(whole) == toy_run.steady(broken)


def test_adapters_alone_are_trained_and_the_rest_stays(taught):
  c = config(grpo_config, taught, 2, batch=32)
  c.part.rank = 2
  c.rollout.stop_kl = 1e-9  # and each step ends at its second update
  grpo.main(c, str(taught / 'adapters'))
  before, _ = models.load(taught / 'sums')
  after, _ = models.load(taught / 'adapters')
  assert np.array_equal(before.embed, after.embed)
  assert not np.array_equal(before.layers.wq, after.layers.wq)
  logged = [row for row in metrics.read(taught / 'adapters') if 'updates' in row]
  assert all(row['updates'] < 4 for row in logged)


def test_a_reward_model_judges_and_one_of_other_words_is_refused(taught, tmp_path):
  c = config(ppo_config, taught, 1, batch=16)
  model = reward.init(jax.random.key(0), toy.model(2), toy.CONFIG)
  final.save(tmp_path / 'scorer' / 'final', model, toy.CONFIG)
  c.reward_from = str(tmp_path / 'scorer')
  c.data.tasks = c.data.heldout_tasks = 0
  rows = [{'prompt': f'{i}?', 'responses': ['a', 'b']} for i in range(9)]
  jsonl.write(tmp_path / 'rows.jsonl', rows)
  c.data.files = (str(tmp_path / 'rows.jsonl'),)
  c.data.heldout = 0.2
  found = ppo.main(c, str(tmp_path / 'run'))
  assert found['prompts'] == 7 and math.isfinite(found['eval/model_score'])
  with pytest.raises(UserError, match='reward_from is empty'):
    ppo.main(configs.edit(c, {'reward_from': ''}), str(tmp_path / 'none'))
  few = configs.model_config(
    configs.model_fields(toy.CONFIG).to_dict() | {'vocab_size': 300}
  )
  small = jax.jit(reward.init, static_argnums=2)
  narrow = small(jax.random.key(0), llama.init(jax.random.key(0), few), few)
  final.save(tmp_path / 'narrow' / 'final', narrow, few)
  c.reward_from = str(tmp_path / 'narrow')
  with pytest.raises(UserError, match='has 300 tokens and the vocabulary of init_from'):
    ppo.main(c, str(tmp_path / 'refused'))


def test_questions_of_files_are_checked(tokenizer, tmp_path):
  rows = [{'question': f'{i}+0?', 'answer': str(i)} for i in range(10)]
  jsonl.write(tmp_path / 'qa.jsonl', rows)
  c = grpo_config.get_config()
  c.data.update(dict(tasks=0, heldout_tasks=0, heldout=0.2))
  c.data.files = (str(tmp_path / 'qa.jsonl'),)
  train, held = (rollout.prompts(c, tokenizer, s) for s in ('train', 'heldout'))
  texts = [{p.messages[0].content for p in part} for part in (train, held)]
  assert [len(t) for t in texts] == [8, 2] and not texts[0] & texts[1]
  assert all(p.example.answer + '+0?' == p.messages[0].content for p in train)


@pytest.mark.parametrize(
  'change',
  [
    {'rollout.samples': 5},
    {'rollout.minibatch': 7},
    {'train.replay_every': 2},
    {'train.microbatches': 3},
  ],
)
def test_numbers_that_do_not_divide_are_one_line(asked, change):
  c = configs.edit(grpo_config.get_config(), {'train.batch': 64, **change})
  [path] = change
  with pytest.raises(UserError, match=path):
    learner.settle(c, toy.CONFIG, asked)


def test_a_step_on_a_mesh_is_that_of_one_device(taught):
  sizes = dict(replica=1, fsdp=2, stage=1, context=2, tensor=2)
  c, logged = config(grpo_config, taught, 1, batch=32), []
  for name, ambient in (('one', contextlib.nullcontext()), ('mesh', None)):
    with ambient or jax.set_mesh(mesh.create(sizes)):
      grpo.main(c, str(taught / name))
    logged.append(next(r for r in metrics.read(taught / name) if 'loss' in r))
  one, several = logged
  for field in ('loss', 'grad_norm', 'exact', 'moved', 'answer_tokens'):
    assert several[field] == pytest.approx(one[field], rel=2e-2, abs=1e-4), field
  assert several['engine_gap'] < 1e-4
