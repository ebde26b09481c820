"""The engine: requests in, answers out, by continuous batching (4.2.2, 6.1).

`Engine` is what servers and rounds of post-training stand on; `generate` answers a list
of prompts with it, `stream` one prompt token by token.
"""

import collections
import dataclasses
import itertools
import numbers
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence

import numpy as np

from llama3_jax import axes
from llama3_jax.base import interrupts
from llama3_jax.base.errors import UserError
from llama3_jax.config import ModelConfig
from llama3_jax.generate import draw
from llama3_jax.generate import group
from llama3_jax.generate import guess
from llama3_jax.generate import pool
from llama3_jax.generate import stages
from llama3_jax.generate.group import Answer
from llama3_jax.generate.group import Request
from llama3_jax.generate.group import Sizes
from llama3_jax.generate.settings import Settings
from llama3_jax.model import llama

ROWS = (4, 16, 64)  # numbers of rows that lists of prompts are answered in
SHORTEST = 128  # tokens: room of the smallest engine of `generate`
SHORT, LONG = 64, 512  # tokens of a chunk of prompts


class Engine:
  """A model that answers requests; `step` does a bit of work. Not for several threads.

  params: as llama.Params, or as stages.prepared gives them; weights: '', or those of
  few bits that it knows; guesser: makes the guesses of Sizes.guesses; None: a Lookup.
  On a mesh, the groups of chips that hold other parts of a batch have rows, pages and
  prompts of their own.
  """

  def __init__(
    self,
    params: llama.Params,
    config: ModelConfig,
    sizes: Sizes = Sizes(),
    weights: str = '',
    guesser: guess.Guesser | None = None,
  ) -> None:
    if any(n % axes.parts('T') for n in (*sizes.rows, *sizes.chunks)):
      raise UserError(
        f'rows={sizes.rows} and chunks={sizes.chunks} must divide over mesh.context'
      )
    if isinstance(guesser, guess.Draft):
      guesser.check(config.vocab_size, sizes.length)
    self.config, self.sizes, self.weights = config, sizes, weights
    self._programs = stages.chosen(sizes.microbatches)
    self.stages = axes.parts('C')  # of a pipeline
    self.guesses = guess.Guesses(guesser or guess.Lookup(), sizes, config.vocab_size)
    count = axes.parts('B')
    self.groups = [group.Group(sizes) for _ in range(count)]
    self.update(params)
    self.memory = pool.create(config, sizes.count, sizes.page, count)
    self._waiting: collections.deque[list[Answer]] = collections.deque()
    self.read = self.padded = self.decoded = 0  # tokens, for metrics

  def update(self, params: llama.Params) -> None:
    """Other weights from now on; what was read with the old ones is not used for new
    requests, and answers that are being given go on with the new."""
    self.params = stages.prepared(params, self.config, self.weights)
    for each in self.groups:
      each.pages.forget()

  def warm(self) -> None:
    """Compiles all programs before the first request, which then does not wait."""
    if not self.idle:
      raise RuntimeError('warm() is for an engine without requests')
    for size in self.sizes.chunks:
      chunk = group.Chunk(len(self.groups), size, self.sizes)
      self._call_read(chunk)
    for count in self.sizes.rows:
      self._call_decode(count, np.int32(0))

  @property
  def idle(self) -> bool:
    """Whether nothing waits, is read or decodes."""
    return not self._waiting and not any(each.busy for each in self.groups)

  @property
  def waiting(self) -> int:
    """Requests that have not entered."""
    return len(self._waiting)

  @property
  def pages(self) -> tuple[int, int]:
    """(pages in use, all pages)."""
    used = sum(each.pages.used for each in self.groups)
    return used, len(self.groups) * self.sizes.count

  def check(self, request: Request) -> None:
    """UserError for a request that could never be answered."""
    n, size = len(request.prompt), self.config.vocab_size
    if not n:
      raise UserError('the prompt is empty: it needs at least begin_of_text')
    ids = np.asarray(request.text)
    if ids.dtype.kind not in 'iu' or ids.min() < 0 or ids.max() >= size:
      raise UserError(f'the prompt has ids that are not whole numbers below {size}')
    most = request.settings.max_new
    if n + most > self.sizes.length:
      raise UserError(
        f'a prompt of {n} tokens and max_new={most} are more than {self.sizes.length}'
      )
    if len(request.said) >= most:
      raise UserError(f'said has {len(request.said)} tokens: max_new={most} is no more')
    if beyond := [token for token, _ in request.settings.bias if token >= size]:
      raise UserError(f'bias names token {beyond[0]}: there are {size}')
    if len(request.stop_ids) > draw.STOPS:
      raise UserError(f'{len(request.stop_ids)} stop tokens: at most {draw.STOPS}')
    seed = request.seed
    if not isinstance(seed, numbers.Integral) or not 0 <= seed < 2**32:
      raise UserError(f'seed={seed}: it must be a whole number from 0 to {2**32 - 1}')
    if not isinstance(request.first, numbers.Integral) or request.first < 0:
      raise UserError(f'first={request.first}: it must be a whole number from 0')
    if not isinstance(request.samples, numbers.Integral) or request.samples < 1:
      raise UserError(f'samples={request.samples}: it must be a whole number from 1')
    needed = self.groups[0].needed(request)
    if needed > self.sizes.count:
      raise UserError(
        f'{request.samples} samples of a prompt of {n} tokens and max_new={most} need '
        f'{needed} pages, there are {self.sizes.count}'
      )

  def submit(self, request: Request) -> list[Answer]:
    """Takes a request; its answers grow in calls of `step`. UserError as `check`."""
    self.check(request)
    answers = [Answer(request, i) for i in range(request.samples)]
    self._waiting.append(answers)
    return answers

  def cancel(self, answer: Answer) -> None:
    """Ends an answer; its pages are free after the next step."""
    answer.end = answer.end or 'cancelled'

  def step(self) -> list[Answer]:
    """Admits, reads at most a chunk, decodes a bit; returns what grew or ended."""
    ended = [answer for each in self.groups for answer in each.cancelled()]
    self._admit()
    if any(each.starving for each in self.groups):
      self._read()
    for each in self.groups:
      each.seat()
    return ended + (self._decode() if any(g.rows for g in self.groups) else [])

  def _admit(self):
    while self._waiting:
      answers = self._waiting[0]
      load = lambda g: (len(g.reading) + len(g.ready), -g.pages.free)
      order = sorted(self.groups, key=load)
      if not all(a.end for a in answers) and not any(g.admit(answers) for g in order):
        return
      self._waiting.popleft()

  def _read(self):
    due = max(1, *(each.unread for each in self.groups))
    calls = lambda size: -(-due // size)
    few = [c for c in self.sizes.chunks if calls(c) <= 2] or self.sizes.chunks[-1:]
    size = min(few, key=lambda c: (calls(c) * c, -c))
    chunk = group.Chunk(len(self.groups), size, self.sizes)
    for index, each in enumerate(self.groups):
      each.read(chunk, index)
    if filled := sum(chunk.filled):
      self._call_read(chunk)
      self.read += filled
      self.padded += chunk.tokens.size - filled

  def _call_read(self, chunk):
    given = chunk.tokens, chunk.spots, chunk.items
    self.memory = self._programs.read(self.params, self.memory, *given, self.config)

  def _call_decode(self, count, limit):
    """Results of a call with `count` rows of each group, on the host."""
    given = *self._arrays(count), limit, self.config, self.sizes.steps
    self.memory, drawn = self._programs.decode(self.params, self.memory, *given)
    return axes.fetch(drawn)

  def _decode(self):
    """A call of the decode program; returns the answers of its rows."""
    most = max(len(each.rows) for each in self.groups)
    count = next(n for n in self.sizes.rows if n >= most)
    guessed = self.guesses.plan(self.groups, count)
    seated = [
      ((g, i), prompt.answers[number], ahead)
      for g, x in enumerate(self.groups)
      for i, (prompt, number, ahead) in enumerate(x.seats)
    ]
    short = guessed or any(answer.bound for _, answer, _ in seated)
    drawn = self._call_decode(count, np.int32(1 if short else self.sizes.steps))
    self._keep(seated, drawn)
    for each in self.groups:
      ended = [row for row in each.rows if row[0].answers[row[1]].end]
      each.guesses = {}
      each.rows = [row for row in each.rows if row not in ended]
      for row in ended:
        each.finish(*row)
    return [answer for _, answer, ahead in seated if not ahead]

  def _keep(self, seated, drawn):
    """Adds what was drawn to the answers; of rows after guesses, where all of these
    were right."""
    begun = {answer: len(answer.ids) for _, answer, _ in seated}
    for at, answer, ahead in seated:
      if not answer.end and answer.ids[begun[answer] :] == ahead:
        _grow(answer, drawn, at)
    # The last row of an answer has the most guesses.
    made = {answer: len(ahead) for _, answer, ahead in seated}
    for answer, guesses in made.items():
      grown = len(answer.ids) - begun[answer]
      self.decoded += grown
      if guesses:
        self.guesses.learn(answer, guesses, grown - 1)

  def _arrays(self, count):
    """(rows, items, copies) of all groups."""
    size = self.config.vocab_size
    rows, items, copies = group.empty(self.sizes, len(self.groups), count, size)
    for index, each in enumerate(self.groups):
      each.fill(rows, items, copies, index)
    return rows, items, copies


def _grow(answer, drawn, at):
  """Adds the tokens of a call to an answer, and its end where it ended."""
  wanted = answer.request.settings.alternatives
  for j in np.flatnonzero(drawn.real[at]):
    token = int(drawn.tokens[at][j])
    answer.ids.append(token)
    answer.logps.append(float(drawn.logps[at][j]))
    if wanted:
      best = drawn.ids[at][j][:wanted], drawn.values[at][j][:wanted]
      answer.alternatives.append(tuple(x.tolist() for x in best))
    if answer.bound:
      answer.bound.accept(token)
    if token in answer.request.stop_ids:
      answer.end = 'stop'
    elif not answer.left:
      answer.end = 'length'


@dataclasses.dataclass(frozen=True)
class Completion:
  """Generated ids without the stop token, their log-probabilities (that of the stop
  token last, where there is one), whether the model stopped by itself, and the stop
  token."""

  ids: tuple[int, ...]
  logps: tuple[float, ...]
  stopped: bool
  stop: int | None = None

  @property
  def sampled(self) -> tuple[int, ...]:
    """All sampled ids: `ids` and, where there is one, the stop token."""
    return self.ids if self.stop is None else (*self.ids, self.stop)

  @classmethod
  def of(cls, answer: Answer) -> 'Completion':
    """The Completion of an answer that has ended."""
    stopped = answer.end == 'stop'
    ids = tuple(answer.ids[:-1] if stopped else answer.ids)
    stop = answer.ids[-1] if stopped else None
    return cls(ids, tuple(answer.logps), stopped, stop)


Told = Callable[[int, Completion], None]


def sizes(longest: int, prompts: int, samples: int) -> Sizes:
  """Sizes to answer `prompts` at a time, each with `samples` answers, of at most
  `longest` tokens with the prompt: few different ones, so that few programs are
  compiled."""
  rows = -(-prompts * samples // axes.parts('B'))
  rows = _whole(next((n for n in ROWS if n >= rows), ROWS[-1]))
  made = Sizes((rows,), (SHORT if prompts == 1 else LONG,), room(longest))
  # All samples of a prompt enter together.
  more = max(samples - rows, 0) * made.columns
  return dataclasses.replace(made, pages=made.count + more)


def one(length: int, config: ModelConfig) -> Sizes:
  """Sizes for one answer at a time, shown token by token, in a room of `length`."""
  columns = -(-length // Sizes.page)
  # A CPU has no fast product of a vector with bfloat16.
  slow = axes.platform() == 'cpu' and config.dtype == 'bfloat16'
  rows = _whole(ROWS[0] if slow else 1)
  made = Sizes((rows,), (SHORT, LONG), length, pages=2 * columns, steps=1)
  return dataclasses.replace(made, guesses=rows - 1 if slow else 0)


def _whole(rows):
  """The next number of rows that divides over `context`."""
  return -(-rows // axes.parts('T')) * axes.parts('T')


def room(longest: int) -> int:
  """The next power of two, so that few lengths are compiled."""
  return max(SHORTEST, 1 << (longest - 1).bit_length())


def complete(
  engine: Engine,
  prompts: Sequence[Sequence[int]],
  stop_ids: Sequence[int],
  settings: Settings | Sequence[Settings] = Settings(),
  seed: int = 0,
  samples: int = 1,
  told: Told | None = None,
) -> list[list[Completion]]:
  """`samples` completions of each prompt (token ids), in the order of `prompts`, by
  Settings of all or of each; equal prompts get equal samples. Raises UserError as
  Engine.check, with the prompt's number, before anything is answered.

  told: (number of its prompt x samples + that of its sample, Completion) of each one,
  as soon as it has ended."""
  stops = tuple(stop_ids)
  each = zip(prompts, _each(settings, prompts), strict=True)
  requests = [Request(prompt, own, stops, samples, seed) for prompt, own in each]
  for i, request in enumerate(requests):
    try:
      engine.check(request)
    except UserError as error:
      raise UserError(f'prompt {i}: {error}') from None
  every = [engine.submit(request) for request in requests]
  number = {answer: i for i, answer in enumerate(itertools.chain(*every))}
  while not engine.idle:
    for answer in engine.step():
      if told and answer.end:
        told(number[answer], Completion.of(answer))
  return [[Completion.of(answer) for answer in answers] for answers in every]


def generate(
  params: llama.Params,
  prompts: Sequence[Sequence[int]],
  config: ModelConfig,
  stop_ids: Sequence[int],
  settings: Settings | Sequence[Settings] = Settings(),
  seed: int = 0,
  samples: int = 1,
  batch_size: int = 16,
  longest: int = 0,
  told: Told | None = None,
) -> list[list[Completion]]:
  """As `complete`, with an engine that is made for these prompts.

  batch_size: prompts that are answered at a time, at most. longest: tokens of a prompt
  with its answer, at most; 0: those of these.
  """
  if not prompts:
    return []
  each = zip(prompts, _each(settings, prompts))
  longest = longest or max(len(ids) + own.max_new for ids, own in each)
  engine = Engine(params, config, sizes(longest, batch_size, samples))
  return complete(engine, prompts, stop_ids, settings, seed, samples, told)


def _each(settings, prompts):
  """The Settings of each prompt."""
  return [settings] * len(prompts) if isinstance(settings, Settings) else settings


def stream(
  engine: Engine,
  prompt: Sequence[int],
  stop_ids: Sequence[int],
  settings: Settings = Settings(),
  seed: int = 0,
) -> Iterator[int]:
  """Yields the tokens of one completion as they are sampled, the stop token last. One
  that is not read to its end is cancelled. The engine has no other requests."""
  [answer] = engine.submit(Request(prompt, settings, tuple(stop_ids), 1, seed))
  given = 0
  try:
    while not answer.end or given < len(answer.ids):
      if given == len(answer.ids):
        with interrupts.held():
          engine.step()
      yield from answer.ids[given:]
      given = len(answer.ids)
  finally:
    engine.cancel(answer)
    with interrupts.held():
      while not engine.idle:
        engine.step()
