"""Ctrl-C at a moment that harms nothing."""

import contextlib
import signal
import threading
from collections.abc import Iterator

MAIN = threading.main_thread()


@contextlib.contextmanager
def held() -> Iterator[None]:
  """Ctrl-C waits for the end of this block, in which memory is given away and back."""
  usual, came = signal.getsignal(signal.SIGINT), []
  if usual is not signal.default_int_handler or threading.current_thread() is not MAIN:
    yield
    return
  signal.signal(signal.SIGINT, lambda *_: came.append(True))
  try:
    yield
  finally:
    signal.signal(signal.SIGINT, usual)
  if came:
    raise KeyboardInterrupt
