"""Effective training time: useful seconds over seconds since the first start (3.3.4).

The account is kept in <workdir>/goodput.json over all restarts. Steps that a crash or
a rewind undid are taken out of the useful time, whose sum is saved with each
checkpoint.
"""

import json
import os
import pathlib
import time

from llama3_jax.base import files
from llama3_jax.base import processes

EVERY = 1.0  # seconds between two writes of the file
IMPORTS = 20.0  # seconds from the start of a process to its first workdir, at most
STARTS = 300.0  # seconds that imports and data may take before training
# start: imports, data and restore; down: between a death and the next start; lost:
# steps that were undone; other: what the experiment does beside training
KINDS = ('step', 'start', 'compile', 'evaluate', 'save', 'replay', 'lost', 'down')
KINDS += ('other',)


class Clock:
  """Counts the seconds of this process by kind; the first process writes the file."""

  def __init__(self, workdir: str | os.PathLike) -> None:
    self.path = pathlib.Path(workdir) / 'goodput.json'
    self.path.parent.mkdir(parents=True, exist_ok=True)
    now, process = time.time(), _process()
    self.zero = now - time.monotonic()  # setting the clock later changes no account
    self.me = [process, os.getpid()]
    began = _began(self.path.with_name('config.json'), process, now)
    self.seconds = dict.fromkeys(KINDS, 0.0)
    self.first, self.starts, self.at = began, 1, began
    kind = 'start'
    if old := _read(self.path):
      self.first, self.starts = old['first'], old['starts']
      self.seconds |= old['seconds']
      if old['process'] == self.me:  # a second stage of training in one run
        self.at, kind = old['last'], 'other'
      else:
        self.starts += 1
        self.seconds['down'] += max(began - old['last'], 0.0)
    self.written = 0.0
    self.mark(kind)

  @property
  def useful(self) -> float:
    """Seconds of steps that were not undone."""
    return self.seconds['step']

  def mark(self, kind: str) -> float:
    """Counts the time since the last mark as `kind`; returns its seconds."""
    now = self.zero + time.monotonic()
    seconds = max(now - self.at, 0.0)
    self.seconds[kind] += seconds
    self.at = now
    if now - self.written > EVERY:
      self.write()
    return seconds

  def back(self, useful: float) -> None:
    """Records that training resumes from a save after `useful` seconds of steps."""
    self.seconds['lost'] += max(self.seconds['step'] - useful, 0.0)
    self.seconds['step'] = useful

  def goodput(self) -> float:
    """Useful seconds over all seconds."""
    return self.useful / max(sum(self.seconds.values()), 1e-9)

  def write(self) -> None:
    """Writes the account in the first process."""
    self.written = self.at
    if processes.first():
      account = {'first': self.first, 'last': self.at, 'process': self.me}
      account |= {'starts': self.starts, 'seconds': self.seconds}
      files.write_json(self.path, account)


def report(workdir: str | os.PathLike) -> dict[str, float]:
  """{'goodput', 'elapsed_s', 'starts', '<kind>_s'} of a run so far, {} if none."""
  account = _read(pathlib.Path(workdir) / 'goodput.json')
  if not account:
    return {}
  elapsed = sum(
    account['seconds'].values()
  )  # not last - first: a clock may be set back
  return {
    'goodput': account['seconds']['step'] / max(elapsed, 1e-9),
    'elapsed_s': elapsed,
    'starts': account['starts'],
    **{f'{kind}_s': seconds for kind, seconds in account['seconds'].items()},
  }


def _began(config, process, now):
  """When this run began: with its process, or with the workdir (time of config.json) if
  the process did something else before, such as an earlier stage or a notebook."""
  claimed = config.stat().st_mtime if config.exists() else now
  if claimed < process + IMPORTS and now - process < STARTS:
    return process
  return claimed if claimed > process else now


def _read(path):
  """The account in a file, or None if it is missing, truncated or not an account."""
  try:
    account = json.loads(path.read_text(encoding='utf-8'))
    numbers = [
      account['first'],
      account['last'],
      account['starts'],
      *account['seconds'].values(),
    ]
    whole = isinstance(account['process'], list) and set(account['seconds']) <= set(
      KINDS
    )
  except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
    return None
  whole &= all(type(n) in (int, float) and n >= 0 for n in numbers)
  return account if whole else None


def _process():
  """When this process started, seconds since 1970; 0 where that is not known."""
  try:
    return os.stat('/proc/self').st_ctime
  except OSError:
    return 0.0
