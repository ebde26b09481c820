"""Throughput and latency of generation over stages, from the time of one (6.1).

There is no backward pass, so all that a pipeline loses is what stages wait for each
other. Microbatches let them work at the same time, but each has fewer rows, and half of
the rows may take more than half of the time.
"""

import dataclasses

TINY = 1e-9  # seconds, of prompts that take none


@dataclasses.dataclass(frozen=True)
class Load:
  """Requests that begin together: rows of a prompt and an answer of so many tokens."""

  rows: int
  prompt: int
  answer: int


@dataclasses.dataclass(frozen=True)
class Stage:
  """Seconds of a stage for one microbatch: its prompts, a token of each of its rows,
  and a message to the next stage."""

  prefill: float
  decode: float
  message: float = 0.0


@dataclasses.dataclass(frozen=True)
class Found:
  """Seconds until the first tokens and until the last, tokens/s of prompts while they
  are read, of answers after that, and of answers in all."""

  first: float
  last: float
  read: float
  decoded: float
  total: float


def run(stage: Stage, stages: int, parts: int, load: Load) -> Found:
  """What `stages` of equal time do with the load in `parts` microbatches.

  A stage takes its microbatches in turn, each as soon as the stage before has sent it;
  the first takes one again when the last has drawn its token.
  """
  free, ready = [0.0] * stages, [0.0] * parts

  def through(seconds):
    for j in range(parts):
      for s in range(stages):
        free[s] = max(free[s], ready[j]) + seconds
        ready[j] = free[s] + stage.message

  through(stage.prefill)
  begun = max(ready)
  through(stage.decode)
  first = max(ready)
  for _ in range(load.answer - 1):
    through(stage.decode)
  last, tokens = max(ready), load.rows * load.answer
  read = load.rows * load.prompt / (begun or TINY)
  return Found(first, last, read, tokens / (last - begun), tokens / last)
