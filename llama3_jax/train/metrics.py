"""Writes metrics to metrics.jsonl and TensorBoard; progress bar and step reports."""

import contextlib
import errno
import json
import os
import pathlib
import sys
import threading
import time
from collections.abc import Iterator
from collections.abc import Mapping

import jax
import tensorboardX
import tqdm
from absl import logging

from llama3_jax.base import jsonl
from llama3_jax.config import ModelConfig
from llama3_jax.model import flops

WIDTH = 71  # of a step report: 80 columns less the time at the start of the line


class Writer:
  """Appends rows to <workdir>/metrics.jsonl and TensorBoard; process 0 only.

  On resume the rows of steps that will run again are removed first.
  """

  def __init__(self, workdir: str | os.PathLike, resume_step: int) -> None:
    self.active = jax.process_index() == 0
    if not self.active:
      return
    folder = pathlib.Path(workdir)
    self.path = folder / 'metrics.jsonl'
    # A run that starts again from nothing measures step 0 again.
    rows = [r for r in read(workdir) if r['step'] <= resume_step] if resume_step else []
    jsonl.write(self.path, rows)
    self.file = open(self.path, 'a', encoding='utf-8')
    before = set(threading.enumerate())
    # The queue must not be full before write() sees that TensorBoard's thread has died.
    self.board = tensorboardX.SummaryWriter(
      str(folder / 'tensorboard'), purge_step=resume_step + 1, max_queue=10_000
    )
    self.threads = set(threading.enumerate()) - before

  def write(self, step: int, row: Mapping[str, object]) -> None:
    """Appends a row; OSError on a full disk.

    TensorBoard writes in a thread of its own, which ends silently on the first error:
    the queue would fill up, and the run would block on it forever.
    """
    if not self.active:
      return
    if not all(thread.is_alive() for thread in self.threads):
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.board.logdir)
    self.file.write(json.dumps({'step': step, **row}) + '\n')
    self.file.flush()
    for name, value in row.items():
      if isinstance(value, (int, float)):
        self.board.add_scalar(name, value, step)

  def close(self) -> None:
    if self.active:
      self.file.close()
      self.board.close()


def read(workdir: str | os.PathLike) -> list[dict]:
  """Rows of metrics.jsonl, in order; a line that is not the row of a step, such as a
  half-written last one (kill -9), is left out."""
  path = pathlib.Path(workdir) / 'metrics.jsonl'
  rows = []
  for line in path.read_bytes().split(b'\n') if path.exists() else ():
    try:
      row = json.loads(line)
    except (ValueError, RecursionError):
      continue
    if isinstance(row, dict) and type(row.get('step')) is int:
      rows.append(row)
  return rows


class Meter:
  """Rates of a step: tokens/s and MFU over the time since the last call."""

  def __init__(self, config: ModelConfig) -> None:
    self.config = config
    self.peak, source = flops.peak()
    logging.info('%s; peak %.3g FLOP/s (%s)', flops.FORMULA, self.peak, source)
    self.last = time.perf_counter()

  def rates(self, tokens: int, length: int) -> dict[str, float]:
    """Rates over `tokens` of rows of `length`: tokens_per_s, mfu (0 to 1), seconds."""
    now = time.perf_counter()
    seconds, self.last = now - self.last, now
    rate = tokens / seconds
    used = rate * flops.per_token(self.config, length)
    # The devices of one CPU share its cores, and the measured peak is of all of them.
    cpu = jax.default_backend() == 'cpu'
    devices = jax.process_count() if cpu else jax.device_count()
    mfu = used / (self.peak * devices)
    # Above 1 the time is not that of these tokens.
    known = {'mfu': mfu} if mfu <= 1 else {}
    return {'tokens_per_s': rate, **known, 'seconds': seconds}


@contextlib.contextmanager
def progress(total: int, done: int, name: str) -> Iterator[tqdm.tqdm]:
  """Progress bar on a terminal, with log lines above it; elsewhere it is silent, as the
  log has plain lines."""
  visible = sys.stderr.isatty()
  bar = tqdm.tqdm(
    total=total, initial=done, desc=name, unit='step', disable=not visible
  )
  handler = logging.get_absl_handler().python_handler
  plain = handler.emit

  def above(record):
    with tqdm.tqdm.external_write_mode(file=sys.stderr):
      plain(record)

  if visible:
    handler.emit = above
  try:
    with bar:
      yield bar
  finally:
    handler.emit = plain


def line(step: int, steps: int, row: Mapping[str, float], left_s: float) -> str:
  """One step report that fits into 80 columns together with the time of the log."""
  minutes, seconds = divmod(round(left_s), 60)
  hours, minutes = divmod(minutes, 60)
  eta = f'{hours}:{minutes:02}:{seconds:02}' if hours else f'{minutes}:{seconds:02}'
  parts = [f'step {step}/{steps} eta {eta}']
  names = {'loss': 'loss', 'accuracy': 'accuracy', 'grad_norm': 'norm', 'lr': 'lr'}
  parts += [f'{short} {row[n]:.3g}' for n, short in names.items() if n in row]
  if row.get('bad_steps'):
    parts.append(f'bad {row["bad_steps"]:.0f}')
  rate = row['tokens_per_s']
  parts.append(f'{rate / 1e3:.3g}k tok/s' if rate >= 1000 else f'{rate:.0f} tok/s')
  return ' '.join(parts)[:WIDTH]
