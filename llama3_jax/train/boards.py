"""Boards that show the metrics of a run: TensorBoard, Weights & Biases."""

import errno
import importlib.util
import os
import pathlib
import threading
import types
import uuid
from collections.abc import Mapping

import tensorboardX
from absl import logging

from llama3_jax import workdir as workdirs
from llama3_jax.base import files
from llama3_jax.base import log
from llama3_jax.base.errors import UserError


class TensorBoard:
  """Writes scalars to <folder>/tensorboard; steps after `resume_step` are undone."""

  def __init__(self, folder: pathlib.Path, resume_step: int) -> None:
    before = set(threading.enumerate())
    # The queue must not be full before write() sees that TensorBoard's thread has died.
    self.board = tensorboardX.SummaryWriter(
      str(folder / 'tensorboard'), purge_step=resume_step + 1, max_queue=10_000
    )
    self.threads = set(threading.enumerate()) - before

  def write(self, step: int, row: Mapping[str, float]) -> None:
    """Adds the scalars of a step; OSError on a full disk.

    TensorBoard writes in a thread of its own, which ends silently on the first error:
    the queue would fill up, and the run would block on it forever.
    """
    if not all(thread.is_alive() for thread in self.threads):
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.board.logdir)
    for name, value in row.items():
      self.board.add_scalar(name, value, step)

  def close(self) -> None:
    """Writes what is in the queue."""
    self.board.close()


class Wandb:
  """Writes rows to a run of Weights & Biases, which a resumed run continues.

  WANDB_MODE=offline keeps it in <folder>/wandb. What fails there after the start is a
  line in the log: the training does not need it.
  """

  def __init__(self, folder: pathlib.Path, project: str) -> None:
    wandb = _wandb(project)
    kept, record = folder / 'wandb.json', folder / workdirs.NAME
    if not kept.exists():
      files.write_json(kept, {'id': uuid.uuid4().hex[:12]})
    config = workdirs.read(record)['config'] if record.exists() else {}
    try:
      with log.work('connecting to Weights & Biases'):
        self.run = wandb.init(
          project=project,
          id=files.read_json(kept)['id'],
          name=folder.resolve().name,
          dir=str(folder),
          config=config,
          resume='allow',
          reinit='create_new',
          settings=wandb.Settings(silent=True, console='off', finish_timeout=60),
        )
    except Exception as e:  # no key, no network, no such project
      reason = ' '.join(str(e).split())[:200]
      raise UserError(
        f'train.wandb={project}: Weights & Biases cannot be used ({reason}): set '
        'WANDB_API_KEY, or WANDB_MODE=offline, or train.wandb='
      ) from None
    # Rows of a step that ran twice have the same x.
    self.run.define_metric('*', step_metric='step')
    kept = pathlib.Path(self.run.dir).parent
    logging.info('Weights & Biases: %s', self.run.url or f'wandb sync {kept}')

  def write(self, step: int, row: Mapping[str, float]) -> None:
    """Logs the numbers of a step."""
    self._tried(lambda: self.run.log({'step': step, **row}))

  def close(self) -> None:
    """Sends what is left, for a minute at most."""
    self._tried(lambda: self.run.finish())

  def _tried(self, act):
    if self.run is None:
      return
    try:
      act()
    except Exception as e:
      reason = ' '.join(str(e).split())[:200]
      logging.warning('Weights & Biases gets no more metrics (%s)', reason)
      self.run = None


def check(project: str) -> None:
  """UserError where a project of Weights & Biases is named and it is not installed."""
  if project and importlib.util.find_spec('wandb') is None:
    raise UserError(
      f"train.wandb={project} needs wandb: pip install -e '.[wandb]', or train.wandb="
    )


def _wandb(project) -> types.ModuleType:
  check(project)
  import wandb

  return wandb
