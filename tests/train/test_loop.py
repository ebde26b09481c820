"""The training loop: stopped in any way and started again, it ends in the same bits."""

import json
import os
import random
import shutil
import signal
import subprocess
import time

import jax
import numpy as np
import pytest
import toy_run

from llama3_jax.base.errors import Preempted
from llama3_jax.base.errors import UserError
from llama3_jax.config import ModelConfig
from llama3_jax.config import section
from llama3_jax.model import llama
from llama3_jax.reliable import guard
from llama3_jax.train import average
from llama3_jax.train import checkpoint
from llama3_jax.train import config as run_configs
from llama3_jax.train import loop
from llama3_jax.train import metrics
from llama3_jax.train import optim
from llama3_jax.train import step
from llama3_jax.train.config import RunConfig
from llama3_jax.train.config import TrainConfig

finished = toy_run.finished  # fixture


RAMP = ((0, 4, 16), (256, 4, 32), (900, 8, 32))  # steps 1 to 4, 5 to 10, the rest


@pytest.fixture(scope='module')
def whole(documents, tmp_path_factory):
  """An uninterrupted run of 12 steps: (state, rows)."""
  return toy_run.train(tmp_path_factory.mktemp('whole'), toy_run.Data(documents))


@pytest.fixture(scope='module')
def ramped(documents, tmp_path_factory):
  return toy_run.train(
    tmp_path_factory.mktemp('ramped'), toy_run.Data(documents), ramp=RAMP
  )


def test_every_step_is_written_once_with_its_metrics(whole):
  _, rows = whole
  training = [r for r in rows if 'loss' in r]
  assert [r['step'] for r in training] == list(range(1, 13))
  assert [r['step'] for r in rows if 'eval_loss' in r] == [0, 5, 10, 12]
  for r in training:
    assert r['tokens'] == r['step'] * 8 * 16 and r['count'] == 8 * 16
    assert r['grad_norm'] > 0 and r['lr'] >= 0
  assert training[0]['loss'] == pytest.approx(np.log(64), abs=0.5)
  assert training[0]['lr'] == 0  # of the update made, not of the next one
  assert training[3]['lr'] == pytest.approx(1e-2)


@pytest.mark.parametrize('at,saved', [(5, 4), (6, 4), (12, 8)])
def test_resume_gives_the_same_bits(documents, whole, tmp_path, at, saved):
  with pytest.raises(toy_run.Dies):
    toy_run.train(tmp_path, toy_run.Data(documents, at, toy_run.die(tmp_path, saved)))
  state, rows = toy_run.train(tmp_path, toy_run.Data(documents))
  toy_run.equal(state, whole[0])
  assert rows == whole[1]


def test_death_between_save_and_evaluation_loses_no_row(documents, tmp_path):
  def dying(params):
    if not fresh:
      time.sleep(0.5)  # a save that was started is complete now
      raise toy_run.Dies
    fresh.clear()
    return toy_run.probe(params)

  fresh = [True]
  fields = dict(steps=8, save_every=4, eval_every=4)
  with pytest.raises(toy_run.Dies):
    toy_run.train(tmp_path / 'a', toy_run.Data(documents), dying, **fields)
  _, rows = toy_run.train(tmp_path / 'a', toy_run.Data(documents), **fields)
  assert rows == toy_run.train(tmp_path / 'b', toy_run.Data(documents), **fields)[1]


def test_death_before_the_first_save_starts_over(documents, whole, tmp_path):
  def then():
    raise toy_run.Dies

  with pytest.raises(toy_run.Dies):
    toy_run.train(tmp_path, toy_run.Data(documents, 3, then))
  state, rows = toy_run.train(tmp_path, toy_run.Data(documents))
  toy_run.equal(state, whole[0])
  assert rows == whole[1]


def test_half_written_metrics_row_is_dropped(documents, whole, tmp_path):
  with pytest.raises(toy_run.Dies):
    toy_run.train(tmp_path, toy_run.Data(documents, 7, toy_run.die(tmp_path, 4)))
  with open(tmp_path / 'metrics.jsonl', 'a', encoding='utf-8') as f:
    f.write('{"step": 6, "lo')
  _, rows = toy_run.train(tmp_path, toy_run.Data(documents))
  assert rows == whole[1]


def test_finished_run_does_nothing_more(documents, whole, tmp_path):
  toy_run.train(tmp_path, toy_run.Data(documents))
  state, rows = toy_run.train(tmp_path, toy_run.Data(documents))
  toy_run.equal(state, whole[0])
  assert rows == whole[1]


def test_ramp_changes_shape_at_its_tokens(ramped):
  rows = [r for r in ramped[1] if 'loss' in r]
  sizes = np.diff([0, *(r['tokens'] for r in rows)])
  assert sizes.tolist() == [64] * 4 + [128] * 6 + [256] * 2


@pytest.mark.parametrize('at,saved', [(6, 4), (11, 8)])
def test_resume_inside_and_at_the_border_of_a_ramp(
  documents, ramped, tmp_path, at, saved
):
  with pytest.raises(toy_run.Dies):
    toy_run.train(
      tmp_path, toy_run.Data(documents, at, toy_run.die(tmp_path, saved)), ramp=RAMP
    )
  state, rows = toy_run.train(tmp_path, toy_run.Data(documents), ramp=RAMP)
  toy_run.equal(state, ramped[0])
  assert rows == ramped[1]


def test_resume_on_other_mesh(documents, whole, tmp_path, mesh):
  with jax.set_mesh(mesh(fsdp=8)), pytest.raises(toy_run.Dies):
    toy_run.train(tmp_path, toy_run.Data(documents, 6, toy_run.die(tmp_path, 4)))
  with jax.set_mesh(mesh(fsdp=2, context=2, tensor=2)):
    state, rows = toy_run.train(tmp_path, toy_run.Data(documents))
  for x, y in zip(jax.tree.leaves(state.params), jax.tree.leaves(whole[0].params)):
    np.testing.assert_allclose(x, y, rtol=2e-3, atol=2e-3)
  assert [r['step'] for r in rows] == [r['step'] for r in whole[1]]
  for a, b in zip(rows, whole[1]):
    assert a['tokens'] == b['tokens']
    assert a.get('loss', 0) == pytest.approx(b.get('loss', 0), rel=1e-3)


def test_sigterm_saves_and_the_handler_of_before_comes_back(documents, whole, tmp_path):
  before = signal.getsignal(signal.SIGTERM)
  data = toy_run.Data(documents, 6, lambda: os.kill(os.getpid(), signal.SIGTERM))
  with pytest.raises(Preempted, match='6'):
    toy_run.train(tmp_path, data)
  assert signal.getsignal(signal.SIGTERM) is before
  saves = checkpoint.Checkpoints(tmp_path)
  assert saves.latest() == 6
  saves.close()
  state, rows = toy_run.train(tmp_path, toy_run.Data(documents))
  toy_run.equal(state, whole[0])
  assert rows == whole[1]


def test_checkpoint_of_another_model_is_one_line(documents, tmp_path):
  toy_run.train(tmp_path, toy_run.Data(documents), steps=4)
  other = ModelConfig(3, 32, 4, 4, 8, 48, vocab_size=64, dtype='float32')

  def start_other():
    return jax.jit(llama.init, static_argnums=1)(jax.random.key(0), other)

  with pytest.raises(UserError) as e:
    c = toy_run.config()
    loop.run(
      c, tmp_path, other, toy_run.train_step(c), toy_run.Data(documents), start_other
    )
  assert '\n' not in str(e.value) and 'model.*' in str(e.value)


def test_loss_falls(documents, tmp_path):
  _, rows = toy_run.train(tmp_path, toy_run.Data(documents), steps=30, length=32)
  found = [r['loss'] for r in rows if 'loss' in r]
  assert np.mean(found[-3:]) < np.mean(found[:3])


def test_polyak_average_is_the_mean_of_the_last_saves(documents, tmp_path):
  seen = {}

  def evaluate(params):
    seen[len(seen)] = jax.tree.map(np.asarray, params)
    return {'eval_loss': 0.0}

  fields = dict(save_every=2, eval_every=2, keep=3, average=3)
  state, _ = toy_run.train(tmp_path, toy_run.Data(documents), evaluate, **fields)
  params, report = average.of_saves(
    toy_run.config(**fields).train,
    tmp_path,
    state,
    lambda s: s.params,
    lambda p: {'eval_loss': 0.0},
  )
  assert report['steps'] == [8, 10, 12]
  by_hand = jax.tree.map(lambda *x: sum(x) / 3, *(seen[i] for i in (4, 5, 6)))
  for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(by_hand)):
    np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


# The rest runs the launcher in processes of its own, on real shards.


def run_to(process, workdir, step):
  """Wait until the process has written a row of `step`, or has ended."""

  def reached():
    ended = process.poll() is not None
    return ended or any(r['step'] >= step for r in metrics.read(workdir))

  toy_run.until(reached)


def test_killed_then_stopped_at_random_steps_then_the_same_command(
  toy, launcher, finished, tmp_path
):
  workdir, rng = tmp_path / 'run', random.Random()
  command = f'--config={toy}/toy.py', f'--workdir={workdir}'
  steps = [rng.randrange(1, 20)]  # early: some are left for the other stop

  process = launcher.start(*command)
  run_to(process, workdir, steps[0])
  time.sleep(rng.random() * 0.03)
  process.kill()
  process.communicate()

  # Past the rows of the killed process, so that the new one trains when it is stopped.
  steps.append(max(r['step'] for r in metrics.read(workdir)) + 3)
  process = launcher.start(*command)
  run_to(process, workdir, steps[1])
  process.send_signal(signal.SIGTERM)
  text, _ = process.communicate(timeout=60)
  assert process.returncode == 0 and 'Traceback' not in text, (steps, text)
  assert 'stopped by SIGTERM' in text.split('\n')[-2]
  last = max(r['step'] for r in metrics.read(workdir))
  assert last < 80, 'the run ended before the signal came'
  assert (workdir / 'checkpoints' / str(last)).is_dir()

  status, text = launcher.run(*command)
  assert status == 0 and f'resumed at step {last}' in text, (steps, text)
  toy_run.same(workdir, finished)


@pytest.fixture(scope='module')
def filled(toy, launcher, tmp_path_factory):
  """A run whose disk is full at some step, then grows: (status, output, workdir)."""
  disk = tmp_path_factory.mktemp('disk')
  mount = ['mount', '-t', 'tmpfs', '-o', 'size=1500k', 'tmpfs', str(disk)]
  if os.geteuid() or shutil.which('mount') is None:
    pytest.skip('a small file system to fill needs root')
  if subprocess.run(mount, capture_output=True).returncode:
    pytest.skip('this machine lets no one mount a small file system')
  found = launcher.run(f'--config={toy}/toy.py', f'--workdir={disk}/run')
  subprocess.run(['mount', '-o', 'remount,size=60m', str(disk)], check=True)
  yield *found, disk / 'run'
  subprocess.run(['umount', '-l', str(disk)], check=True)


def test_full_disk_stops_the_run_and_the_same_command_goes_on(
  toy, launcher, finished, filled
):
  status, text, workdir = filled
  assert status not in (0, None)
  assert 'disk is full' in text or 'No space left' in text
  status, text = launcher.run(f'--config={toy}/toy.py', f'--workdir={workdir}')
  assert status == 0, text
  assert 'resumed at step' in text
  toy_run.same(workdir, finished)


def test_full_disk_shows_no_traceback(filled):
  assert 'Traceback' not in filled[1], filled[1]


def test_finished_stage_is_skipped(toy, launcher, finished):
  def files():
    found = [p for p in finished.rglob('*') if p.is_file() and p.name != '.lock']
    return {p: p.stat().st_mtime_ns for p in found}

  before = files()
  status, text = launcher.run(f'--config={toy}/toy.py', f'--workdir={finished}')
  assert status == 0 and 'nothing to do' in text
  assert files() == before


def test_finished_stage_trains_longer(toy, launcher, finished, tmp_path):
  folder = tmp_path / 'longer'
  shutil.copytree(finished, folder)
  command = (f'--config={toy}/toy.py', f'--workdir={folder}')
  status, text = launcher.run(*command, '--config.train.steps=84')
  assert status == 0 and 'resumed at step 80' in text and 'optim.decay' in text
  assert (folder / 'results_80.json').exists()
  steps = [json.loads(r)['step'] for r in (folder / 'metrics.jsonl').open()]
  assert max(steps) == 84


def test_config_is_in_the_workdir(finished):
  kept = json.loads((finished / 'config.json').read_text())
  assert kept['config']['train.steps'] == 80 and 'jax' in kept['versions']


def test_a_notebook_needs_no_config_file(documents, tmp_path):
  """Dataclasses alone; the same numbers as the ConfigDict of the same values gives."""
  train_config = TrainConfig(
    steps=4, batch=8, length=16, save_every=4, eval_every=0, log_every=1
  )
  run = RunConfig(train_config, optim.OptimConfig(peak=1e-2, warmup=3, decay=20))
  how = step.compose(
    toy_run.LOSS, optim.create(run.optim), guard=guard.create(run.train)
  )
  state = loop.run(
    run, tmp_path / 'a', toy_run.C, how, toy_run.Data(documents), toy_run.start
  )
  c = toy_run.config(steps=4, eval_every=0)
  c.optim = section(run.optim)
  other = loop.run(
    c,
    tmp_path / 'b',
    toy_run.C,
    toy_run.train_step(c),
    toy_run.Data(documents),
    toy_run.start,
  )
  toy_run.equal(state.params, other.params)
  assert toy_run.steady(tmp_path / 'a') == toy_run.steady(tmp_path / 'b')


def test_a_field_that_nothing_reads_is_one_line():
  c = toy_run.config()
  c.train.stepss = 3
  with pytest.raises(UserError, match='train.stepss: nothing reads it'):
    run_configs.of(c)
