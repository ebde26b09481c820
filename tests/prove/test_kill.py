"""Killed twenty times, also inside a save and on a full disk: the same final bits."""

import contextlib
import json
import os
import random
import re
import shutil
import subprocess
import time

import pytest
import toy_run as loops

from llama3_jax.train import metrics

STEPS = 900
KILLS = 20
FIELDS = '--config.train.save_every=5', '--config.train.eval_every=100'


@pytest.fixture(scope='module')
def disk(tmp_path_factory):
  """A folder on a small file system of its own, or a plain one without the right."""
  folder = tmp_path_factory.mktemp('disk')
  mount = ['mount', '-t', 'tmpfs', '-o', 'size=24m', 'tmpfs', str(folder)]
  mounted = os.geteuid() == 0 and subprocess.run(mount).returncode == 0
  yield folder, mounted
  if mounted:
    subprocess.run(['umount', '-l', str(folder)], check=True)


def saved(workdir):
  """Steps whose saves are complete."""
  names = os.listdir(workdir / 'checkpoints') if workdir.exists() else []
  return sorted(int(n) for n in names if n.isdigit())


def saving(workdir, since):
  """Whether a save is on its way; those that earlier kills cut off stay behind."""
  for path in (workdir / 'checkpoints').glob('*tmp*'):
    with contextlib.suppress(OSError):
      if path.stat().st_mtime > since:
        return True
  return False


def last_step(workdir):
  return max((r['step'] for r in metrics.read(workdir)), default=0)


def wait(process, condition, seconds=60):
  end = time.monotonic() + seconds
  while process.poll() is None and not condition() and time.monotonic() < end:
    time.sleep(0.002)


def fill(folder):
  """Takes what is left of the disk, but for a few blocks."""
  free = shutil.disk_usage(folder).free
  with contextlib.suppress(OSError):  # the run writes at the same time
    (folder / 'filler').write_bytes(b'0' * max(free - 200_000, 0))


def run_and_kill(launcher, command, workdir, how, rng, disk):
  """One start, killed at a moment of the kind `how`; its output."""
  start, since = last_step(workdir), time.time()
  process = launcher.start(*command)
  goal = start + rng.randint(3, 30)
  wait(process, lambda: last_step(workdir) >= goal)
  if how == 'save':
    wait(process, lambda: saving(workdir, since))
  elif how == 'full':
    fill(disk)
    time.sleep(rng.random() * 1.5)
  else:
    time.sleep(rng.random() * 0.1)
  inside = saving(workdir, since)
  process.kill()
  text, _ = process.communicate(timeout=60)
  (disk / 'filler').unlink(missing_ok=True)
  return process.returncode, text, inside


def test_twenty_kills_end_in_the_same_bits(launcher, toy_run, disk, record):
  command, whole = toy_run
  (folder, small), rng = disk, random.Random()
  workdir = folder / 'run'
  command = [*command, f'--workdir={workdir}']
  kills = {'moment': 0, 'save': 0, 'full': 0}
  inside = redone = ended = 0
  while sum(kills.values()) < KILLS:
    ways = ('moment', 'save', 'full') if small else ('moment', 'save')
    how = ways[sum(kills.values()) % len(ways)]
    before, reached = saved(workdir), last_step(workdir)
    status, text, during = run_and_kill(launcher, command, workdir, how, rng, folder)
    assert 'Traceback' not in text, text
    if status == -9:
      kills[how] += 1
      inside += during
    else:  # it saw the full disk before the kill came, and said so
      assert how == 'full' and status in (1, 2) and 'disk is full' in text, text
      ended += 1
    if before:  # the newest complete save was found, none was lost
      assert f'resumed at step {before[-1]},' in text, (before, text)
      redone += reached - before[-1]
    assert not before or saved(workdir)[-1] >= before[-1]
  assert last_step(workdir) < STEPS, 'the run ended before the last kill'
  status, text = launcher.run(*command)
  assert status == 0, text
  loops.same(workdir, whole)
  resumed = int(re.search(r'resumed at step (\d+)', text).group(1))
  account = json.loads((workdir / 'results.json').read_text())['goodput']
  record(
    'kill -9 of a run, then the same command: final parameters, metrics, results',
    f'{sum(kills.values())} kills ({kills["moment"]} at random moments, '
    f'{kills["save"]} when a save had begun, {kills["full"]} on a full disk; {inside} '
    f'inside a save), {ended} more ends by the full disk: the same bits; {redone} '
    f'steps done again, last resume at {resumed}',
    '20 kills, bit for bit',
  )
  record(
    'goodput over those starts',
    f'{account["goodput"]:.1%} of {account["elapsed_s"]:.0f} s in '
    f'{account["starts"]} starts (a model of 48K parameters: starts dominate)',
    'accounted',
  )


@pytest.fixture(scope='module')
def toy_run(toy, launcher, tmp_path_factory):
  """The command without its workdir, and the workdir of an uninterrupted run."""
  command = [f'--config={toy}/toy.py:{STEPS}', *FIELDS]
  workdir = tmp_path_factory.mktemp('whole') / 'run'
  status, text = launcher.run(*command, f'--workdir={workdir}')
  assert status == 0, text
  return command, workdir
