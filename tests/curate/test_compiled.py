"""Compiled functions: for one layout each, compiled by one process, read by others."""

import os
import subprocess
import sys
import time

import crawls
import numpy as np

from llama3_jax.curate.extraction import trees
from llama3_jax.curate.machine import compiled

SCRIPT = """
import pathlib, sys, time
import numpy as np
import kernels
folder = pathlib.Path(sys.argv[1])
(folder / sys.argv[2]).touch()
while not (folder / 'go').exists():
  time.sleep(0.005)
assert kernels.total(np.arange(5)) == 10
made = kernels.total.compiled
print(sum(made.stats.cache_misses.values()), sum(made.stats.cache_hits.values()))
"""
MODULE = """
from llama3_jax.curate.machine import compiled

@compiled.kernel(compiled.NUMBERS)
def total(values):
  found = 0
  for value in values:
    found += value
  return found
"""


def kernels():
  """{name: numba's dispatcher} of all kernels that are loaded."""
  return {
    f'{module.__name__}.{name}': value.compiled
    for module in list(sys.modules.values())
    if getattr(module, '__name__', '').startswith('llama3_jax.curate')
    for name, value in vars(module).items()
    if callable(value) and hasattr(value, 'compiled')
  }


def test_one_of_two_processes_compiles_and_the_other_reads(tmp_path):
  (tmp_path / 'kernels.py').write_text(MODULE)
  (tmp_path / 'script.py').write_text(SCRIPT)
  own = {'NUMBA_CACHE_DIR': str(tmp_path / 'cache')}
  paths = [str(tmp_path), *sys.path]
  env = {**os.environ, **own, 'PYTHONPATH': os.pathsep.join(filter(None, paths))}
  started = [
    subprocess.Popen(
      [sys.executable, str(tmp_path / 'script.py'), str(tmp_path), name],
      env=env,
      stdout=subprocess.PIPE,
      text=True,
    )
    for name in 'ab'
  ]
  while not all((tmp_path / name).exists() for name in 'ab'):
    assert not any(child.poll() for child in started)
    time.sleep(0.01)
  (tmp_path / 'go').touch()
  said = sorted(child.communicate(timeout=300)[0].split() for child in started)
  assert said == [['0', '1'], ['1', '0']]


def test_every_kernel_of_a_run_is_compiled_for_one_layout(tmp_path):
  before = {name: len(made.signatures) for name, made in kernels().items()}
  crawls.curated(crawls.write_inputs(tmp_path), crawls.CONFIG, tmp_path / 'out')
  after = {name: len(made.signatures) for name, made in kernels().items()}
  assert sum(after.values()) > 25
  more = {n: k for n, k in after.items() if k > max(1, before.get(n, 0))}
  assert not more


def test_nothing_is_compiled_before_it_is_called():
  code = 'from llama3_jax.curate.machine import stages\n'
  code += 'from llama3_jax.curate.extraction import trees, walk\n'
  code += 'print(len(walk._score.compiled.signatures), walk._score.compiled.stats)'
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  assert done.stdout.startswith('0 ')


def test_what_was_compiled_is_left_when_any_source_changes(tmp_path):
  for name in 'ab':
    (tmp_path / f'{name}.py').write_text(name)
  before = compiled.folder(tmp_path)
  assert before == compiled.folder(tmp_path)
  (tmp_path / 'b.py').write_text('c')
  assert compiled.folder(tmp_path) != before
  assert trees._score.compiled.stats.cache_path.startswith(str(compiled.folder()))


def test_a_folder_that_cannot_be_locked_is_no_hindrance(tmp_path):
  (tmp_path / 'file').touch()
  with compiled._alone(str(tmp_path / 'file')):
    pass


def test_a_kernel_keeps_its_name_and_gives_what_the_function_gives():
  x = np.ones((3, 4), np.float32)
  column, limit = np.zeros((1, 1), np.uint16), np.zeros((1, 1), np.float32)
  value = np.array([[-1, 2]], np.float32)
  assert trees._score.__name__ == '_score'
  score = trees._score(x, 0.5, column, limit, value)
  assert score.tolist() == [2.5, 2.5, 2.5]
