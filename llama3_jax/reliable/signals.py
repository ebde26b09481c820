"""Signals to a run: SIGTERM saves and ends it, SIGUSR1 saves and continues."""

import contextlib
import signal
import threading
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils


class Asked:
  """Requests to this process; several processes agree on the step before they act."""

  def __init__(self) -> None:
    self.term, self.user = threading.Event(), threading.Event()
    self.several = jax.process_count() > 1
    self.count = 0

  def stop(self) -> bool:
    """Whether to stop after this step; the same on all processes."""
    self.count += 1
    if self.several:
      return multihost_utils.reached_preemption_sync_point(self.count)
    return self.term.is_set()

  def save(self) -> bool:
    """Whether this process was asked to save since the last call."""
    requested = self.user.is_set()
    self.user.clear()
    return requested


@contextlib.contextmanager
def listen() -> Iterator[Asked]:
  """Yields an Asked that signals set; restores the earlier handlers at the end.

  With several processes jax handles SIGTERM.
  """
  requests = Asked()
  if threading.current_thread() is not threading.main_thread():
    yield requests
    return
  events = {signal.SIGUSR1: requests.user}
  if not requests.several:
    events[signal.SIGTERM] = requests.term
  before = {
    number: signal.signal(number, lambda *_, event=event: event.set())
    for number, event in events.items()
  }
  try:
    yield requests
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
