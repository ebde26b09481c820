"""Checkpoints: asynchronous, atomic, restored onto any mesh (section 3.3.3).

A thin layer over Orbax's CheckpointManager: unfinished saves stay under a temporary
name and are ignored, no save is dropped. `final/` holds the parameters a stage hands
to the next one. Both carry digests, so that damaged data is refused, with its name.
"""

import os
import pathlib
from collections.abc import Mapping

import orbax.checkpoint as ocp
from absl import logging
from etils import epath
from ml_collections import ConfigDict

from llama3_jax import workdir as workdirs
from llama3_jax.base import processes
from llama3_jax.base.errors import UserError
from llama3_jax.train import arrays as stored
from llama3_jax.train import beside
from llama3_jax.train import digest
from llama3_jax.train.config import TrainConfig


class Checkpoints:
  """Saves and restores (training state, data state) under <workdir>/checkpoints.

  Args:
    keep: number of newest saves that are kept.
    every: saves at multiples of this step are never deleted; 0: none.
    elsewhere: folder in place of <workdir>/checkpoints; may be remote (gs://bucket/run).
  """

  def __init__(
    self, workdir: str | os.PathLike, keep: int = 2, every: int = 0, elsewhere: str = ''
  ) -> None:
    self.folder = _folder(workdir, elsewhere)
    field = 'train.checkpoints' if elsewhere else '--workdir'
    if keep < 1:
      raise UserError(f'train.keep={keep}: 1 or more saves are kept')
    if '://' not in elsewhere and self.folder.exists() and not self.folder.is_dir():
      raise UserError(f'{field}: {self.folder} is a file: name a folder for the saves')
    options = ocp.CheckpointManagerOptions(
      max_to_keep=keep, keep_period=every or None, create=True
    )
    with stored.quiet():
      try:
        self.manager = ocp.CheckpointManager(self.folder, options=options)
      except (OSError, ValueError, RuntimeError, ImportError) as e:
        text = ' '.join(str(e).split())[:300]
        raise UserError(f'{field}: {self.folder} cannot be used ({text})')
    if elsewhere and processes.first():
      workdirs.own(self.folder, workdir, field)
    processes.meet('checkpoints')

  def save(self, step: int, state: object, data: Mapping) -> None:
    """Start saving `state` and the JSON-able `data` as `step`; returns at once."""
    if step in self.manager.all_steps():
      logging.info('step %d is saved already', step)
      return
    digests = {'data': digest.value(data), 'arrays': digest.arrays(state), 'step': step}
    args = ocp.args.Composite(
      state=ocp.args.StandardSave(state),
      data=ocp.args.JsonSave(data),
      digest=ocp.args.JsonSave(digests),
    )
    try:
      saved = self.manager.save(step, args=args, force=True)
    except (OSError, ValueError) as e:
      raise stored.explain(e, self.folder)
    if not saved:
      latest = self.manager.latest_step()
      raise UserError(
        f'{self.folder}: step {step} was not saved, the latest is {latest}: '
        'another run wrote here; choose another --workdir'
      )

  def latest(self) -> int | None:
    return self.manager.latest_step()

  def steps(self) -> list[int]:
    """Steps that are kept, rising."""
    return sorted(self.manager.all_steps())

  def restore(self, abstract: object, step: int | None = None) -> tuple | None:
    """(state, data) of `step` or the latest save, with the layout of `abstract`; None
    without a save. Raises UserError for another tree or damaged values."""
    step = self.latest() if step is None else step
    if step is None:
      return None
    folder = self.folder / str(step)
    data, digests = self._data(step)

    def read(abstract):
      args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
      return self.manager.restore(step, args=args)['state']

    marks, path = digests and digests['arrays'], folder / 'state'
    return stored.read(read, path, abstract, marks, folder, stored.AGAIN), data

  def data(self, step: int) -> dict:
    """The JSON part of a save."""
    return self._data(step)[0]

  def _data(self, step):
    """(data, digests) of a save; the digests are None for a save without them."""
    folder = self.folder / str(step)
    items = {'data': ocp.args.JsonRestore()}
    if (folder / 'digest').exists():
      items['digest'] = ocp.args.JsonRestore()
    try:
      with stored.quiet():
        parts = self.manager.restore(step, args=ocp.args.Composite(**items))
    except Exception as e:
      raise stored.explain(e, folder)
    data, digests = parts['data'], parts.get('digest')
    if 'digest' not in items:
      logging.info('%s has no digests: it is used unchecked', folder)
    elif not (isinstance(digests, dict) and isinstance(digests.get('arrays'), dict)):
      raise beside.damaged(folder, 'digest', stored.AGAIN)
    elif digests.get('step', step) != step:
      raise UserError(
        f'{folder} is the save of step {digests["step"]} under another name: give the '
        'folder its own name back, or remove it'
      )
    elif digests.get('data') != digest.value(data):
      raise beside.damaged(folder, 'data', stored.AGAIN)
    if not isinstance(data, dict):
      raise beside.damaged(folder, 'data', stored.AGAIN)
    return data, digests

  def forget(self, after: int) -> None:
    """Removes the saves of steps later than `after`; a rewind writes them again."""
    self.wait()
    for step in self.steps():
      if step > after:
        self.manager.delete(step)
    self.manager.wait_until_finished()

  def wait(self) -> None:
    """Block until the last save is on disk."""
    try:
      self.manager.wait_until_finished()
    except Exception as e:
      raise stored.explain(e, self.folder)

  def close(self) -> None:
    self.wait()
    self.manager.close()


def _folder(workdir, elsewhere):
  """The folder of the checkpoints; UserError for an address of an unknown kind."""
  if '://' not in elsewhere:
    local = pathlib.Path(elsewhere or pathlib.Path(workdir, 'checkpoints'))
    return epath.Path(local.resolve())
  try:
    return epath.Path(elsewhere)
  except KeyError:
    raise UserError(
      f'train.checkpoints={elsewhere}: use a folder, gs://, s3:// or az://'
    )


def open_run(
  workdir: str | os.PathLike, train: TrainConfig | ConfigDict
) -> Checkpoints:
  """Checkpoints with the settings of the `train` part of a config."""
  return Checkpoints(workdir, train.keep, train.keep_every, train.checkpoints)
