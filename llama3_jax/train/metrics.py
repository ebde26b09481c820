"""Writes metrics to metrics.jsonl and to boards; progress bar and step reports."""

import contextlib
import json
import os
import pathlib
import sys
from collections.abc import Iterator
from collections.abc import Mapping

import jax
import tqdm
from absl import logging

from llama3_jax.base import jsonl
from llama3_jax.config import ModelConfig
from llama3_jax.model import flops
from llama3_jax.train import boards

WIDTH = 71  # of a step report: 80 columns less the time at the start of the line


class Writer:
  """Appends rows to <workdir>/metrics.jsonl and to the boards; process 0 only.

  On resume the rows of steps that will run again are removed first. wandb: a project of
  Weights & Biases, '' for none.
  """

  def __init__(
    self, workdir: str | os.PathLike, resume_step: int, wandb: str = ''
  ) -> None:
    self.boards, self.file = [], None
    if jax.process_index():
      return
    folder = pathlib.Path(workdir)
    path = folder / 'metrics.jsonl'
    # A run that starts again from nothing measures step 0 again.
    rows = [r for r in read(workdir) if r['step'] <= resume_step] if resume_step else []
    jsonl.write(path, rows)
    self.file = open(path, 'a', encoding='utf-8')
    self.boards = [boards.TensorBoard(folder, resume_step)]
    if wandb:
      self.boards.append(boards.Wandb(folder, wandb))

  def write(self, step: int, row: Mapping[str, object]) -> None:
    """Appends a row; OSError on a full disk."""
    if self.file is None:
      return
    self.file.write(json.dumps({'step': step, **row}) + '\n')
    self.file.flush()
    numbers = {n: v for n, v in row.items() if isinstance(v, (int, float))}
    for board in self.boards:
      board.write(step, numbers)

  def close(self) -> None:
    """Writes what is left; a closed writer may be closed again."""
    if self.file is not None:
      self.file.close()
    for board in self.boards:
      board.close()
    self.boards, self.file = [], None


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
  """Rates of steps: tokens/s and MFU over the seconds of steps since the last call."""

  def __init__(self, config: ModelConfig, useful: float = 0.0) -> None:
    self.config = config
    self.peak, source = flops.peak()
    logging.info('%s; peak %.3g FLOP/s (%s)', flops.FORMULA, self.peak, source)
    self.last = useful

  def rates(self, tokens: int, length: int, useful: float) -> dict[str, float]:
    """{'tokens_per_s', 'mfu' (0 to 1), 'seconds'}; {} where no time was spent on steps.

    Args:
      tokens: of rows of `length`, since the last call.
      useful: seconds of all steps so far, without compilation, evaluation and saves.
    """
    seconds, self.last = useful - self.last, useful
    if not tokens or seconds <= 0:
      return {}
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
    total=total,
    initial=done,
    desc=name,
    unit='step',
    disable=not visible,
    dynamic_ncols=True,
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


def line(
  step: int, steps: int, row: Mapping[str, float], left_s: float | None = None
) -> str:
  """One step report that fits into 80 columns together with the time of the log.

  left_s: seconds until the end, None where they are not known.
  """
  parts = {'step': f'step {step}/{steps}', 'loss': f'loss {row["loss"]:.3g}'}
  if 'accuracy' in row:
    parts['accuracy'] = f'accuracy {row["accuracy"]:.3g}'
  parts['lr'] = f'lr {_rate(row["lr"])}'
  if row.get('bad_steps'):
    parts['bad'] = f'{row["bad_steps"]:.0f} bad'
  if 'tokens_per_s' in row:
    parts['speed'] = f'{short(row["tokens_per_s"])} tok/s'
  if 'compile_s' in row:
    parts['compiled'] = f'{row["compile_s"]:.1f} s with compilation'
  if left_s is not None:
    parts['eta'] = f'eta {clock(left_s)}'
  for least in ('lr', 'speed', 'accuracy', 'compiled'):
    if len('  '.join(parts.values())) > WIDTH:
      parts.pop(least, None)
  return '  '.join(parts.values())


def held_out(step: int, steps: int, losses: Mapping[str, float]) -> str:
  """The report of an evaluation: the loss of the mix, then of each source."""
  named = {n.removeprefix('eval/'): v for n, v in losses.items() if n != 'eval_loss'}
  if list(named.values()) == [losses.get('eval_loss')]:
    named = {}  # one source is the whole mix
  parts = [f'step {step}/{steps}']
  if 'eval_loss' in losses:
    parts.append(f'held-out loss {losses["eval_loss"]:.4g}')
  parts += [f'{name} {value:.4g}' for name, value in named.items()]
  return '  '.join(parts if losses else [*parts, 'nothing is held out to measure'])


def clock(seconds: float) -> str:
  """Seconds as '2:10' or '1:02:10'."""
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f'{hours}:{minutes:02}:{seconds:02}' if hours else f'{minutes}:{seconds:02}'


def _rate(value):
  """A learning rate: 0.003 is '3.0e-3'."""
  digits, _, power = f'{value:.1e}'.partition('e')
  return f'{digits}e{int(power)}' if value else '0'


def short(value: float) -> str:
  """A number with three digits: 12345 is '12.3k'."""
  for power, letter in ((1e9, 'G'), (1e6, 'M'), (1e3, 'k')):
    if value >= power:
      return f'{value / power:.3g}{letter}'
  return f'{value:.3g}'
