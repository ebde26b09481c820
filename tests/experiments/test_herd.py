"""The recipe in miniature: complete, a no-op when finished, the same after kill -9."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import children
import jax
import numpy as np
import pytest
import refusals

from llama3_jax.eval import summary
from llama3_jax.train import models

told = refusals.told  # fixture
ROOT = pathlib.Path(__file__).resolve().parents[2]
TRAINED = ('pretrain', 'long_context', 'anneal', 'control')
TUNED = ('seed_sft', 'reward', 'sft', 'dpo')
MODEL = dict(n_layers=1, d_model=32, n_heads=2, n_kv_heads=1, d_head=16, d_ff=64)
MODEL |= dict(attention='dense')  # its program is the smallest


def overrides():
  """A model of a few thousand parameters, a few steps a stage, a few documents."""
  flat = {
    'rounds': 1,
    'shots': 1,
    'curate.offline': True,
    'curate.languages': "('en', 'de')",
    'curate.code_characters': 20_000,
    'tokenizer.vocab_size': 700,
    'tokenizer.task_pages': 100,
    'tokenizer.max_characters': 40_000,
    'shards.task_pages': 60,
    'shards.drills': 60,
    'shards.heldout': 0.2,
    'shards.needle.short_pages': 30,
    'shards.needle.long_pages': 30,
    'shards.needle.long': '(80, 250)',
    'long_context.needle.lengths': '(128, 256)',
    'long_context.needle.depths': '(0.0, 1.0)',
    'long_context.needle.samples': 1,
    'long_context.gate.length': 128,
    'long_context.gate.more_steps': 2,
    'long_context.gate.attempts': 1,
    'reject.samples': 4,
    'reject.data.tasks': 16,
    'reject.sample.max_new': 64,  # so that some answers of a random model end
    'evaluate.examples': 2,
    'evaluate.dialogs': 1,
    'evaluate.tasks': "('copy', 'sort')",
    'evaluate.max_new': 4,
    'evaluate.batch': 4,
    'evaluate.shards.batches': 1,
    'evaluate.shards.length': 128,
  }
  for stage in (*TRAINED, *TUNED):
    steps = dict(steps=4, batch=2, length=256, save_every=2, eval_every=2, log_every=1)
    steps |= dict(loss_chunk=0)
    flat |= {f'{stage}.train.{name}': value for name, value in steps.items()}
  for stage in TRAINED:
    flat |= {f'{stage}.model.{name}': value for name, value in MODEL.items()}
    flat[f'{stage}.data.eval_batches'] = 1
  flat |= {'pretrain.train.length': 128, 'anneal.train.save_every': 1}
  for stage in TUNED:
    flat |= {f'{stage}.data.tasks': 20, f'{stage}.data.heldout_tasks': 8}
  return flat


def command(workdir):
  changes = [f'--config.{name}={value}' for name, value in overrides().items()]
  config = '--config=configs/herd.py:tiny'
  return [sys.executable, '-m', 'experiment', config, f'--workdir={workdir}', *changes]


def start(workdir):
  return subprocess.Popen(
    command(workdir),
    cwd=ROOT,
    env=os.environ | children.variables(ROOT / '.pytest_cache/herd'),
    text=True,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
  )


def finish(workdir):
  """Output of a run that ends well."""
  process = start(workdir)
  out, err = process.communicate(timeout=600)
  assert process.returncode == 0, err[-3000:]
  return out, err


@pytest.fixture(scope='module')
def done(tmp_path_factory):
  """(folder, standard output) of an uninterrupted run."""
  folder = tmp_path_factory.mktemp('herd') / 'run'
  out, _ = finish(folder)
  return folder, out


def read(folder):
  return json.loads((folder / 'results.json').read_text('utf-8'))


def test_results_are_complete(done):
  folder, out = done
  results = read(folder)
  figures = results['figures']
  assert set(figures['evaluation']) == {
    'base',
    'base, after examples',
    'SFT on demonstrations',
    'SFT/1',
    'DPO/1',
  }
  assert figures['curation'][0]['documents'] > figures['curation'][-1]['documents'] > 0
  assert len(figures['needle']['before']) == len(figures['needle']['after']) == 2
  assert len(figures['gate']['attempts']) == 2  # it stays shut for such a model
  assert {c['name'] for c in results['checks']} and len(results['checks']) == 12
  assert all(isinstance(c['pass'], bool) for c in results['checks'])
  stages = {s['name'] for s in figures['stages']}
  assert stages == set(results['costs']) and 'dpo/1b' in stages
  assert all(c['memory_bytes'] > 1e8 for c in results['costs'].values())
  assert 'generated text' in ' '.join(results['notes'])
  assert f'report: {folder / "report.html"}' in out
  assert '<html' in (folder / 'report.html').read_text('utf-8')


def test_annotations_feed_the_next_stages(done):
  folder, _ = done
  rows = (folder / 'reject_1/preferences.jsonl').read_text('utf-8').split('\n')
  made = [json.loads(row) for row in rows if row]
  assert len(made) == read(folder / 'reject_1')['annotated']
  config = json.loads((folder / 'dpo_1a/config.json').read_text('utf-8'))['config']
  assert config['data.files'] == ['../reject_1/preferences.jsonl']
  assert config['data.tasks'] == max(20 - len(made), 0)
  seeds = [
    json.loads((folder / f'dpo_1{m}/config.json').read_text())['config']['seed']
    for m in 'ab'
  ]
  assert seeds[0] != seeds[1]


def test_finished_run_is_a_no_op(done):
  folder, _ = done

  def files():
    found = [p for p in folder.rglob('*') if p.is_file() and p.name != '.lock']
    return {p: p.stat().st_mtime_ns for p in found}

  before = files()
  began = time.perf_counter()
  out, err = finish(folder)
  assert 'start;' not in err and 'report: ' in out
  assert files() == before
  assert time.perf_counter() - began < 30


def copied(whole, folder, names):
  """Copies these parts of a run, files or folders, to another run."""
  folder.mkdir(exist_ok=True)
  for name in names:
    copy = shutil.copytree if (whole / name).is_dir() else shutil.copy2
    copy(whole / name, folder / name)


def killed(folder, moment):
  """Runs in `folder` until it has the file `moment`, and kills the process."""
  process = start(folder)
  deadline = time.monotonic() + 300
  while not (folder / moment).exists() and process.poll() is None:
    assert time.monotonic() < deadline
    time.sleep(0.005)
  assert process.poll() is None, process.communicate()[1][-3000:]
  os.kill(process.pid, signal.SIGKILL)
  process.communicate()
  assert not (folder / 'results.json').exists()


def test_killed_run_goes_on_to_the_same_figures(done, tmp_path):
  """Stages that no kill touched are copied; those from long context on learn from what
  comes of it, so its parameters are compared too."""
  whole, _ = done
  folder = tmp_path / 'run'
  copied(whole, folder, ('config.json', 'curate', 'tokenizer', 'shards', 'pretrain'))
  killed(folder, 'long_context/checkpoints/4')
  between = 'anneal', 'control', 'seed_sft', 'reward_1', 'reject_1'
  copied(whole, folder, between)
  killed(folder, 'sft_1/checkpoints/2')
  finish(folder)
  run, same = (models.load(f / 'long_context')[0] for f in (folder, whole))
  for a, b in zip(jax.tree.leaves(run), jax.tree.leaves(same), strict=True):
    np.testing.assert_array_equal(a, b)
  again, results = read(folder), read(whole)
  assert summary.timeless(again['figures']) == summary.timeless(results['figures'])
  same = [summary.timeless(r['checks'][:-2]) for r in (again, results)]
  assert same[0] == same[1]


def test_data_that_is_missing_is_named(told, tmp_path):
  arguments = command(tmp_path / 'run')[3:]
  assert 'nowhere' in told(*arguments, f'--data={tmp_path / "nowhere"}', blind=False)
