"""Curation killed ten times at random moments, its pool of processes with it."""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import crawls as curation
import pytest

from llama3_jax.curate.reading import warc

KILLS = 10
FILES, PAGES = 6, 60
ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def inputs(tmp_path):
  """Six WARC files with exact and near duplicates across them, and one damaged."""
  paths = []
  for i in range(FILES):
    pages = [
      {
        'url': f'https://h{j % 7}.example/{i * PAGES + j if j % 5 else j}',
        'date': f'2024-0{i + 1}-01',
        'html': curation.article(i * PAGES + j if j % 4 else j),
      }
      for j in range(PAGES)
    ]
    paths.append(tmp_path / f'{i}.warc.gz')
    warc.write(paths[-1], pages)
  damaged = bytearray(paths[-1].read_bytes())
  middle = len(damaged) // 2
  damaged[middle : middle + 40] = b'\0' * 40
  paths[-1].write_bytes(damaged)
  return paths


def start(inputs, workdir):
  """The command in a process group of its own, so that a kill takes the pool too."""
  names = ', '.join(repr(str(p)) for p in inputs)
  command = [sys.executable, '-m', 'experiment', '--config=configs/curate.py:files']
  command += [f'--config.inputs=({names},)', '--config.workers=2']
  command += ['--config.curate.memory_bytes=20000', f'--workdir={workdir}']
  return subprocess.Popen(
    command,
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    start_new_session=True,
  )


def written(work):
  """Files of a run that are whole."""
  return len([p for p in work.rglob('*.*') if p.suffix != '.partial'])


def test_ten_kills_end_in_the_same_bytes(inputs, tmp_path, record):
  whole = start(inputs, tmp_path / 'whole')
  text, _ = whole.communicate(timeout=300)
  assert whole.returncode == 0, text
  rng, at = random.Random(0), []
  for _ in range(KILLS):
    work = tmp_path / 'killed/work'
    before, more = written(work), rng.randint(1, 30)
    process = start(inputs, tmp_path / 'killed')
    while process.poll() is None and written(work) < before + more:
      time.sleep(0.002)
    time.sleep(rng.uniform(0, 0.05))
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    at.append(len([p for p in work.glob('*') if p.is_dir()]))
  process = start(inputs, tmp_path / 'killed')
  text, _ = process.communicate(timeout=300)
  assert process.returncode == 0, text
  for name in curation.OUTPUTS:
    assert (tmp_path / 'killed' / name).read_bytes() == (
      tmp_path / 'whole' / name
    ).read_bytes(), name
  funnels = [
    json.loads((tmp_path / name / 'funnel.json').read_text())
    for name in ('whole', 'killed')
  ]
  assert funnels[0] == funnels[1]
  first, last = funnels[0]['steps'][0], funnels[0]['steps'][-1]
  assert funnels[0]['problems'] and last['documents'] < first['documents'] - 20
  record(
    'kill -9 of a curation and its processes, then the same command: documents, '
    'dropped documents, totals',
    f'{KILLS} kills at random moments (stages begun then: '
    f'{", ".join(map(str, at))}): the same bytes; {first["documents"]} pages in '
    f'{FILES} files, one damaged',
    '10 kills, byte for byte',
  )
