"""The requests of one group of chips, which has pages of its own (6.1).

A request enters when pages are free for its prompt and the longest answers of all its
samples; else it waits, and those behind it. Nothing that runs is ever put out for
another. Prompts are read in the order they entered, from where a known beginning ends.
"""

import collections
import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from llama3_jax.base.errors import UserError
from llama3_jax.generate import draw
from llama3_jax.generate import paged
from llama3_jax.generate import rows as rows_lib
from llama3_jax.generate.pages import Pages
from llama3_jax.generate.rows import Rows
from llama3_jax.generate.settings import Settings

PROMPTS = 64  # most prompts of a chunk
SPARE = 32  # items of a block of queries beside those of two longest prompts
TOGETHER = 4  # samples of a prompt from which on its pages are read once for all


@dataclasses.dataclass(frozen=True)
class Sizes:
  """Shapes of the programs; the number of compilations is that of rows and chunks.

  Attributes:
    rows: of each group of chips that decode at a time; of several numbers the smallest
      that is enough runs. A sample is the same bit for bit whatever else runs in the
      same number of rows.
    chunks: tokens of prompts that each group reads at a time, likewise; or two of a
      smaller number, where that is less.
    length: longest prompt with its answer, tokens.
    page: tokens of a page.
    pages: of each group; 0: for all rows at their longest, and prompts of a chunk.
    steps: tokens of a row before the host looks again.
    microbatches: of rows and chunks, on the stages of a pipeline.
    guesses: most guessed tokens of an answer that a call checks, in rows that would
      idle; 0: none.
  """

  rows: tuple[int, ...] = (16,)
  chunks: tuple[int, ...] = (512,)
  length: int = 2048
  page: int = 64
  pages: int = 0
  steps: int = 8
  microbatches: int = 1
  guesses: int = 0

  def __post_init__(self) -> None:
    if self.microbatches < 1:
      raise UserError(f'microbatches={self.microbatches}: it must be 1 or more')
    for name in ('rows', 'chunks'):
      values = getattr(self, name)
      if not values or list(values) != sorted(set(values)) or values[0] < 1:
        raise UserError(f'{name}={values}: it must be whole numbers that grow')
      if any(n % self.microbatches for n in values):
        raise UserError(
          f'{name}={values} must divide into microbatches={self.microbatches}'
        )
    if self.guesses < 0:
      raise UserError(f'guesses={self.guesses}: it must be a whole number from 0')

  @property
  def columns(self) -> int:
    """Pages of the longest prompt with its answer."""
    return -(-self.length // self.page)

  @property
  def count(self) -> int:
    """Pages of each group."""
    ahead = -(-self.chunks[-1] // self.page)
    return self.pages or self.rows[-1] * self.columns + ahead


def empty(
  sizes: Sizes, groups: int, count: int, vocabulary: int
) -> tuple[Rows, paged.Items, tuple[np.ndarray, np.ndarray]]:
  """(rows, items, copies) of programs.decode with `count` idle rows of each group,
  numpy arrays that Group.fill fills."""
  s = sizes
  rows = rows_lib.idle(groups, count, s.columns, s.length, vocabulary)
  # The rows may be the last samples of as many prompts.
  most = count * s.columns
  items = paged.items(groups, count, most, count + 1, s.microbatches)
  pairs = np.zeros((groups, s.rows[-1], 2), np.int32)
  return rows, items, (pairs, np.zeros(groups, np.int32))


@dataclasses.dataclass
class Request:
  """A prompt and how it is answered.

  prompt: token ids; stop_ids: tokens that end an answer; said: tokens that every answer
  begins with, which max_new counts and Answer.ids lacks; first: number of the first
  answer. Answer i depends on the prompt, the settings, the seed and i alone, and goes
  on the same after any part of itself in `said`.
  """

  prompt: Sequence[int]
  settings: Settings
  stop_ids: Sequence[int] = ()
  samples: int = 1
  seed: int = 0
  said: Sequence[int] = ()
  first: int = 0

  @property
  def text(self) -> Sequence[int]:
    """What is read before anything is drawn."""
    return [*self.prompt, *self.said] if len(self.said) else self.prompt


@dataclasses.dataclass(eq=False)
class Answer:
  """An answer while it grows.

  Attributes:
    ids, logps: tokens and their log-probabilities, the stop token last.
    alternatives: for each token (ids, log-probabilities), where they were asked for.
    end: '' (not yet) | stop | length | cancelled.
    bound: a constraint: allowed() gives uint32 words of the tokens that may come next,
      accept(token) is told which came; None: there is none.
  """

  request: Request
  number: int
  ids: list[int] = dataclasses.field(default_factory=list)
  logps: list[float] = dataclasses.field(default_factory=list)
  alternatives: list = dataclasses.field(default_factory=list)
  end: str = ''
  bound: object = None

  @property
  def left(self) -> int:
    """Tokens that may still come."""
    return self.request.settings.max_new - len(self.request.said) - len(self.ids)


@dataclasses.dataclass(eq=False)
class Prompt:
  """A request that has entered: its pages, and how much of it is read."""

  request: Request
  answers: list[Answer]
  shared: list[int]  # full pages of the prompt
  tail: list[int]  # the page where it ends, of which each of several samples has a copy
  own: list[list[int]]  # further pages of each sample
  count: int  # tokens that are read
  done: int  # of them, those that are in the pages
  left: int  # answers that have not ended
  version: int  # of the weights that it is read with

  @property
  def unread(self) -> int:
    """Tokens that are not in the pages yet."""
    return self.count - self.done

  @functools.cached_property
  def text(self) -> Sequence[int]:
    """Request.text, which is put together once."""
    return self.request.text


class Group:
  """What is read and what decodes; fills its part of the arrays of the programs."""

  def __init__(self, sizes: Sizes) -> None:
    self.sizes = sizes
    self.pages = Pages(sizes.count, sizes.page)
    self.reading: collections.deque[Prompt] = collections.deque()
    self.ready: collections.deque[tuple[Prompt, int]] = collections.deque()
    self.rows: list[tuple[Prompt, int]] = []
    self.guesses: dict[tuple[Prompt, int], list[int]] = {}  # of rows, in the next call
    self._copies: list[tuple[int, int]] = []  # (from, to), due in the next call

  @property
  def busy(self) -> bool:
    """Whether anything is here."""
    return bool(self.reading or self.ready or self.rows)

  @property
  def unread(self) -> int:
    """Tokens of prompts that are to be read."""
    return sum(prompt.unread for prompt in self.reading)

  @property
  def starving(self) -> bool:
    """Whether a row is free that only a prompt which is still read could take."""
    free = self.sizes.rows[-1] - len(self.rows)
    return bool(self.reading) and len(self.ready) < free

  @property
  def seats(self) -> list[tuple[Prompt, int, list[int]]]:
    """What each row of a call decodes: an answer, after guesses that it first reads.

    A row for every guess: it writes the guess to the pages of its answer, as all rows
    do before any of them reads, and draws what would come if it and those before were
    right.
    """
    longer = [
      (*row, ahead[: i + 1])
      for row, ahead in self.guesses.items()
      for i in range(len(ahead))
    ]
    return [(*row, []) for row in self.rows] + longer

  def split(self, request: Request) -> tuple[int, int, int, int]:
    """(tokens that are read, full pages of them, other pages of the prompt, pages of
    each sample)."""
    n, size = len(request.prompt) + len(request.said), self.sizes.page
    all = len(request.prompt) - 1 + request.settings.max_new
    # A row reads the last token itself, so it need not be read, but fills a page.
    n -= n % size > 0
    shared, tail = n // size, int(request.samples > 1 and n % size > 0)
    return n, shared, tail, -(-all // size) - shared

  def needed(self, request: Request) -> int:
    """Pages of a request of which nothing is known."""
    _, shared, tail, own = self.split(request)
    return shared + tail + request.samples * own

  def admit(self, answers: list[Answer]) -> bool:
    """Lets a request in; whether there was room."""
    request = answers[0].request
    n, _, tail, own = self.split(request)
    held = self.pages.hold(request.text[:n], tail + len(answers) * own)
    if held is None:
      return False
    full, known = held
    ends = self.pages.take(tail), [self.pages.take(own) for _ in answers]
    state = n, known * self.sizes.page, len(answers), self.pages.version
    self.reading.append(Prompt(request, answers, full, *ends, *state))
    return True

  def cancelled(self) -> list[Answer]:
    """Frees what was cancelled. A prompt that is being read is read to its end, because
    others may count on its pages."""
    gone = [x for x in (*self.rows, *self.ready) if x[0].answers[x[1]].end]
    self.rows = [x for x in self.rows if x not in gone]
    self.ready = collections.deque(x for x in self.ready if x not in gone)
    return [self.finish(*x) for x in gone]

  def finish(self, prompt: Prompt, number: int) -> Answer:
    """Gives the pages of an answer back; its full pages are remembered, unless other
    weights came meanwhile."""
    answer, own = prompt.answers[number], prompt.own[number]
    if answer.ids and prompt.version == self.pages.version:
      # Guesses that were wrong are beyond these tokens.
      said = [*prompt.text, *answer.ids[:-1]]
      self.pages.remember(self.pages.digests(said), prompt.shared + own)
    self.pages.release(own)
    prompt.left -= 1
    if not prompt.left:
      self.pages.release(prompt.shared + prompt.tail)
    return answer

  def read(self, chunk: 'Chunk', index: int) -> None:
    """Adds what fits to a chunk, whose call comes next; the answers of prompts that are
    whole then are ready."""
    for prompt in self.reading:
      if not chunk.add(prompt, index):
        break
    while self.reading and not self.reading[0].unread:
      prompt = self.reading.popleft()
      self.ready += [(prompt, i) for i in range(len(prompt.answers))]

  def seat(self) -> None:
    """Ready answers take free rows. Each of several gets a copy of the page where the
    prompt ends, at the beginning of the next call."""
    while self.ready and len(self.rows) < self.sizes.rows[-1]:
      prompt, number = self.ready.popleft()
      self.rows.append((prompt, number))
      if prompt.tail:
        self._copies.append((prompt.tail[0], prompt.own[number][0]))

  def fill(self, rows: Rows, items: paged.Items, copies: tuple, index: int) -> None:
    """Writes rows, the pages they read together and the copies that are due."""
    for i, seat in enumerate(self.seats):
      self._fill(rows, (index, i), *seat)
    self._share(items, paged.block(rows.token.shape[1], self.sizes.microbatches), index)
    pairs, count = copies
    for i, pair in enumerate(self._copies):
      pairs[index, i] = pair
    count[index], self._copies = len(self._copies), []

  def _fill(self, rows, at, prompt, number, ahead):
    answer, request = prompt.answers[number], prompt.request
    settings, n = request.settings, len(request.prompt)
    drawn = len(request.said) + len(answer.ids) + len(ahead)
    pages = prompt.shared + prompt.own[number]
    rows.token[at] = (ahead or answer.ids or prompt.text)[-1]
    rows.position[at] = n - 1 + drawn
    rows.active[at] = True
    rows.drawn[at], rows.most[at] = drawn, settings.max_new
    rows.tables.page[at][: len(pages)] = pages
    rows.own[at] = len(prompt.shared)
    if len(prompt.answers) >= TOGETHER:
      rows.tables.first[at] = len(prompt.shared)
    if settings.penalised:
      rows.said[at][: n + drawn] = [*prompt.text, *answer.ids, *ahead]
      rows.asked[at] = n
    if answer.bound:
      rows.allowed[at], rows.bound[at] = answer.bound.allowed(), True
    settings.write(rows.rules, at, request.stop_ids)
    rows.rules.key[at] = draw.key(request.seed, request.prompt, request.first + number)

  def _share(self, items, rows, index):
    """The pages that the samples of a prompt read together, in blocks of `rows`."""
    blocks = [_Block(items, (index, n)) for n in range(items.count.shape[1])]
    for i, (prompt, *_) in enumerate(self.seats):
      if len(prompt.answers) >= TOGETHER:
        blocks[i // rows].add(enumerate(prompt.shared), self.sizes.page, i + 1)


class _Block:
  """The items of a block of queries."""

  def __init__(self, items, at):
    self.items, self.at = items, at
    self._places = {}  # {(column, page): item}

  def room(self, pages):
    """Whether there is room for pages [(column, page), ...]."""
    new = sum(x not in self._places for x in pages)
    return len(self._places) + new <= self.items.page.shape[2]

  def add(self, pages, size, group):
    """Lets a group of tokens see pages of `size` tokens."""
    for column, number in pages:
      place = self._places.setdefault((column, number), len(self._places))
      item = *self.at, place
      self.items.page[item], self.items.first[item] = number, column * size
      self.items.who[item][group] = True
    self.items.count[self.at] = len(self._places)


class Chunk:
  """Tokens of prompts, packed to the brim, and the pages that they see: the arrays of
  programs.read for all groups."""

  def __init__(self, groups: int, size: int, sizes: Sizes) -> None:
    self.page, self.size = sizes.page, size
    self.tokens = np.zeros((groups, size), np.int32)
    self.spots = paged.Spots(*(np.zeros((groups, size), np.int32) for _ in range(4)))
    self._block = paged.block(size, sizes.microbatches)
    most = 2 * sizes.columns + SPARE
    items = paged.items(groups, size, most, PROMPTS + 1, sizes.microbatches)
    table = np.zeros((groups, PROMPTS, sizes.columns), np.int32)
    self.items = items.replace(table=table)
    blocks = self.items.count.shape[1]
    self._blocks = [
      [_Block(self.items, (g, n)) for n in range(blocks)] for g in range(groups)
    ]
    self.filled, self._prompts = [0] * groups, [0] * groups

  def add(self, prompt: Prompt, index: int) -> bool:
    """Adds the next tokens of a prompt; whether all of them fitted."""
    if not prompt.unread:
      return True
    if self._prompts[index] == PROMPTS:
      return False
    self._prompts[index] += 1
    pages = prompt.shared + (prompt.tail or prompt.own[0][:1])
    self.items.table[index, self._prompts[index] - 1, : len(pages)] = pages
    while prompt.unread and self.filled[index] < self.size:
      if not self._part(prompt, pages, index):
        return False
    return not prompt.unread

  def _part(self, prompt, pages, index):
    """Adds what fits into the block that is being filled; False where it is full of
    items."""
    start, at = prompt.done, self.filled[index]
    count = min(prompt.unread, self._block - at % self._block)
    block = self._blocks[index][at // self._block]
    seen = list(enumerate(pages[: (start + count - 1) // self.page + 1]))
    if not block.room(seen):
      return False
    block.add(seen, self.page, self._prompts[index])
    position = np.arange(start, start + count)
    where = np.s_[index, at : at + count]
    self.tokens[where] = prompt.text[start : start + count]
    self.spots.position[where], self.spots.group[where] = position, self._prompts[index]
    self.spots.page[where] = np.asarray(pages)[position // self.page]
    self.spots.slot[where] = position % self.page
    self.filled[index] += count
    prompt.done += count
    return True
