"""Weights of few bits in recipes: they reach the engine, wrong ones are one line."""

import dataclasses
import json

import jax
import numpy as np
import post_examples as toy
import pytest

from configs import evaluate as evaluate_config
from configs import generate as generate_config
from configs import scores as scores_config
from experiments import evaluate
from experiments import generate
from experiments import scores
from llama3_jax import config as configs
from llama3_jax.base.errors import UserError
from llama3_jax.model import llama
from llama3_jax.post import reward
from llama3_jax.train import final

CONFIG = dataclasses.replace(toy.CONFIG, n_layers=3)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  """A folder with a model of three layers, a reward model and prompts."""
  folder = tmp_path_factory.mktemp('scores')
  tokenizer = toy.tokenizer(folder)
  made = jax.jit(llama.init, static_argnums=1)(jax.random.key(0), CONFIG)
  made = made.replace(layers=jax.tree.map(lambda x: 3 * x, made.layers))
  scorer = reward.init(jax.random.key(1), made, CONFIG)
  final.save(folder / 'base' / 'final', made, CONFIG, tokenizer)
  final.save(folder / 'reward' / 'final', scorer, CONFIG, tokenizer)
  rows = [{'prompt': f'text {i}'} for i in range(6)]
  (folder / 'p.jsonl').write_text('\n'.join(map(json.dumps, rows)))
  return folder


def scores_of(root, **more):
  given = {'init_from': str(root / 'base'), 'reward_from': str(root / 'reward')}
  given |= {'sample.max_new': 4, 'batch': 2, 'samples': 3}
  given |= {'data.tasks': 0, 'data.files': (str(root / 'p.jsonl'),)}
  return configs.edit(scores_config.get_config(), given | more)


def test_three_times_the_answers_are_scored_and_written(root, tmp_path):
  found = scores.main(scores_of(root), tmp_path / 'run')
  assert found['prompts'] == 6 and found['answers'] == 18
  assert list(found['scores']) == ['whole weights', 'another seed', 'fp8']
  assert 0 < found['distance'] <= found['seeds']
  assert not any('exact' in each for each in found['scores'].values())
  assert json.loads((tmp_path / 'run/results.json').read_text()) == found
  assert 'another seed' in (tmp_path / 'run/report.html').read_text()
  # A second start does no work, and may ask for more.
  assert scores.main(scores_of(root, require=True), tmp_path / 'run') == found


def test_a_verdict_may_be_required(root, tmp_path, monkeypatch):
  judge = scores.scores.judge
  beyond = lambda *a: judge(*a) | {'verdict': 'beyond'}
  monkeypatch.setattr(scores.scores, 'judge', beyond)
  scores.main(scores_of(root), tmp_path / 'run')
  with pytest.raises(UserError, match='require: fp8.* beyond'):
    scores.main(scores_of(root, require=True), tmp_path / 'run')


def test_tasks_are_also_checked(root, tmp_path):
  more = {'data.tasks': 4, 'data.task_names': ('copy', 'sort'), 'cap': 0.0}
  found = scores.main(scores_of(root, **more), tmp_path / 'run')
  assert found['prompts'] == 10
  assert all(0 <= each['exact'] <= 1 for each in found['scores'].values())


def test_generate_samples_with_weights_of_few_bits(root, tmp_path):
  given = {'init_from': str(root / 'base'), 'files': (str(root / 'p.jsonl'),)}
  given |= {'sample.max_new': 24, 'batch': 2, 'sample.temperature': 1.0}

  def texts(weights):
    config = configs.edit(generate_config.get_config(), given | {'weights': weights})
    generate.main(config, tmp_path / f'run{weights}')
    return (tmp_path / f'run{weights}/completions.jsonl').read_text()

  assert len({texts(''), texts('fp8'), texts('int8_weights')}) == 3


@pytest.mark.parametrize('config_of', [evaluate_config, generate_config])
def test_unknown_weights_are_refused_before_a_model_is_read(config_of, tmp_path):
  config = configs.edit(config_of.get_config(), {'weights': 'fp4'})
  config.init_from = str(tmp_path / 'nowhere')
  if config_of is generate_config:
    config.prompt = 'a'
  recipe = {evaluate_config: evaluate, generate_config: generate}[config_of]
  with pytest.raises(UserError, match="weights='fp4'.*fp8_weights") as e:
    recipe.main(config, str(tmp_path / 'run'))
  assert '\n' not in str(e.value)


def test_losses_with_weights_of_few_bits_are_refused(root, tmp_path):
  given = {'weights': 'fp8', 'text': ('a.txt',), 'init_from': str(root / 'base')}
  config = configs.edit(evaluate_config.get_config(), given)
  (tmp_path / 'a.txt').write_text('a')
  config.text = (str(tmp_path / 'a.txt'),)
  with pytest.raises(UserError, match='leave text and shards.root empty'):
    evaluate.main(config, str(tmp_path / 'run'))


def test_evaluation_asks_with_weights_of_few_bits(root, tmp_path, monkeypatch):
  seen = []
  usual = evaluate.run.answering.weighed
  monkeypatch.setattr(
    evaluate.run.answering, 'weighed', lambda p, *a: seen.append(p) or usual(p, *a)
  )
  given = {'weights': 'fp8', 'init_from': str(root / 'base'), 'tasks': ('copy',)}
  given |= {'examples': 2, 'max_new': 4, 'batch': 4}
  config = configs.edit(evaluate_config.get_config(), given)
  evaluate.main(config, str(tmp_path / 'run'))
  kinds = {getattr(p.layers[1].w_up, 'kind', '') for p in seen}
  assert kinds == {'fp8'} and np.isfinite(seen[0].layers[0].w_up).all()
