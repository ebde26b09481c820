"""What the launcher says at its end when the environment or the system is at fault."""

import errno
import os
import subprocess
import sys

import jax
import pytest

import experiment
from llama3_jax.base import errors
from llama3_jax.base import files

ENVIRONMENT = ['JAX_PLATFORMS=nothing', 'JAX_ENABLE_X64=maybe']


@pytest.mark.parametrize('variable', ENVIRONMENT)
def test_environment_that_jax_cannot_use_is_one_line(launcher, tmp_path, variable):
  name, _, value = variable.partition('=')
  config = '--config=configs/average.py', "--config.members=('a', 'b')"
  found = launcher.run(*config, f'--workdir={tmp_path}', env={name: value})
  status, text = found
  assert status == 2 and 'Traceback' not in text and name in text, text


# The signal comes inside a callback of the collector, as jax has one: python drops what
# is raised there.
LOST = """
import gc, os, signal, sys, time
import experiment

def main(arguments, peers):
  ask = lambda *_: (gc.callbacks.clear(), os.kill(os.getpid(), signal.SIGTERM))
  gc.callbacks.append(ask)
  gc.collect()
  time.sleep(20)

experiment.main = main
sys.exit(experiment.launch([]))
"""


COMPUTING = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
import jax, jax.numpy as jnp
import experiment

def main(arguments, peers):
  long = lambda x: jax.lax.fori_loop(0, 10**6, lambda _, x: jnp.tanh(x @ x), x)
  found = jax.jit(long)(jnp.ones((256, 256)))
  os.kill(os.getpid(), getattr(signal, sys.argv[1]))
  found.block_until_ready()

experiment.main = main
sys.exit(experiment.launch([], experiment._leave))
"""


@pytest.mark.parametrize('name, status', [('SIGTERM', 0), ('SIGINT', 130)])
def test_stop_amid_a_computation_is_an_ending_and_no_crash(name, status):
  command = [sys.executable, '-c', COMPUTING, name]
  done = subprocess.run(command, capture_output=True, text=True, timeout=60)
  assert done.returncode == status and 'resumes' in done.stderr, done


def test_stop_that_a_callback_swallows_is_heard():
  command = [sys.executable, '-c', LOST]
  done = subprocess.run(command, capture_output=True, text=True, timeout=15)
  assert done.returncode == 0 and 'stopped by SIGTERM' in done.stderr, done.stderr


def test_empty_name_of_the_cache_is_the_usual_one(monkeypatch):
  monkeypatch.setenv('LLAMA3_CACHE', '')
  before = jax.config.jax_compilation_cache_dir
  try:
    experiment._devices({})
    assert jax.config.jax_compilation_cache_dir == str(
      files.cache_folder() / 'compiled'
    )
    assert files.cache_folder().is_absolute()
  finally:
    jax.config.update('jax_compilation_cache_dir', before)


@pytest.mark.parametrize('number', [errno.EISDIR, errno.EFBIG, errno.EMFILE])
def test_errors_of_the_system_are_one_line_and_others_are_ours(number):
  status, line = errors.ending(OSError(number, os.strerror(number), 'a/file'))
  assert status == 1 and line.startswith(f'a/file: {os.strerror(number)}; ')
  assert errors.ending(OSError(errno.EPIPE, 'Broken pipe', 'a')) == (1, None)
  assert errors.ending(ValueError('a fault')) == (1, None)
