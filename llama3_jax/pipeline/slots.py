"""Buffer slots for the messages of a schedule, assigned before anything runs.

The input of a chunk arrives at the end of the tick in which the chunk before ran, and
waits until its own backward; the gradient of its output waits from its arrival to that
backward. Slots are assigned to these intervals so that overlapping ones differ.
"""

import dataclasses

import numpy as np

from llama3_jax.pipeline import schedule as schedules


@dataclasses.dataclass(frozen=True, eq=False)
class Buffer:
  """Slots of a buffer: `read` and `store` are int [ticks, stages]; -1: none."""

  size: int  # slots on a stage
  read: np.ndarray  # slot of the operation at this tick
  store: np.ndarray  # slot of the message at the end of this tick


def inputs(schedule: schedules.Schedule) -> Buffer:
  """Buffer of chunk inputs; the first chunk reads tokens instead."""
  ticks = schedules.when(schedule)
  end = schedules.FORWARD if schedule.form == 'forward' else schedules.BACKWARD
  arrive, leave = ticks[schedules.FORWARD][:-1], ticks[end][1:]
  return _buffer(schedule, arrive, leave, first=1, kinds=(1, 2))


def gradients(schedule: schedules.Schedule) -> Buffer:
  """Buffer of the gradients of chunk outputs; the last chunk computes its own."""
  ticks = schedules.when(schedule)
  arrive = ticks[schedules.BACKWARD][1:]
  leave = ticks[schedules.BACKWARD][:-1]
  return _buffer(schedule, arrive, leave, first=0, kinds=(2,))


def _buffer(schedule, arrive, leave, first, kinds):
  """Slots for intervals of chunks `first`, `first` + 1, ..., [chunks, microbatches]."""
  shape = schedule.op.shape
  read, store = np.full(shape, -1), np.full(shape, -1)
  slot_of = np.full((schedule.depth, schedule.microbatches), -1)
  # For each stage and slot, the tick after which it is free.
  free = [[] for _ in range(schedule.stages)]
  order = np.argsort(arrive, axis=None, kind='stable')
  for c, m in zip(*np.unravel_index(order, arrive.shape)):
    stage = (c + first) % schedule.stages
    slots = free[stage]
    begin, end = arrive[c, m], leave[c, m]
    # Messages are stored after the operations of a tick: a slot read in the tick of
    # the arrival is free.
    slot = next((i for i, until in enumerate(slots) if until <= begin), len(slots))
    slots[slot:] = [end] + slots[slot + 1 :]
    slot_of[c + first, m] = slot
    store[begin, stage] = slot
  for kind in kinds:
    here = schedule.op == kind
    read[here] = slot_of[schedule.chunk[here], schedule.microbatch[here]]
  return Buffer(max(map(len, free)), read, store)
