"""Back to an earlier save after a bad step, and on with other data (section 3.3.4)."""

import pathlib

from llama3_jax.base import files
from llama3_jax.base import processes
from llama3_jax.base.errors import UserError


class Rewinds:
  """The rewinds of a run, kept in <workdir>/rewinds.json: from where to where, and with
  which data the run went on."""

  def __init__(self, workdir, rewind_steps, max_rewinds):
    self.path = pathlib.Path(workdir) / 'rewinds.json'
    self.steps, self.most = rewind_steps, max_rewinds

  def read(self):
    """[{'to', 'from', 'tokens', 'data'}], in the order in which they happened."""
    return files.read_json(self.path) if self.path.exists() else []

  def data(self, step):
    """The data with which the run went on from `step`: states, the last one counts."""
    return [rewind['data'] for rewind in self.read() if rewind['to'] == step]

  def back(self, bad, data, checkpoints):
    """The save to go back to from the step `bad`, None for the start; how many rewinds.

    The saves after it are removed first: should the run die before rewinds.json is
    written, it meets the same bad step again. data: state() and tokens, to go on with.
    """
    found = self.read()
    if len(found) >= self.most:
      raise UserError(
        f'step {bad} is bad after {len(found)} rewinds (train.max_rewinds): look at '
        'the data and at optim.peak, or go on with train.on_bad_step=skip'
      )
    checkpoints.wait()
    kept = checkpoints.steps()
    old = [s for s in kept if s <= bad - self.steps] or kept[:1] or [None]
    target = old[-1]
    checkpoints.forget(target or 0)
    row = {'to': target or 0, 'from': bad, 'tokens': data.tokens, 'data': data.state()}
    processes.write_json(self.path, [*found, row])
    return target, len(found) + 1
