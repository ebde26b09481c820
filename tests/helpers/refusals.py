"""What the launcher says where it refuses, in a process of its own or in this one."""

import io
import logging
import signal
import sys
import threading

import pytest
from absl import logging as absl_logging

import experiment
from llama3_jax.base import lock


def last_line(found, text, status=2):
  """The one line that the launcher ends with; it exits with `status`."""
  assert 'Traceback' not in text, text
  assert found == status, text
  line = text.rstrip('\n').split('\n')[-1]
  assert line.startswith('experiment: '), text
  return line


@pytest.fixture
def told(monkeypatch):
  """told(*arguments): the line of the launcher in this process, before it looks for
  devices unless `blind` is False; what it sets for the process is set back."""
  handler = absl_logging.get_absl_handler()
  kept = [(threading, 'excepthook'), (sys, 'unraisablehook'), (handler, 'filters')]
  kept += [(handler.python_handler, 'formatter'), (logging.root, 'handlers')]
  kept += [(absl_logging, '_warn_preinit_stderr')]

  def touched(_):
    raise AssertionError('the launcher looks for devices')

  def call(*arguments, blind=True):
    term, level = signal.getsignal(signal.SIGTERM), absl_logging.get_verbosity()
    with monkeypatch.context() as patch:
      for owner, name in kept:
        value = getattr(owner, name)
        patch.setattr(owner, name, list(value) if isinstance(value, list) else value)
      patch.setattr(sys, 'stderr', io.StringIO())
      text = sys.stderr
      patch.setattr(experiment, '_devices', touched if blind else dict)
      status = experiment.launch([str(a) for a in arguments])
    signal.signal(signal.SIGTERM, term)
    absl_logging.set_verbosity(level)
    for folder in [a for a in map(str, arguments) if a.startswith('--workdir=')]:
      lock.release(folder.partition('=')[2])
    return last_line(status, text.getvalue())

  return call
