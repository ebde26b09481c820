"""Huge pages: asked for once, in the same process, and the pages are there."""

import os
import pathlib
import subprocess
import sys

import pytest

from llama3_jax.base import memory

CODE = """
import os, resource, sys
from llama3_jax.base import memory
if sys.argv[1] == 'huge':
  memory.restart()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
before = faults()
b'.' * (200 << 20)  # as a step of training
print(os.getpid(), faults() - before, *sys.argv[2:], sys.stdin.read())
"""


@pytest.fixture
def switch(monkeypatch, tmp_path):
  """Sets what the system does about huge pages; nothing is asked for yet."""
  monkeypatch.setattr(memory, 'SWITCH', tmp_path / 'enabled')
  monkeypatch.delenv(memory.VARIABLE, raising=False)
  return memory.SWITCH.write_text


def run(how):
  """(number of the process as started, as it ended, page faults, what else it said)."""
  env = {k: v for k, v in os.environ.items() if k != memory.VARIABLE}
  command = [sys.executable, '-c', CODE, how, 'an argument']
  pipe = subprocess.PIPE
  with subprocess.Popen(command, stdin=pipe, stdout=pipe, env=env, text=True) as child:
    out, _ = child.communicate('from the pipe')
  number, faults, said = out.split(maxsplit=2)
  return child.pid, int(number), int(faults), said


def test_pages_are_huge_in_the_same_process_with_its_arguments_and_files():
  if not memory.SWITCH.exists() or '[madvise]' not in memory.SWITCH.read_text():
    pytest.skip('this system gives no huge pages to who asks')
  started, number, faults, said = run('huge')
  assert started == number and said == 'an argument from the pipe\n'
  assert faults < 2000 < 20_000 < run('small')[2]


def test_asked_for_once_and_only_where_it_helps(switch, monkeypatch):
  switch('always [madvise] never')
  assert memory.huge_pages() and not memory.huge_pages()
  assert os.environ[memory.VARIABLE] == memory.SETTING
  monkeypatch.setenv(memory.VARIABLE, 'glibc.malloc.check=1')
  assert memory.huge_pages()
  assert os.environ[memory.VARIABLE] == f'glibc.malloc.check=1:{memory.SETTING}'
  for theirs, given in (
    ('glibc.malloc.hugetlb=0', 'always [madvise] never'),
    ('', '[always] madvise never'),
    ('', 'always madvise [never]'),
  ):
    monkeypatch.setenv(memory.VARIABLE, theirs)
    switch(given)
    assert not memory.huge_pages() and os.environ[memory.VARIABLE] == theirs
  monkeypatch.setattr(memory, 'SWITCH', pathlib.Path('/no/such/file'))
  assert not memory.huge_pages()


def test_not_under_a_debugger(switch, monkeypatch):
  switch('always [madvise] never')
  monkeypatch.setattr(os, 'execv', lambda *_: pytest.fail('started anew'))
  monkeypatch.setattr(sys, 'gettrace', lambda: print)
  memory.restart()
