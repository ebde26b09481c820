"""Several processes of one run, which tests kill and wait for."""

import json
import os
import socket
import subprocess
import sys
import time

import children
import faulty
import pytest

from llama3_jax.train import metrics

STEPS = 36


class Group:
  """Processes of one run, on a port of their own; their outputs are files."""

  def __init__(self, launcher, folder, config, workdir, faults=None, devices=1):
    self.launcher, self.folder = launcher, folder
    self.faults = json.dumps(faults or {})
    self.flags = [f'--config={config}', f'--workdir={workdir}', f'--devices={devices}']
    self.processes, self.number = [], 0

  def start(self, count, *fields):
    """Starts `count` processes; one alone needs no coordinator."""
    with socket.socket() as s:
      s.bind(('localhost', 0))
      port = s.getsockname()[1]
    self.number += 1
    self.processes = []
    for i in range(count):
      several = [f'--coordinator=localhost:{port}', f'--processes={count}']
      several.append(f'--process={i}')
      with open(self.output(i), 'w') as out:
        process = subprocess.Popen(
          [sys.executable, 'tests/helpers/faulty.py', self.faults, *self.flags]
          + [*fields, *(several if count > 1 else ())],
          cwd=faulty.ROOT,
          env=os.environ | children.variables(self.launcher.cache),
          stdout=out,
          stderr=subprocess.STDOUT,
        )
      self.processes.append(process)
    return self

  def output(self, i):
    return self.folder / f'{self.number}.{i}.txt'

  def wait(self, seconds=240):
    """Exit statuses and outputs, after all have ended."""
    end = time.monotonic() + seconds
    try:
      for p in self.processes:
        p.wait(max(end - time.monotonic(), 0.1))
    finally:
      self.kill()
    texts = [self.output(i).read_text() for i in range(len(self.processes))]
    return [p.returncode for p in self.processes], texts

  def kill(self):
    for p in self.processes:
      p.kill()

  def until(self, workdir, step, seconds=240):
    """Waits until a row of `step` is written."""
    end = time.monotonic() + seconds
    while not any(r['step'] >= step for r in metrics.read(workdir)):
      ended = [p.poll() for p in self.processes]
      assert time.monotonic() < end and ended == [None] * len(ended), self.wait(1)
      time.sleep(0.02)


@pytest.fixture
def group(launcher, toy, tmp_path):
  groups = []

  def create(workdir, faults=None, devices=1, steps=STEPS):
    config = f'{toy}/toy.py:{steps}'
    groups.append(Group(launcher, tmp_path, config, workdir, faults, devices))
    return groups[-1]

  yield create
  for g in groups:
    g.kill()
