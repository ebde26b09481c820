"""A side of a benchmark: an interpreter of its own on one pinned core."""

import json
import pathlib
import subprocess
import sys

SIDES = pathlib.Path(__file__).parent / 'sides'


def run(python: str, side: str, job: dict, core: int) -> dict:
  """The result of sides/SIDE.py at a job; ends the benchmark where it fails."""
  command = ['taskset', '-c', str(core), python, str(SIDES / f'{side}.py')]
  done = subprocess.run(
    command, input=json.dumps(job), capture_output=True, text=True, timeout=7200
  )
  if done.returncode:
    sys.exit(f'{side}: {done.stderr[-2000:]}')
  return json.loads(done.stdout.strip().splitlines()[-1])
