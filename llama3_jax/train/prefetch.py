"""Batches that threads read ahead; the saved state does not depend on it."""

import sys
import threading
from collections.abc import Mapping
from collections.abc import Sequence

import grain

from llama3_jax.train import schedule


class Batches:
  """The batches of a run in order, some of them read before they are due.

  `state()` and `tokens` are those after the last batch taken, however far the planning
  is ahead, so that a resumed run reads the same batches with any `ahead`.

  Args:
    data: plan(batch, length) chooses the next global batch, in order, without reading
      it; read(plan, share) reads this process's rows of it, in any order and from
      several threads; state(), restore(state) and tokens count the planned batches.
    phases: of the ramp, see schedule.ramp.
    share: (process, processes).
    ahead: batches that are read before they are due, each by its own thread; 0: none.
  """

  def __init__(
    self,
    data: object,
    phases: Sequence[schedule.Phase],
    share: tuple[int, int],
    ahead: int,
  ) -> None:
    self._data, self._phases = data, phases
    self._share, self._ahead = share, ahead
    self._begin()

  def take(self) -> tuple[schedule.Phase, object]:
    """(Phase, this process's rows of the next batch, a struct of np arrays)."""
    if self._batches is None:
      plans = grain.MapDataset.source(self._plans)
      reading = grain.ReadOptions(self._ahead, self._ahead)
      self._batches = iter(plans.map(self._read).to_iter_dataset(reading))
    phase, batch, self._state, self.tokens = next(self._batches)
    return phase, batch

  def state(self) -> dict:
    """State of the data after the last batch taken."""
    return self._state

  def restore(self, state: Mapping) -> None:
    """Continue after `state`; batches that were read ahead are dropped."""
    self._plans.close()
    self._data.restore(state)
    self._begin()

  def close(self) -> None:
    """Leaves the data as it is after the batch that was taken last."""
    self.restore(self._state)

  def _begin(self):
    self._plans, self._batches = _Plans(self._data, self._phases), None
    self._state, self.tokens = self._data.state(), self._data.tokens

  def _read(self, planned):
    phase, plan, *after = planned
    return phase, self._data.read(plan, self._share), *after


class _Plans:
  """Plans by number, for threads that request them in any order; made in order."""

  def __init__(self, data, phases):
    self._data, self._phases = data, phases
    self._lock, self._ready, self._count = threading.Lock(), {}, 0

  def __len__(self):
    return sys.maxsize

  def __getitem__(self, number):
    """(Phase, plan, state after it, tokens after it)."""
    with self._lock:
      while self._count <= number:
        self._ready[self._count] = self._next()
        self._count += 1
      return self._ready.pop(number)

  def _next(self):
    data = self._data
    if data is None:
      raise RuntimeError('these plans are closed: the data was set to another state')
    phase = schedule.phase(self._phases, data.tokens)
    plan = data.plan(phase.batch, phase.length)
    return phase, plan, data.state(), data.tokens

  def close(self):
    """Stop using the data: no thread touches it after this returns."""
    with self._lock:
      self._data = None
