"""Pipeline schedules as data: a table of the operation of each stage and tick (3.3.2).

A chunk is a run of layers; chunk v * stages + s is the v-th of stage s. The paper's
schedule is interleaved 1F1B with N consecutive microbatches a chunk, N free: N = stages
is depth-first, N = microbatches breadth-first. All stages move in lockstep (a tick ends
when the messages between neighbours have arrived), so a tick costs as much as its
longest operation; `aligned` therefore never has a forward and a backward in one tick.
"""

import dataclasses

import numpy as np

from llama3_jax.base.errors import UserError

IDLE, FORWARD, BACKWARD = range(3)
# aligned: 1F1B, a tick holds forwards or backwards only
# 1f1b: the classical one, half the memory at one chunk a stage, mixed ticks
# gpipe: all forwards, then all backwards
FORMS = ('aligned', '1f1b', 'gpipe')
# The form `forward`, for measuring a loss, has forwards only.


@dataclasses.dataclass(frozen=True, eq=False)
class Schedule:
  """`op`, `chunk` (of the model) and `microbatch`, int [ticks, stages] each."""

  stages: int
  chunks: int  # a stage has, V
  microbatches: int  # M
  group: int  # consecutive microbatches of a chunk, N
  form: str
  op: np.ndarray
  chunk: np.ndarray
  microbatch: np.ndarray

  @property
  def ticks(self) -> int:
    """Length of the table."""
    return len(self.op)

  @property
  def depth(self) -> int:
    """Chunks of the whole model."""
    return self.stages * self.chunks


def build(
  stages: int, chunks: int, microbatches: int, group: int = 0, form: str = 'aligned'
) -> Schedule:
  """The schedule of `microbatches` over `stages` with `chunks` each.

  Every stage runs its forwards in one order and its backwards in another, each as early
  as possible, while the number of chunk inputs alive is within a limit of the stage.
  Raises UserError for impossible sizes.

  Args: group: consecutive microbatches of a chunk, 1 to `microbatches`; 0 is
  depth-first (as many as stages). form: one of FORMS, or 'forward'.
  """
  sizes = dict(stages=stages, chunks=chunks, microbatches=microbatches)
  for name, n in sizes.items():
    if n < 1:
      raise UserError(f'a pipeline of {name}={n}: at least 1 is needed')
  if not 0 <= group <= microbatches:
    raise UserError(
      f'pipeline.group={group}: 1 to train.microbatches={microbatches}, or 0'
    )
  if form not in (*FORMS, 'forward'):
    raise UserError(f'pipeline.form={form!r} must be one of {", ".join(FORMS)}')
  group = group or min(stages, microbatches)
  simulation = _Simulation(stages, chunks, microbatches, group, form)
  rows = simulation.run()
  tables = np.asarray(rows, np.int32).transpose(2, 0, 1)
  return Schedule(stages, chunks, microbatches, group, form, *tables)


def order(chunks: int, microbatches: int, group: int) -> list[tuple[int, int]]:
  """Forwards of a stage in order, as (chunk of the stage, microbatch)."""
  forwards = []
  for first in range(0, microbatches, group):
    members = range(first, min(first + group, microbatches))
    forwards += [(v, m) for v in range(chunks) for m in members]
  return forwards


class _Simulation:
  """Greedy simulation by ticks; `done` holds the tick in which an operation ran."""

  def __init__(self, stages, chunks, microbatches, group, form):
    self.stages, self.chunks, self.form = stages, chunks, form
    self.todo = order(chunks, microbatches, group)
    flip = [(chunks - 1 - v, m) for v, m in self.todo]
    self.orders = {FORWARD: self.todo, BACKWARD: flip}
    self.at = {k: [0] * stages for k in self.orders}
    self.done = {k: {} for k in self.orders}
    self.last = [BACKWARD] * stages
    total = chunks * microbatches
    # Chunk inputs alive on a stage: the forwards until its first backward. With fewer
    # than this bubbles appear; with at least (V - 1) N + 1 there is no deadlock.
    self.limits = []
    for s in range(stages):
      ahead = stages - 1 - s
      if form == 'aligned' or chunks > 1:
        ahead *= 2
      limit = (chunks - 1) * group + ahead + 1
      bounded = form in ('aligned', '1f1b')
      self.limits.append(min(limit, total) if bounded else total)

  def run(self):
    rows, total = [], len(self.todo)
    end = FORWARD if self.form == 'forward' else BACKWARD
    while min(self.at[end]) < total:
      ready = [self._ready(s, len(rows)) for s in range(self.stages)]
      if self.form == '1f1b':
        kinds = [self._alternate(s, r) for s, r in enumerate(ready)]
      else:
        kind = self._common(ready)
        kinds = [kind if kind in r else IDLE for r in ready]
      row = []
      for s, kind in enumerate(kinds):
        row.append(self._do(s, kind, len(rows)))
      rows.append(row)
    return rows

  def _next(self, stage, kind):
    i = self.at[kind][stage]
    if i == len(self.todo):
      return None
    v, m = self.orders[kind][i]
    return v * self.stages + stage, m

  def _ready(self, stage, tick):
    """Kinds of operation that the stage could do at `tick`."""
    ready = set()
    forward, backward = (self._next(stage, k) for k in (FORWARD, BACKWARD))
    alive = self.at[FORWARD][stage] - self.at[BACKWARD][stage]
    if forward and alive < self.limits[stage]:
      if all(self._finished(FORWARD, key, tick) for key in before(*forward)):
        ready.add(FORWARD)
    if backward and self._finished(FORWARD, backward, tick):
      after = (backward[0] + 1, backward[1])
      last = backward[0] == self.stages * self.chunks - 1
      if last or self._finished(BACKWARD, after, tick):
        ready.add(BACKWARD)
    return ready

  def _finished(self, kind, key, tick):
    return self.done[kind].get(key, tick) < tick

  def _common(self, ready):
    """One kind for all stages: the one not run last, if any stage can run it."""
    other = FORWARD if self.last[0] == BACKWARD else BACKWARD
    if self.form in ('gpipe', 'forward'):
      other = FORWARD
    if any(other in r for r in ready):
      return other
    return FORWARD + BACKWARD - other

  def _alternate(self, stage, ready):
    other = FORWARD if self.last[stage] == BACKWARD else BACKWARD
    # Warm-up: no backward yet, so forwards only; a stage with ready work never waits.
    if other in ready or not ready:
      return other if ready else IDLE
    return ready.pop()

  def _do(self, stage, kind, tick):
    if kind == IDLE:
      return IDLE, 0, 0
    key = self._next(stage, kind)
    self.at[kind][stage] += 1
    self.done[kind][key] = tick
    if self.form == '1f1b':
      self.last[stage] = kind
    else:
      self.last = [kind] * self.stages
    return kind, *key


def before(chunk: int, microbatch: int) -> list[tuple[int, int]]:
  """The forwards that a forward needs: that of the chunk before, if there is one."""
  return [(chunk - 1, microbatch)] if chunk else []


def when(schedule: Schedule) -> dict[int, np.ndarray]:
  """{kind: int [chunks of the model, microbatches]}: the tick of every operation.

  An operation that never runs has -1.
  """
  tables = {}
  for kind in (FORWARD, BACKWARD):
    ticks, stages = np.nonzero(schedule.op == kind)
    table = np.full((schedule.depth, schedule.microbatches), -1)
    table[schedule.chunk[ticks, stages], schedule.microbatch[ticks, stages]] = ticks
    tables[kind] = table
  return tables


def problems(schedule: Schedule) -> list[str]:
  """Faults of a schedule, one line each; empty when it is valid.

  Every operation must run once, on the stage that owns its chunk, after those that it
  needs: a message is sent at the end of a tick, for use from the next tick on. (The
  table itself allows one operation a stage and tick.)
  """
  faults, names = [], {FORWARD: 'forward', BACKWARD: 'backward'}
  if schedule.form == 'forward':
    del names[BACKWARD]
  busy = schedule.op != IDLE
  wrong = busy & (schedule.chunk % schedule.stages != np.arange(schedule.stages))
  for t, s in np.argwhere(wrong):
    faults.append(f'tick {t}: stage {s} runs chunk {schedule.chunk[t, s]} of another')
  for kind, name in names.items():
    here = schedule.op == kind
    pairs = np.stack([schedule.chunk[here], schedule.microbatch[here]], 1)
    unique, counts = np.unique(pairs, axis=0, return_counts=True)
    for (c, m), n in zip(unique, counts):
      if n > 1:
        faults.append(f'{name} of chunk {c}, microbatch {m} runs {n} times')
  ticks = when(schedule)
  for kind, name in names.items():
    for c, m in np.argwhere(ticks[kind] < 0):
      faults.append(f'{name} of chunk {c}, microbatch {m} never runs')
  if faults:
    return faults
  f, b = ticks[FORWARD], ticks[BACKWARD]
  rules = [('forward', 'the forward of the chunk before', f[1:], f[:-1], 1)]
  if schedule.form != 'forward':
    rules.append(('backward', 'the backward of the chunk after', b[:-1], b[1:], 0))
    rules.append(('backward', 'its own forward', b, f, 0))
  for name, need, later, earlier, shift in rules:
    for c, m in np.argwhere(later <= earlier):
      faults.append(f'{name} of chunk {c + shift}, microbatch {m} is not after {need}')
  return faults


def bubble(schedule: Schedule) -> float:
  """Idle ticks of a stage per busy tick, mean over stages, all operations equal.

  (stages - 1) / (chunks * microbatches) in the ideal case (section 3.3.2).
  """
  busy = np.sum(schedule.op != IDLE)
  return (schedule.op.size - busy) / busy


def lockstep(schedule: Schedule, forward: float = 1.0, backward: float = 3.0) -> float:
  """Idle time per busy time when a tick lasts as long as its longest operation.

  Args: forward, backward: time of an operation, in any unit. A backward takes 3
  forwards with recomputation of the chunk, 2 without.
  """
  cost = np.array([0.0, forward, backward])[schedule.op]
  work = schedule.chunks * schedule.microbatches * (forward + backward)
  return cost.max(1).sum() / work - 1


def live(schedule: Schedule) -> np.ndarray:
  """Largest number of chunk inputs that wait for their backward, int [stages]."""
  step = np.select([schedule.op == FORWARD, schedule.op == BACKWARD], [1, -1])
  alive = np.cumsum(step, 0)
  return np.max(alive + (schedule.op == BACKWARD), 0)
