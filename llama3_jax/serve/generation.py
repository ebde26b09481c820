"""One HTTP request's answers: submitted, followed, and cancelled when nobody waits."""

import asyncio
import dataclasses
import random
import time
from collections.abc import AsyncIterator
from collections.abc import Mapping
from collections.abc import Sequence

from llama3_jax.base.errors import UserError
from llama3_jax.config import ModelConfig
from llama3_jax.generate.group import Request
from llama3_jax.generate.schema import Grammar
from llama3_jax.generate.schema import Vocabulary
from llama3_jax.serve.choices import Choice
from llama3_jax.serve.choices import Delta
from llama3_jax.serve.faults import Fault
from llama3_jax.serve.metrics import Metrics
from llama3_jax.serve.read import Asked
from llama3_jax.serve.worker import Job
from llama3_jax.serve.worker import Worker
from llama3_jax.text.library import Library
from llama3_jax.text.tokenizer import Tokenizer


@dataclasses.dataclass
class Served:
  """What a server answers with.

  Attributes:
    name: of the model.
    draws: seeds of requests that name none.
    timeout_s: longest time of an answer, seconds.
    vocabulary: for constraints, made when the first comes.
  """

  worker: Worker
  tokenizer: Tokenizer | Library
  model: ModelConfig
  name: str
  metrics: Metrics
  draws: random.Random
  timeout_s: float
  vocabulary: Vocabulary | None = None

  def grammar(self, schema: Mapping, name: str) -> Grammar:
    """A schema of the field `name`, compiled; Fault for one that cannot be met."""
    try:
      if self.vocabulary is None:
        self.vocabulary = Vocabulary(self.tokenizer, self.model.vocab_size)
      return Grammar(self.vocabulary, schema)
    except UserError as error:
      raise Fault(400, f"'{name}': {error}", name, 'invalid_value') from None


class Generation:
  """The answers of an HTTP request.

  Attributes:
    choices: in the order of prompts, then samples.
    tokens: of all prompts.
  """

  def __init__(
    self,
    served: Served,
    prompts: Sequence[Sequence[int]],
    asked: Asked,
    name: str,
    grammar: Grammar | None = None,
    tools: Sequence[Mapping] = (),
    several: bool = True,
  ) -> None:
    """Submits them. Fault where they cannot be answered; name: of the field that holds
    the prompts. tools, several: as of a Choice."""
    self._served, self._pieces = served, asyncio.Queue()
    self._began = time.monotonic()
    seed = served.draws.getrandbits(32) if asked.seed is None else asked.seed % 2**32
    stop_ids, n = tuple(served.tokenizer.stop_ids), asked.samples
    self._jobs = []
    for i, prompt in enumerate(prompts):
      settings = dataclasses.replace(
        asked.settings, max_new=_longest(served, prompt, asked.most, name)
      )
      request = Request(prompt, settings, stop_ids, n, seed)
      _check(served, request, name)
      bounds = [grammar.bound() for _ in range(n)] if grammar else []
      self._jobs.append(Job(request, self._pieces, i * n, bounds))
    self.choices = [
      Choice(served.tokenizer, stop_ids, asked.stops, tools, several)
      for _ in range(len(prompts) * n)
    ]
    self.tokens = sum(map(len, prompts))
    served.worker.submit(self._jobs)

  @property
  def count(self) -> int:
    """Tokens that were sampled."""
    return sum(choice.count for choice in self.choices)

  async def deltas(self) -> AsyncIterator[tuple[int, Delta]]:
    """(index of the choice, what it gained) until all have ended.

    What was not read to its end is cancelled. Fault where the engine fails, or the
    answer takes too long.
    """
    deadline = asyncio.get_running_loop().time() + self._served.timeout_s
    first = True
    try:
      while not all(choice.finish for choice in self.choices):
        # Not around the whole: it would also end what the reader of deltas does.
        async with asyncio.timeout_at(deadline):
          piece = await self._pieces.get()
        if first and piece.ids:
          self._served.metrics.first_token(time.monotonic() - self._began)
          first = False
        if delta := self._add(piece):
          yield piece.index, delta
    except TimeoutError:
      seconds = self._served.timeout_s
      said = f'the answer was not there after {seconds:g} s: ask for less'
      raise Fault(504, said, code='timeout') from None
    finally:
      self.cancel()

  def _add(self, piece):
    choice = self.choices[piece.index]
    delta = choice.add(piece)
    if choice.finish == 'failed':
      raise Fault(500, 'the answer failed: see the log of the server')
    if choice.finish and not piece.end:
      n = len(self.choices) // len(self._jobs)
      self._served.worker.cancel(self._jobs[piece.index // n], piece.index % n)
    return delta

  def cancel(self) -> None:
    """Ends what nobody waits for."""
    if not all(choice.finish for choice in self.choices):
      for job in self._jobs:
        self._served.worker.cancel(job)


def _longest(served, prompt, most, name):
  """Tokens that an answer may have."""
  length = served.worker.engine.sizes.length
  left = length - len(prompt)
  if (most or 1) > left:
    asked = f' and {most} of the answer' if most else ''
    raise Fault(
      400,
      f'this model reads {length} tokens: {len(prompt)} of the prompt{asked} are more',
      name,
      'context_length_exceeded',
    )
  return most or left


def _check(served, request, name):
  try:
    served.worker.engine.check(request)
  except UserError as error:
    raise Fault(400, str(error), name, 'invalid_value') from None
