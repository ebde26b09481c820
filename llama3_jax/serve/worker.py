"""The thread that owns the engine: takes requests, tells each what grew."""

import asyncio
import collections
import contextlib
import dataclasses
import threading
from collections.abc import Callable
from collections.abc import Sequence

import jax
from absl import logging

from llama3_jax.generate.engine import Engine
from llama3_jax.generate.group import Answer
from llama3_jax.generate.group import Request
from llama3_jax.serve.faults import Fault

RETRY = {'Retry-After': '1'}


@dataclasses.dataclass(frozen=True)
class Piece:
  """What an answer gained in a step.

  Attributes:
    index: of the choice among those of its HTTP request.
    ids, logps, alternatives: of the new tokens, as in group.Answer.
    end: as in group.Answer; 'failed' where the engine or a constraint did.
  """

  index: int
  ids: tuple[int, ...] = ()
  logps: tuple[float, ...] = ()
  alternatives: tuple = ()
  end: str = ''


@dataclasses.dataclass(eq=False)
class Job:
  """A request, and the queue of an event loop that its pieces go to.

  first: index of its first choice; bounds: constraints of its samples, or none.
  """

  request: Request
  pieces: asyncio.Queue
  first: int = 0
  bounds: Sequence[object] = ()
  answers: list[Answer] = dataclasses.field(default_factory=list)
  cancelled: bool = False


class Worker:
  """Runs an engine in a thread; all methods but `close` are of the event loop's."""

  def __init__(self, engine: Engine, most: int) -> None:
    """most: requests that may wait."""
    self.engine, self.most = engine, most
    self.failure = None
    self._inbox = collections.deque()
    self._calls = collections.deque()
    self._gone = collections.deque()  # answers that nobody waits for
    self._jobs = {}  # {answer: (job, tokens that were told)}
    self._loop = None
    self._wake, self._closing = threading.Event(), False
    self._mesh = jax.sharding.get_mesh()
    self._thread = threading.Thread(target=self._run, name='engine', daemon=True)

  def start(self, loop: asyncio.AbstractEventLoop) -> None:
    """Begins; what happens is told in `loop`."""
    self._loop = loop
    self._thread.start()

  @property
  def alive(self) -> bool:
    """Whether the thread runs."""
    return self._thread.is_alive() and self.failure is None

  @property
  def waiting(self) -> int:
    """Requests that have not entered the engine."""
    return len(self._inbox) + self.engine.waiting + len(self._calls)

  @property
  def running(self) -> int:
    """Answers that decode."""
    return sum(len(each.rows) for each in self.engine.groups)

  def submit(self, jobs: Sequence[Job]) -> None:
    """Takes all of them or none; Fault where too many wait. They were checked."""
    self._ready(len(jobs))
    self._inbox.extend(jobs)
    self._wake.set()

  def call(self, function: Callable[[], object]) -> asyncio.Future:
    """The result of a function that runs in the thread, between two steps."""
    self._ready(1)
    result = self._loop.create_future()
    self._calls.append((function, result))
    self._wake.set()
    return result

  def cancel(self, job: Job, number: int | None = None) -> None:
    """Ends one answer of a job, or all of them."""
    if number is None:
      job.cancelled = True
    self._gone.append((job, number))
    self._wake.set()

  def close(self) -> None:
    """Ends the thread after its step."""
    self._closing = True
    self._wake.set()
    if self._thread.is_alive():
      self._thread.join()

  def _ready(self, count):
    if not self.alive:
      raise Fault(503, 'the engine has failed: see the log of the server')
    if self.waiting + count > self.most:
      raise Fault(429, f'{self.waiting} requests wait: try again later', headers=RETRY)

  def _run(self):
    here = contextlib.nullcontext() if self._mesh.empty else jax.set_mesh(self._mesh)
    try:
      with here:
        while not self._closing:
          self._wake.clear()
          self._control()
          if self.engine.idle:
            self._wake.wait()
          else:
            self._tell(self.engine.step())
    except (
      BaseException
    ) as error:  # also a panic of a library: those who wait must hear
      logging.exception('the engine has failed')
      self.failure = error
      self._fail()

  def _control(self):
    """Calls, then what is no longer wanted, then new requests."""
    while self._calls:
      self._answer(*self._calls[0])
      self._calls.popleft()
    while self._gone:
      self._forget(*self._gone.popleft())
    while self._inbox:
      job = self._inbox[0]
      if not job.cancelled:
        job.answers = self.engine.submit(job.request)
        for answer, bound in zip(job.answers, job.bounds):
          answer.bound = bound
        self._jobs |= {answer: [job, 0] for answer in job.answers}
      self._inbox.popleft()  # only now, so that it is counted all the time

  def _answer(self, function, result):
    if result.cancelled():
      return
    try:
      set_, value = result.set_result, function()
    except Exception as error:
      set_, value = result.set_exception, error
    self._later(lambda: result.done() or set_(value))

  def _forget(self, job, number):
    answers = job.answers if number is None else [job.answers[number]]
    for answer in answers:
      self.engine.cancel(answer)
      self._jobs.pop(answer, None)

  def _tell(self, answers):
    pieces = []
    for answer in answers:
      if answer not in self._jobs:
        continue
      job, told = entry = self._jobs[answer]
      entry[1] = len(answer.ids)
      end = answer.end
      if end:
        del self._jobs[answer]
        end = 'failed' if answer.bound and answer.bound.failed else end
      piece = Piece(
        job.first + answer.number,
        tuple(answer.ids[told:]),
        tuple(answer.logps[told:]),
        tuple(answer.alternatives[told:]),
        end,
      )
      pieces.append((job.pieces, piece))
    if pieces:
      self._later(lambda: _deliver(pieces))

  def _fail(self):
    pieces = [
      (job.pieces, Piece(job.first + answer.number, end='failed'))
      for answer, (job, _) in list(self._jobs.items())
    ]
    pieces += [(job.pieces, Piece(job.first, end='failed')) for job in self._inbox]
    self._later(lambda: _deliver(pieces))
    failed = Fault(500, 'the engine has failed: see the log of the server')
    for _, result in self._calls:
      self._later(lambda r=result: r.done() or r.set_exception(failed))

  def _later(self, function):
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
      self._loop.call_soon_threadsafe(function)


def _deliver(pieces):
  for queue, piece in pieces:
    queue.put_nowait(piece)
