"""Signals to a run: SIGTERM saves and ends it, SIGUSR1 saves and continues."""

import contextlib
import signal
import threading

import jax
from jax.experimental import multihost_utils


class Asked:
  """What this process was asked for; several agree on the step before they act."""

  def __init__(self):
    self.term, self.user = threading.Event(), threading.Event()
    self.several = jax.process_count() > 1
    self.count = 0

  def stop(self):
    """Whether to stop after this step: at the same step on all processes."""
    self.count += 1
    if self.several:
      return multihost_utils.reached_preemption_sync_point(self.count)
    return self.term.is_set()

  def save(self):
    """Whether this process was asked to save, since it was looked at last."""
    asked = self.user.is_set()
    self.user.clear()
    return asked


@contextlib.contextmanager
def listen():
  """Asked, which signals set; the handlers of before come back at the end.

  With several processes jax listens to SIGTERM itself.
  """
  asked = Asked()
  if threading.current_thread() is not threading.main_thread():
    yield asked
    return
  wanted = {signal.SIGUSR1: asked.user}
  if not asked.several:
    wanted[signal.SIGTERM] = asked.term
  before = {
    number: signal.signal(number, lambda *_, event=event: event.set())
    for number, event in wanted.items()
  }
  try:
    yield asked
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
