"""Hang watchdog: writes all stacks when no step ends for too long (3.3.4)."""

import faulthandler
import os
import pathlib
import sys
import tempfile
import threading
import time

import jax
from absl import logging

STATUS = 3  # exit status of a process that ends because it hangs


class Watchdog:
  """A thread that expects `beat` every `seconds` (0: it is not started).

  A hang writes <workdir>/stacks/<process>.txt with the stack of every thread, and one
  line with the phase that hangs. With `leave` the process then ends.
  """

  def __init__(self, workdir: str | os.PathLike, seconds: float, leave: bool) -> None:
    self.folder = pathlib.Path(workdir) / 'stacks'
    self.seconds, self.leave = seconds, leave
    self.doing, self.heard = 'the start', time.monotonic()
    self.over = threading.Event()
    self.process = jax.process_index()

  def __enter__(self):
    if self.seconds:
      self.heard = time.monotonic()
      threading.Thread(target=self._run, name='watchdog', daemon=True).start()
    return self

  def __exit__(self, *_):
    self.over.set()

  def beat(self, doing: str) -> None:
    """Records progress; `doing` names the phase that starts now."""
    self.doing, self.heard = doing, time.monotonic()

  def _run(self):
    while not self.over.wait(min(self.seconds / 4, 10)):
      heard = self.heard
      if time.monotonic() - heard > self.seconds:
        self._report()
        while self.heard == heard and not self.over.wait(1):
          pass

  def _report(self):
    path = self._dump()
    line = (
      f'process {self.process} hangs: nothing has moved for {self.seconds:g} s in '
      f'{self.doing}; the stacks are in {path}'
    )
    if not self.leave:
      logging.error('%s', line)
      return
    sys.__stderr__.write(f'experiment: {line}; the same command resumes\n')
    sys.__stderr__.flush()
    os._exit(STATUS)

  def _dump(self):
    """Writes the stacks, to a temporary file where the workdir cannot be written."""
    name = f'{self.process}.txt'
    try:
      self.folder.mkdir(exist_ok=True)
      file = open(self.folder / name, 'a', encoding='utf-8')
    except OSError:
      file = tempfile.NamedTemporaryFile('a', suffix=name, delete=False)
    with file:
      file.write(f'{time.strftime("%Y-%m-%d %H:%M:%S")} {self.doing}\n')
      file.flush()
      faulthandler.dump_traceback(file, all_threads=True)
    return file.name
