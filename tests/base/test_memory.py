"""Freed memory is kept: a second computation finds its pages there."""

import subprocess
import sys

import pytest

CODE = """
import resource, sys, threading
from llama3_jax.base import memory
kept = memory.keep() if sys.argv[1] == 'keep' else None

faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
found = []

def work():
  for _ in range(3):
    before = faults()
    b'.' * (200 << 20)  # as a step of a thread of XLA
    found.append(faults() - before)

thread = threading.Thread(target=work)
thread.start()
thread.join()
print(kept, found[-1])
"""


def run(how):
  out = subprocess.run(
    [sys.executable, '-c', CODE, how], capture_output=True, text=True
  )
  kept, faults = out.stdout.split()
  return kept == 'True', int(faults)


def test_what_a_thread_frees_is_not_mapped_anew():
  kept, faults = run('keep')
  if not kept:
    pytest.skip('another allocator than that of glibc')
  assert faults < 1000 < 10_000 < run('default')[1]
