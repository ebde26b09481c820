"""Rounds of a given model in miniature: complete, resumed, and what cannot be."""

import json
import os
import shutil

import post_examples as toy
import pytest

from configs import herd as herd_config
from configs import rounds as rounds_config
from experiments import rounds
from llama3_jax import config as configs
from llama3_jax.base import files
from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError
from llama3_jax.data import assets
from llama3_jax.data import people
from llama3_jax.eval import paired
from llama3_jax.post import preference
from llama3_jax.train import final


def write(path, text):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(text, encoding='utf-8')


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  """A toy model with a byte vocabulary, and small files in the form of public ones."""
  root = tmp_path_factory.mktemp('rounds')
  final.save(root / 'model/final', toy.model(), toy.CONFIG, toy.tokenizer(root))
  labels = dict.fromkeys(people.LABELS, 1)
  asked = [
    {'instruction': f'Say {i}.', 'input': '', 'response1': f'{i}', 'response2': '?'}
    for i in range(8)
  ]
  write(root / 'data' / people.PANDALM, json.dumps([row | labels for row in asked]))
  problem = lambda i: json.dumps({'question': f'{i}+1?', 'answer': f'It is.\n#### {i}'})
  for name in (assets.GSM8K, 'gsm8k/test.jsonl'):
    start = 10 * (name == assets.GSM8K)
    write(root / 'data' / name, '\n'.join(map(problem, range(start, start + 6))))
  return root


def small(root):
  c = rounds_config.get_config('smollm2')
  steps = dict(batch=2, steps=2, length=160, save_every=1, eval_every=2, log_every=1)
  given = {
    f'{s}.train.{k}': v for s in ('reward', 'sft', 'dpo') for k, v in steps.items()
  }
  given |= {f'{s}.part.rank': 0 for s in ('reward', 'sft', 'dpo')}
  given |= {'data': str(root / 'data'), 'init_from': str(root / 'model'), 'rounds': 1}
  given |= {'task_names': ('copy', 'gsm8k='), 'assets.sets': ('pandalm',)}
  given |= {'assets.most': 4, 'assets.heldout': 2, 'assets.dialogs': 4}
  given |= {'reject.samples': 4, 'reject.sample.max_new': 64, 'reject.data.tasks': 4}
  given |= {'evaluate.tasks': ('copy', 'gsm8k='), 'evaluate.fewer': (('gsm8k', 2),)}
  given |= {'evaluate.examples': 3, 'evaluate.longest_answer': 4, 'evaluate.batch': 4}
  given |= {'annotate.sample.max_new': 4, 'annotate.batch': 4}
  given |= {'judges': ('reward', f'likelihood={root / "model"}')}
  return configs.edit(c, given)


@pytest.fixture(scope='module')
def run(root):
  return rounds.main(small(root), str(root / 'run')), root / 'run'


def test_a_round_is_complete_and_says_what_it_changed(run):
  results, folder = run
  found = results['figures']
  names = ['round 0', 'SFT of round 1', 'DPO of round 1']
  assert list(found['evaluation']) == names
  assert {t for tasks in found['evaluation'].values() for t in tasks} == {
    'copy',
    'gsm8k',
    'macro',
  }
  assert [(c['before'], c['after']) for c in found['paired']] == [
    (names[0], names[1]),
    (names[1], names[2]),
    (names[0], names[2]),
  ]
  assert all(c['tasks']['all']['n'] == 5 for c in found['paired'])
  assert set(found['wins']) == set(found['judges']) == {'reward', 'likelihood'}
  assert found['judges']['likelihood']['judged'] == 2
  assert found['people']['1']['pandalm']['n'] == 2
  assert any(name in results['findings'][1] for name in names)
  page = (folder / 'report.html').read_text('utf-8')
  assert 'Paired differences' in page and 'agrees with people' in page
  assert len(found['dialogs']) == 4  # two of each task, before and after


def test_what_cannot_be_right_is_not_finetuned_on_and_rows_name_their_round(run):
  _, folder = run
  kept = [row for _, row in jsonl.read(folder / 'reject_1/sft.jsonl', '')]
  of_people = [r for r in kept if r['messages'][0]['content'].startswith('Say ')]
  assert kept and len(kept) == len(
    of_people
  )  # no answer of a random model to a task is right
  rows = preference.read(folder / 'reject_1/preferences.jsonl')
  assert rows and {row.round for row in rows} == {1}


def test_a_finished_run_does_nothing_and_an_unfinished_one_goes_on(run, root):
  results, folder = run
  before = {p: os.stat(p).st_mtime_ns for p in folder.glob('*/final/*')}
  shutil.rmtree(folder / 'evaluate_sft_1')
  os.remove(folder / 'results.json')
  again = rounds.main(small(root), str(folder))
  assert again['figures']['evaluation'] == results['figures']['evaluation']
  assert {p: os.stat(p).st_mtime_ns for p in folder.glob('*/final/*')} == before
  assert files.read_json(folder / 'results.json')['findings'] == again['findings']
  assert paired.of_runs(folder / 'evaluate_start', folder / 'evaluate_sft_1')


def test_without_data_nothing_starts(root, tmp_path):
  config = configs.edit(small(root), {'data': ''})
  with pytest.raises(UserError, match='data is empty: name a folder'):
    rounds.main(config, str(tmp_path))


def test_the_herd_of_smollm2_is_these_rounds():
  assert herd_config.get_config('smollm2').experiment == 'rounds'
  assert rounds_config.get_config().reward.part.rank == 0
