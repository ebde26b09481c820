"""Table of a sweep: which members there are, which is best, what is stored."""

import json
import os

import pytest

from configs import pretrain
from llama3_jax import config as configs
from llama3_jax import sweep
from llama3_jax import workdir
from llama3_jax.base import files

PEAKS = (1e-3, 2e-3, 4e-3)


def runs_of(folder, name='optim.peak', values=PEAKS):
  base = pretrain.get_config('tiny')
  return [
    (configs.edit(base, {name: value}), str(folder / str(i)))
    for i, value in enumerate(values)
  ]


def finish(run, **results):
  config, folder = run
  path = workdir.claim(config, folder)
  (path / 'metrics.jsonl').touch()
  files.write_json(path / 'results.json', results)


def test_members_that_are_there_are_listed_and_the_best_is_marked(tmp_path):
  runs = runs_of(tmp_path)
  finish(runs[0], eval_loss={'eval/web': 1.0, 'eval_loss': 2.5})
  finish(runs[2], eval_loss={'eval_loss': 2.25})
  found = sweep.write(tmp_path, runs)
  assert json.loads((tmp_path / 'sweep.json').read_text()) == found
  assert (found['fields'], found['measure']) == (['optim.peak'], 'eval_loss')
  states = ['finished', 'not finished', 'finished']
  assert [m['state'] for m in found['members']] == states
  assert [m['eval_loss'] for m in found['members']] == [2.5, None, 2.25]
  assert [m['optim.peak'] for m in found['members']] == list(PEAKS)
  assert found['best'] == '2'
  head, *lines = sweep.table(found).splitlines()
  assert head.split() == ['member', 'optim.peak', 'eval_loss']
  assert 'not finished' in lines[1] and lines[2].split()[:3] == ['2', '0.004', '2.2500']
  assert [line.endswith('<- best') for line in lines] == [False, False, True]


def test_the_highest_accuracy_is_best(tmp_path):
  runs = runs_of(tmp_path)
  for run, accuracy in zip(runs, (0.5, 0.75, None)):
    finish(run, accuracy=accuracy)
  found = sweep.collect(runs)
  assert (found['measure'], found['best']) == ('accuracy', '1')


def test_a_loss_that_is_no_number_is_not_best(tmp_path):
  runs = runs_of(tmp_path)
  for run, loss in zip(runs, (float('nan'), 3.0, float('inf'))):
    finish(run, eval_loss=loss)
  found = sweep.collect(runs)
  assert found['best'] == '1'
  json.dumps(found, allow_nan=False)


def test_losses_on_other_text_are_not_compared(tmp_path):
  runs = runs_of(tmp_path, 'data.mix.code', (0.08, 0.0, 0.5))
  for run in runs:
    finish(run, eval_loss=2.0)
  found = sweep.collect(runs)
  assert found['best'] is None and 'data.mix.code' in found['why']
  assert 'data.mix.code differs' in sweep.table(found)


def test_a_member_of_another_config_is_not_compared(tmp_path):
  runs = runs_of(tmp_path)
  finish(runs[0], eval_loss=3.0)
  finish((configs.edit(runs[1][0], {'train.batch': 4}), runs[1][1]), eval_loss=1.0)
  found = sweep.collect(runs)
  assert [m['state'] for m in found['members']][1] == 'of another config'
  assert found['best'] == '0'


def test_before_the_first_member_there_is_a_table_as_well(tmp_path):
  found = sweep.collect(runs_of(tmp_path))
  assert found['best'] is None and found['measure'] is None
  assert sweep.table(found).count('not finished') == 3


def test_a_member_that_is_finished_meanwhile_is_in_the_file(tmp_path, monkeypatch):
  """The job of another member writes its results just before this one writes."""
  runs = runs_of(tmp_path)
  finish(runs[0], eval_loss=3.0)
  write = files.write_json

  def late(path, value):
    if os.path.basename(path) == 'sweep.json' and not os.path.exists(path):
      monkeypatch.setattr(files, 'write_json', write)
      finish(runs[1], eval_loss=2.0)
    write(path, value)

  monkeypatch.setattr(files, 'write_json', late)
  sweep.write(tmp_path, runs)
  assert json.loads((tmp_path / 'sweep.json').read_text())['best'] == '1'


@pytest.mark.parametrize(
  'results, words',
  [
    ({'eval_loss': 2.81613}, 'held-out loss 2.816'),
    ({'eval_loss': {'eval/a': 1.0, 'eval_loss': 2.5}}, 'held-out loss 2.5'),
    ({'accuracy': 0.953, 'n': 10}, 'accuracy 0.953'),
    ({'tasks': {'copy': {}, 'macro': {'score': 0.5}}, 'eval_loss': {}}, 'score 0.5'),
    ({'eval_loss': {}}, ''),
    ({'accuracy': None}, ''),
    (None, ''),
  ],
)
def test_results_in_words(results, words):
  assert workdir.said(results) == words
