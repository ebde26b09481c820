"""Stages: skipped when finished, measured; what a comparison leaves out."""

import json
import pathlib
import subprocess
import sys
import time

import jax
import ml_collections
import numpy as np

from llama3_jax.eval import stages
from llama3_jax.eval import summary


def config():
  return ml_collections.ConfigDict({'a': 1, 'data': {'root': ''}})


def make(calls, megabytes=0):
  def main(config, workdir):
    calls.append(config.to_dict())
    folder = pathlib.Path(workdir)
    folder.mkdir(parents=True, exist_ok=True)
    if megabytes:
      np.ones(megabytes << 17).sum()
    (folder / 'results.json').write_text(json.dumps({'calls': len(calls)}))

  return main


def test_finished_stage_is_skipped(tmp_path):
  calls = []
  first = stages.Stages(tmp_path, 2).stage('sft/1', make(calls), config(), {})
  again = stages.Stages(tmp_path, 2).stage('sft/1', make(calls), config(), {})
  assert first == again == {'calls': 1} and len(calls) == 1
  assert (tmp_path / 'sft_1/cost.json').exists()


def test_stage_whose_parameters_are_gone_runs_again(tmp_path):
  calls = []

  def main(config, workdir):
    make(calls)(config, workdir)
    (pathlib.Path(workdir) / 'final').mkdir()

  for count in (1, 1, 2):
    if count == 2:
      (tmp_path / 'sft/final').rmdir()
    stages.Stages(tmp_path, 1).stage('sft', main, config(), {})
    assert len(calls) == count


def test_changes_reach_the_stage_and_not_the_config(tmp_path):
  calls, c = [], config()
  stages.Stages(tmp_path, 1).stage('x', make(calls), c, {'data.root': 'r', 'new': 2})
  assert calls == [{'a': 1, 'data': {'root': 'r'}, 'new': 2}]
  assert c.data.root == '' and 'new' not in c


def test_peak_memory_is_that_of_the_stage(tmp_path):
  run = stages.Stages(tmp_path, 2)
  run.stage('large', make([], 400), config(), {})
  run.stage('small', make([]), config(), {})
  large, small = (run.costs[n]['memory_bytes'] for n in ('large', 'small'))
  assert large - small > 300 << 20 or small == large  # equal where it cannot be reset


def test_timeless_leaves_out_times_and_memory_anywhere():
  value = {'a': [{'seconds': 1, 'b': 2}], 'memory_bytes': 3, 'resumed': True}
  assert summary.timeless(value) == {'a': [{'b': 2}]}


def test_what_a_stage_takes_of_the_processor_is_measured(tmp_path):
  def main(config, workdir):
    make([])(config, workdir)
    deadline = time.process_time() + 0.3
    while time.process_time() < deadline:
      pass
    busy = 'import time\nwhile time.process_time() < 0.3: pass'
    subprocess.run([sys.executable, '-c', busy], check=True)
    for size in (2, 2, 3):  # the second runs the program of the first
      _doubled(np.ones(size))

  run = stages.Stages(tmp_path, 2)
  run.stage('busy', main, config(), {})
  run.stage('idle', make([]), config(), {})
  busy, idle = run.costs['busy'], run.costs['idle']
  assert 0.55 < busy['user_s'] + busy['system_s'] < 30
  assert idle['user_s'] + idle['system_s'] < 0.3
  assert busy['compiled'] + busy['recalled'] == 2 and busy['compile_s'] > 0
  assert idle['compiled'] == idle['compile_s'] == 0


@jax.jit
def _doubled(x):
  return x * 2
