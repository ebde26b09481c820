"""Lines of the log: their form, work that takes long, no silence without a word."""

import contextlib
import logging as python_logging
import pathlib
import shutil
import sys
import textwrap
import threading
import time
import types
import warnings
from collections.abc import Iterator

from absl import logging

ROOT = pathlib.Path(__file__).parents[2]
OWN = tuple(str(ROOT / n) for n in ('llama3_jax', 'experiments', 'experiment.py'))
TIME = '12:34:56 '  # how each line begins
WORK_S = 5.0  # work of less time is not worth a line
QUIET_S = 30.0  # longest silence of a log that is not a terminal
_FORM = python_logging.Formatter('%(asctime)s %(message)s', '%H:%M:%S')


def start(quiet: bool = False) -> None:
  """Gives the log of this process its form; `quiet`: warnings alone.

  Our own lines, warnings of libraries and Python's warnings begin with the time; on a
  terminal a long one is continued below its words.
  """
  logging.set_verbosity(logging.WARNING if quiet else logging.INFO)
  logging._warn_preinit_stderr = False  # our flags are not absl's
  logging.use_absl_handler()
  handler = logging.get_absl_handler()
  handler.addFilter(_ours)
  handler.setFormatter(types.SimpleNamespace(format=_formatted))
  warnings.formatwarning = lambda message, category, *_: (
    f'{category.__name__}: {message}'
  )
  python_logging.captureWarnings(True)


def _formatted(record):
  line = _FORM.format(record)
  return wrapped(line, _columns()) if sys.stderr.isatty() else line


def wrapped(line: str, columns: int) -> str:
  """A line of the log in `columns`: its words are continued below, behind the time.

  A word of more columns stays whole (a path is copied), and so does text of several
  lines, which is a table.
  """
  if len(line) <= columns or '\n' in line:
    return line
  blanks = ' ' * len(TIME)
  how = dict(break_long_words=False, break_on_hyphens=False)
  return textwrap.fill(line, columns, subsequent_indent=blanks, **how)


def _columns():
  return max(shutil.get_terminal_size().columns, 2 * len(TIME))


def _ours(record):
  """Our own lines, and the warnings of libraries that log every file they touch."""
  # Orbax logs what it then raises, with its traceback.
  warns = record.levelno >= python_logging.WARNING and 'orbax' not in record.pathname
  return record.pathname.startswith(OWN) or warns


@contextlib.contextmanager
def work(what: str) -> Iterator[None]:
  """Says `what` is done in this block if it takes long, and then how long it took."""
  began, said = time.monotonic(), threading.Event()

  def say():
    said.set()
    logging.info('%s', what)

  timer = threading.Timer(WORK_S, say)
  timer.daemon = True
  timer.start()
  try:
    yield
  finally:
    timer.cancel()
  if said.is_set():
    logging.info('%s: done in %.0f s', what, time.monotonic() - began)


@contextlib.contextmanager
def heart() -> Iterator[None]:
  """In this block the log is never silent for more than QUIET_S: it repeats since when
  there was no other line. Of use where no bar moves, so not on a terminal."""
  handler = logging.get_absl_handler()
  last, over = ['the start', time.monotonic(), time.monotonic()], threading.Event()
  thread = threading.Thread(target=lambda: _beat(last, over), name='heart', daemon=True)

  def note(record):
    last[2] = time.monotonic()
    if threading.current_thread() is not thread:
      last[:2] = record.getMessage().partition('\n')[0], last[2]
    return True

  handler.addFilter(note)
  thread.start()
  try:
    yield
  finally:
    over.set()
    handler.removeFilter(note)


def _beat(last, over):
  while not over.wait(max(last[2] + QUIET_S - time.monotonic(), 0.05)):
    message, since, heard = last
    if time.monotonic() - heard >= QUIET_S:
      seconds = time.monotonic() - since
      logging.info('still running, %.0f s after: %.40s', seconds, message)
