"""Rewinds to an earlier save after a bad step, to resume with later data (3.3.4)."""

import os
import pathlib

from llama3_jax.base import files
from llama3_jax.base import processes
from llama3_jax.base.errors import UserError


class Rewinds:
  """The rewinds of a run, kept in <workdir>/rewinds.json: from which step to which, and
  the data with which the run resumed."""

  def __init__(
    self, workdir: str | os.PathLike, rewind_steps: int, max_rewinds: int
  ) -> None:
    self.path = pathlib.Path(workdir) / 'rewinds.json'
    self.steps, self.most = rewind_steps, max_rewinds

  def read(self) -> list[dict[str, object]]:
    """[{'to', 'from', 'tokens', 'data'}], in the order in which they happened."""
    return files.read_json(self.path) if self.path.exists() else []

  def data(self, step: int) -> list[object]:
    """States of the data with which the run resumed from `step`; the last counts."""
    return [rewind['data'] for rewind in self.read() if rewind['to'] == step]

  def back(self, bad: int, data: object, checkpoints: object) -> tuple[int | None, int]:
    """(save to resume from after the step `bad`, None for the start; rewinds so far).

    Removes the later saves first: if the run dies before rewinds.json is written, it
    runs the same bad step again.

    Args:
      bad: step.
      data: stream with state() and tokens, with which the run resumes.
      checkpoints: train/checkpoint.py's, with wait(), steps() and forget(step).
    """
    rewinds = self.read()
    if len(rewinds) >= self.most:
      raise UserError(
        f'step {bad} is bad after {len(rewinds)} rewinds (train.max_rewinds): look at '
        'the data and at optim.peak, or resume with train.on_bad_step=skip'
      )
    checkpoints.wait()
    kept = checkpoints.steps()
    old = [s for s in kept if s <= bad - self.steps] or kept[:1] or [None]
    target = old[-1]
    checkpoints.forget(target or 0)
    row = {'to': target or 0, 'from': bad, 'tokens': data.tokens, 'data': data.state()}
    processes.write_json(self.path, [*rewinds, row])
    return target, len(rewinds) + 1
