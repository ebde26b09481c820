"""Post-training in miniature: every experiment on a toy model, in a chain."""

import json

import jax
import numpy as np
import post_examples as toy
import pytest
import toy_post

from configs import average as average_config
from configs import dpo as dpo_config
from configs import evaluate as evaluate_config
from configs import reject as reject_config
from configs import reward as reward_config
from configs import sft as sft_config
from experiments import average
from experiments import dpo
from experiments import evaluate
from experiments import reject
from experiments import reward
from experiments import sft
from llama3_jax import override
from llama3_jax.base.errors import UserError
from llama3_jax.post import reward as rewards
from llama3_jax.text.tokenizer import Tokenizer
from llama3_jax.train import final
from llama3_jax.train import models

root = toy_post.root  # fixture


def rows(path):
  return [json.loads(line) for line in path.read_text().split('\n') if line]


@pytest.fixture(scope='module')
def chain(root):
  """Results of all stages: SFT, reward model, rejection, DPO."""
  found = {}
  config = toy_post.training(sft_config.get_config('tiny'), root, 'base')
  found['sft'] = sft.main(config, str(root / 'sft'))
  config = toy_post.training(reward_config.get_config('tiny'), root, 'base')
  found['reward'] = reward.main(config, str(root / 'reward'))
  config = reject_config.get_config()
  config.init_from, config.reward_from = str(root / 'sft'), str(root / 'reward')
  config.data.tokenizer = str(root / 'bytes.model')
  config.update(dict(samples=3, batch=4))
  config.data.tasks, config.sample.max_new = 6, 6
  found['reject'] = reject.main(config, str(root / 'reject'))
  config = toy_post.training(dpo_config.get_config('tiny'), root, 'sft')
  found['dpo'] = dpo.main(config, str(root / 'dpo'))
  return found


def test_rejection_on_ray_gives_the_files_of_one_process(chain, root, tmp_path):
  pytest.importorskip('ray', reason="needs the extra: pip install -e '.[ray]'")
  pytest.importorskip('daft', reason="needs the extra: pip install -e '.[ray]'")
  config = reject_config.get_config()
  config.init_from, config.reward_from = str(root / 'sft'), str(root / 'reward')
  config.data.tokenizer = str(root / 'bytes.model')
  config.update(dict(samples=3, batch=4, part=2, engine='ray'))
  config.data.tasks, config.sample.max_new = 6, 6
  assert reject.main(config, str(tmp_path / 'ray')) == chain['reject']
  for name in ('sft.jsonl', 'preferences.jsonl', 'candidates.jsonl'):
    whole, parts = (rows(at / name) for at in (root / 'reject', tmp_path / 'ray'))
    close = lambda row: {k: v for k, v in row.items() if 'reward' not in k}
    assert list(map(close, parts)) == list(map(close, whole))


def test_a_policy_that_no_prompt_has_is_named(chain, root, tmp_path):
  path = tmp_path / 'policies.json'
  path.write_text(json.dumps({'aritmetic': {'temperature': 0.1}}))
  config = reject_config.get_config()
  config.init_from, config.reward_from = str(root / 'sft'), str(root / 'reward')
  config.data.tokenizer, config.policies = str(root / 'bytes.model'), str(path)
  config.data.tasks = 10
  with pytest.raises(UserError, match="no prompt is of 'aritmetic'.*'arithmetic'"):
    reject.main(config, str(tmp_path / 'run'))


def test_stages_train_and_leave_their_results(chain, root):
  for stage in ('sft', 'reward', 'dpo'):
    logged = rows(root / stage / 'metrics.jsonl')
    losses = [row['loss'] for row in logged if 'loss' in row]
    assert len(losses) == 3 and np.all(np.isfinite(losses))
    assert any('eval_loss' in row for row in logged)
    assert (root / stage / 'final' / 'model.json').exists()
  assert 0 <= chain['reward']['accuracy'] <= 1
  assert len(chain['reward']['margins']) == chain['reward']['n']


def test_first_dpo_step_has_the_loss_of_the_reference(chain, root):
  first = rows(root / 'dpo' / 'metrics.jsonl')[0]
  np.testing.assert_allclose(first['eval/contrast'], np.log(2), rtol=1e-4)
  np.testing.assert_allclose(first['eval/chosen'], 0, atol=1e-3)


def test_log_probabilities_of_the_reference_are_kept(chain, root):
  kept = {p.name for p in (root / 'dpo').glob('*.npz')}
  assert kept == {'reference_train.npz', 'reference_heldout.npz'}


def test_a_reference_that_moves_and_another_loss_train(chain, root):
  config = toy_post.training(dpo_config.get_config('tiny'), root, 'sft')
  config.update(dict(loss='kto', moving=0.5))
  found = dpo.main(config, str(root / 'dpo_moving'))
  losses = [
    r['loss'] for r in rows(root / 'dpo_moving' / 'metrics.jsonl') if 'loss' in r
  ]
  expected = 0.5 + config.nll * found['eval/nll']
  assert losses[0] == pytest.approx(expected, rel=0.3)
  assert np.all(np.isfinite(losses)) and np.isfinite(found['eval_loss'])
  models.load(str(root / 'dpo_moving'))  # the policy alone
  config.part.rank = 2
  with pytest.raises(UserError, match='moving=0.5: .*part.rank=0'):
    dpo.main(config, str(root / 'dpo_low'))


def test_rejection_writes_sft_rows_and_a_curve(chain, root):
  kept = rows(root / 'reject' / 'sft.jsonl')
  assert len(kept) == chain['reject']['kept'] <= chain['reject']['prompts'] == 6
  assert all(row['messages'][-1]['role'] == 'assistant' for row in kept)
  assert [point['k'] for point in chain['reject']['best_of_k']] == [1, 2, 3]
  assert len(rows(root / 'reject' / 'candidates.jsonl')) == 6


def test_finished_stages_are_not_run_again(chain, root):
  config = toy_post.training(sft_config.get_config('tiny'), root, 'base')
  assert sft.main(config, str(root / 'sft')) == chain['sft']


def test_average_lies_between_its_members(chain, root):
  config = average_config.get_config()
  config.members = (str(root / 'sft'), str(root / 'dpo'))
  average.main(config, str(root / 'average'))
  mean, a, b = (models.load(str(root / name))[0] for name in ('average', 'sft', 'dpo'))
  for m, x, y in zip(*map(jax.tree.leaves, (mean, a, b))):
    np.testing.assert_allclose(m, (x + y) / 2, rtol=1e-5, atol=1e-7)


def of(root, name):
  return jax.tree.leaves(models.load(str(root / name))[0])


def averaged(root, name, **fields):
  config = average_config.get_config()
  config.members = (str(root / 'sft'), str(root / 'dpo'))
  config.update(fields)
  return average.main(config, str(root / name))


def test_members_count_by_their_scales(chain, root):
  averaged(root, 'weighted', scales=(3.0, 1.0))
  for m, x, y in zip(of(root, 'weighted'), of(root, 'sft'), of(root, 'dpo')):
    np.testing.assert_allclose(m, 0.75 * x + 0.25 * y, rtol=1e-5, atol=1e-7)


def test_task_vectors_are_added_to_the_base(chain, root):
  start, tokenizer = str(root / 'start'), Tokenizer.load(root / 'bytes.model')
  final.save(root / 'start' / 'final', toy.model(3), toy.CONFIG, tokenizer)
  averaged(root, 'vectors', scales=(1.5, -0.5), base=start)
  averaged(root, 'plain', base=start)
  names = ('vectors', 'plain', 'start', 'sft', 'dpo')
  for m, n, b, x, y in zip(*(of(root, name) for name in names)):
    np.testing.assert_allclose(m, b + 1.5 * (x - b) - 0.5 * (y - b), atol=2e-6)
    np.testing.assert_allclose(n, (x + y) / 2, atol=2e-6)


def test_the_best_by_a_value_of_their_results_are_taken(chain, root):
  values = {str(root / n): chain[n]['eval_loss'] for n in ('sft', 'dpo')}
  for best, choose in (('least', min), ('most', max)):
    found = averaged(root, f'top_{best}', top=1, best=best, scales=(2.0, 3.0))
    assert found['members'] == [choose(values, key=values.get)]
    assert found['values'] == values
    for m, x in zip(of(root, f'top_{best}'), of(root, found['members'][0])):
      np.testing.assert_array_equal(m, x)
  with pytest.raises(
    UserError, match='by=loss: .*sft/results.json has no loss; it has'
  ):
    averaged(root, 'none', top=1, by='loss')
  with pytest.raises(UserError, match='scales: 3 numbers for 2 members'):
    averaged(root, 'none', scales=(1.0, 2.0, 3.0))


def test_reward_models_are_averaged_with_their_heads(chain, root):
  two = tuple(str(root / n) for n in ('reward', 'reward_b'))
  config = toy_post.training(reward_config.get_config('tiny'), root, 'base')
  config.seed = 5
  reward.main(config, two[1])
  averaged(root, 'reward_mean', members=two)
  parts = [
    rewards.load(str(root / n))[0] for n in ('reward_mean', 'reward', 'reward_b')
  ]
  for m, x, y in zip(*map(jax.tree.leaves, parts)):
    np.testing.assert_allclose(m, (x + y) / 2, rtol=1e-5, atol=1e-7)
  with pytest.raises(UserError, match='one is a reward model'):
    averaged(root, 'none', members=(two[0], str(root / 'sft')))


def test_finetuning_takes_a_mix_of_sources(chain, root):
  config = toy_post.training(sft_config.get_config('tiny'), root, 'base')
  config.data.passes = (('copy', 2.0), ('sort', 0.0))
  found = sft.main(config, str(root / 'mixed'))
  mix = found['mix']
  assert mix['copy']['used'] == 2 * mix['copy']['rows'] and mix['sort']['used'] == 0
  assert sum(x['rows'] for x in mix.values()) == found['dialogs'] == 24


def test_evaluation_scores_every_task(chain, root):
  config = evaluate_config.get_config()
  config.init_from, config.tokenizer = str(root / 'dpo'), str(root / 'bytes.model')
  config.update(dict(examples=2, max_new=4, batch=4, tasks=('copy', 'sort')))
  found = evaluate.main(config, str(root / 'evaluate'))
  assert set(found['tasks']) == {'copy', 'sort', 'macro'}
  said = rows(root / 'evaluate' / 'answers.jsonl')
  assert [row['task'] for row in said] == ['copy'] * 2 + ['sort'] * 2
  right = sum(row['score'] for row in said[:2]) / 2
  assert right == found['tasks']['copy']['score']


def test_every_question_of_a_file_is_asked_and_own_text_is_measured(chain, root):
  lines = [
    {'prompt': f'{i}?', 'answer': 'a', 'choices': ['a', 'b']} for i in range(101)
  ]
  (root / 'qa.jsonl').write_text('\n'.join(map(json.dumps, lines)))
  (root / 'text.txt').write_text('some words of text. ' * 40)
  config = evaluate_config.get_config()
  config.init_from, config.tokenizer = str(root / 'dpo'), str(root / 'bytes.model')
  given = {'files': str(root / 'qa.jsonl'), 'own_text': str(root / 'text.txt')}
  override.apply(config, given)
  config.shards.update(dict(batch=4, length=16, batches=100))
  found = evaluate.main(config, str(root / 'evaluate_own'))
  assert found['tasks']['macro']['n'] == 101
  one, tokens = found['text'], 1 + 799 + 1
  assert one['tokens'] == tokens
  assert one['measured'] == tokens - 1  # what the begin_of_text predicts, and on
  bits = one['loss'] / np.log(2) * (tokens - 1) / 799
  assert one['bits_per_byte'] == pytest.approx(bits)


def test_text_alone_asks_no_questions():
  config = evaluate_config.get_config()
  override.apply(config, {'own_text': 'a.txt'})
  assert config.tasks == () and config.text == ('a.txt',)
