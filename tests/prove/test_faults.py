"""Faults of several processes, each in a run of its own: seen, named, survived."""

import random
import re
import signal
import time

import damage as damage
import jobs as processes
import pytest
import toy_run as loops
from jobs import group  # noqa: F401

from llama3_jax.train import checkpoint

TWO = '--config.mesh.fsdp=2'


def last_line(text):
  return text.rstrip('\n').split('\n')[-1]


@pytest.fixture(scope='module')
def whole(toy, launcher, tmp_path_factory):
  """The workdir of an uninterrupted run of two processes."""
  folder = tmp_path_factory.mktemp('whole')
  run = processes.Group(launcher, folder, f'{toy}/toy.py:150', folder / 'run')
  run.start(2, TWO)
  statuses, texts = run.wait(200)
  assert statuses == [0, 0], texts
  return folder / 'run'


def test_kills_of_any_process_end_in_the_same_bits(group, whole, tmp_path, record):  # noqa: F811
  workdir, rng, waits = tmp_path / 'run', random.Random(), []
  run = group(workdir, steps=150)
  for i in range(6):
    run.start(2, TWO)
    dead = i % 2
    run.until(workdir, 5 + 20 * i + rng.randint(0, 15))
    time.sleep(rng.random() * 0.3)
    run.processes[dead].kill()
    began = time.monotonic()
    statuses, texts = run.wait(60)
    waits.append(time.monotonic() - began)
    assert statuses[1 - dead] == 1, texts
    line = last_line(texts[1 - dead])
    assert re.match(rf'experiment: process {dead} \(.*\) died', line), texts[1 - dead]
    assert 'Traceback' not in texts[1 - dead]
  run.start(2, TWO)
  statuses, texts = run.wait(200)
  assert statuses == [0, 0], texts
  loops.same(workdir, whole)
  record(
    'kill -9 of one of two processes: the other names it and ends; after 6 the same '
    'final bits',
    f'{max(waits):.1f} s at most (3 times process 0, 3 times process 1)',
    '60 s, one line',
  )


def test_frozen_process_is_named(group, tmp_path, record):  # noqa: F811
  workdir = tmp_path / 'run'
  run = group(workdir, steps=100_000).start(2, TWO)
  run.until(workdir, 5)
  run.processes[1].send_signal(signal.SIGSTOP)
  began = time.monotonic()
  run.processes[0].wait(100)
  seconds = time.monotonic() - began
  run.kill()
  line = last_line(run.output(0).read_text())
  assert 'process 1 (' in line and 'silent' in line, line
  record('a process that is frozen (SIGSTOP) is named', f'{seconds:.0f} s', '60 s')
  assert seconds < 60


def test_failure_of_one_process_is_told_by_all(group, tmp_path, record):  # noqa: F811
  run = group(tmp_path / 'run', {'fail': [1, 8]}).start(2, TWO)
  statuses, texts = run.wait()
  assert statuses == [1, 1]
  assert 'No space left' in last_line(texts[1])
  line = last_line(texts[0])
  assert 'process 1 (' in line and 'No space left' in line, texts[0]
  record('the full disk of one process is told by the other', line, 'one line')


def test_hanging_process_shows_its_stacks(group, tmp_path, record):  # noqa: F811
  workdir = tmp_path / 'run'
  run = group(workdir, {'hang': [1, 8]})
  run.start(2, TWO, '--config.train.watchdog_s=10', '--config.train.watchdog_exit=1')
  began = time.monotonic()
  statuses, texts = run.wait(90)
  seconds = time.monotonic() - began
  assert set(statuses) <= {1, 3} and 3 in statuses, texts
  stacks = [p.read_text() for p in (workdir / 'stacks').iterdir()]
  assert any('time.sleep(3600)' in s or 'faulty.py' in s for s in stacks), stacks
  assert any('hangs: nothing has moved' in last_line(t) for t in texts), texts
  assert not any('Traceback' in t for t in texts)
  run = group(workdir).start(2, TWO)
  assert run.wait()[0] == [0, 0]
  record(
    'a process that hangs leaves its stacks and ends; the same command resumes',
    f'{seconds:.0f} s from the start, watchdog_s=10',
    'ends',
  )


def test_flipped_bit_names_the_process(group, tmp_path, record):  # noqa: F811
  run = group(tmp_path / 'run', {'flip': [1, 9]})
  run.start(2, TWO, '--config.train.replay_every=3')
  statuses, texts = run.wait()
  lines = [last_line(t) for t in texts]
  assert all(statuses) and any('gave other bits' in line for line in lines), texts
  line = next(line for line in lines if 'gave other bits' in line)
  assert 'step 9' in line
  record('one bit flipped on a device of process 1', line, 'found and named')


def test_save_now_is_agreed_on(group, tmp_path, record):  # noqa: F811
  workdir = tmp_path / 'run'
  run = group(workdir, steps=80)
  fields = '--config.train.save_every=1000', '--config.train.stats_every=4'
  run.start(2, TWO, *fields)
  run.until(workdir, 6)
  run.processes[1].send_signal(signal.SIGUSR1)
  statuses, texts = run.wait()
  assert statuses == [0, 0], texts
  saves = checkpoint.Checkpoints(workdir, 9)
  steps = saves.steps()
  saves.close()
  assert len(steps) == 2 and steps[0] % 4 == 0 and steps[1] == 80
  record('SIGUSR1 to one of two processes saves at one step of both', steps[0], 'saved')


def test_damaged_weights_are_never_used(tmp_path, record):
  counts, passed = damage.attack(300, tmp_path)
  found = ', '.join(f'{n} {outcome}' for outcome, n in counts.items())
  record('300 random corruptions of a save or final/', found, '0 silent')
  assert not passed, passed
