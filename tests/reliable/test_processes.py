"""Several processes: any number, any mesh, the same data; none outlives a lost one."""

import json
import os
import re
import signal
import time

import faulty
import jobs
import numpy as np

from llama3_jax.data import pipeline
from llama3_jax.data import shards
from llama3_jax.train import metrics
from llama3_jax.train import models

group = jobs.group  # fixture


def expected(toy, steps=jobs.STEPS, context=1):
  """Checksums of the batches as one process reads them, columns in the mesh's order."""
  source = shards.open_source(toy / 'web', split='train')
  rows = pipeline.Rows({'web': source}, [(0, {'web': 1.0})], 0, 'row', 64)
  chunks = np.arange(32).reshape(2 * context, -1)
  order = np.concatenate([chunks[[i, -1 - i]].ravel() for i in range(context)])
  order = order if context > 1 else np.arange(32)

  def batch():
    return {name: x[:, order] for name, x in vars(rows.batch(8, 32)).items()}

  return {i: faulty.checksum(batch()) for i in range(1, steps + 1)}


def found(path, count):
  """Checksums by step, of the last `count` processes' files; and removes these."""
  totals = {}
  for i in range(count):
    rows = {}
    for line in open(f'{path}.{i}', encoding='utf-8'):
      row = json.loads(line)
      rows[row['step']] = row['sum']
    os.remove(f'{path}.{i}')
    for step, value in rows.items():
      totals[step] = totals.get(step, 0) + value
  return totals


def test_killed_and_stopped_on_any_number_of_processes(group, toy, tmp_path):
  """Two processes on one row each, one killed; four, one told to stop; then one."""
  workdir, sums = tmp_path / 'run', tmp_path / 'sums'
  data = expected(toy)
  run = group(workdir, {'sums': str(sums), 'slow': [3, 0.2]})

  run.start(2, '--config.mesh.fsdp=1', '--config.mesh.context=2')
  run.until(workdir, 12)
  run.processes[1].kill()
  began = time.monotonic()
  (first, _), texts = run.wait(60)
  assert time.monotonic() - began < 60 and first not in (0, None), texts
  line = texts[0].rstrip('\n').split('\n')[-1]
  assert line.startswith('experiment: process 1 (') and 'died' in line, texts[0]
  assert 'Traceback' not in texts[0], texts[0]
  seen = {s: v for s, v in found(sums, 2).items() if s <= 12}
  mixed = expected(toy, context=2)
  assert seen == {s: mixed[s] for s in range(1, 13)}

  fields = '--config.mesh.fsdp=2', '--config.mesh.tensor=2', '--config.train.keep=9'
  run.start(4, *fields, '--config.train.stats_every=3')
  run.until(workdir, 17)
  run.processes[2].send_signal(signal.SIGTERM)
  statuses, texts = run.wait()
  assert statuses == [0] * 4, texts
  # Saves are asynchronous: which one was whole when the process was killed, if any, is
  # a matter of the disk.
  resumed = re.search(r'resumed at step (\d+)', texts[0])
  begun = int(resumed[1]) if resumed else 0
  assert begun in (0, 5, 10, 15), texts[0]
  assert 'process 3 (' in texts[0] and 'slow outside its devices' in texts[0]
  lines = {t.rstrip('\n').split('\n')[-1] for t in texts}
  assert len(lines) == 1 and 'stopped by SIGTERM after step' in lines.pop()
  last = max(r['step'] for r in metrics.read(workdir))
  assert last < jobs.STEPS and (workdir / 'checkpoints' / str(last)).is_dir()
  assert found(sums, 4) == {s: data[s] for s in range(begun + 1, last + 1)}

  run.start(1)
  (status,), (text,) = run.wait()
  assert status == 0 and f'resumed at step {last}' in text, text
  assert found(sums, 1) == {s: data[s] for s in range(last + 1, jobs.STEPS + 1)}
  rows = [r['step'] for r in metrics.read(workdir) if 'loss' in r]
  assert rows == list(range(1, jobs.STEPS + 1))
  account = json.loads((workdir / 'results.json').read_text())['goodput']
  assert account['starts'] == 3 and 0 < account['goodput'] < 1
  assert account['down_s'] > 0 and account['lost_s'] >= 0
  params, _ = models.load(workdir)
  assert np.isfinite(params.embed).all()
