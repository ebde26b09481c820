"""Choices while they grow, and the objects of the OpenAI API that tell them."""

import dataclasses
from collections.abc import Mapping
from collections.abc import Sequence

from llama3_jax.base.errors import UserError
from llama3_jax.generate.text import Text
from llama3_jax.serve import messages
from llama3_jax.serve.worker import Piece
from llama3_jax.text.library import Library
from llama3_jax.text.tokenizer import Tokenizer
from llama3_jax.tools import parser

ROUND = 6  # digits of log-probabilities


@dataclasses.dataclass(frozen=True)
class Token:
  """A sampled token with its log-probability and the likeliest alternatives."""

  id: int
  logp: float
  best: tuple[tuple[int, float], ...] = ()


@dataclasses.dataclass(frozen=True)
class Delta:
  """What a choice gained: text, tokens whose log-probabilities are told, calls of
  tools, and at the end the reason."""

  text: str = ''
  tokens: tuple[Token, ...] = ()
  calls: list[dict] | None = None
  finish: str | None = None


class Choice:
  """One answer: pieces of the engine in, deltas out.

  tools: whose calls are looked for; a text that may be one is held back to its end.
  several: whether there may be more than one. stops: strings that end the answer.

  Attributes:
    count: tokens, with a stop token.
    finish: '' (not yet) | stop | length | tool_calls | failed.
  """

  def __init__(
    self,
    tokenizer: Tokenizer | Library,
    stop_ids: Sequence[int],
    stops: Sequence[str] = (),
    tools: Sequence[Mapping] = (),
    several: bool = True,
  ) -> None:
    self._tokenizer, self._stop_ids = tokenizer, frozenset(stop_ids)
    self._text = Text(tokenizer, stop_ids, stops)
    self._tools, self._several = tuple(tools), several
    self._ids, self._held, self._tokens = [], '', []
    self.count, self.finish = 0, ''

  def add(self, piece: Piece) -> Delta | None:
    """What the choice gained that can be told; None: nothing. After a stop string
    `finish` is set before the engine has ended the answer."""
    if self.finish:
      return None
    said = ''
    for i, (token, logp) in enumerate(zip(piece.ids, piece.logps)):
      if self._text.ended:
        break
      best = zip(*piece.alternatives[i]) if piece.alternatives else ()
      self.count += 1
      self._ids.append(token)
      if token not in self._stop_ids:
        self._tokens.append(Token(token, logp, tuple(best)))
      said += self._text.add(token)
    if self._text.ended:
      self.finish = 'stop'
    elif piece.end:
      said += self._text.rest()
      cut = {'length': 'length', 'stop': 'stop'}
      self.finish = cut.get(piece.end, 'failed')
    return self._delta(said)

  def _delta(self, said):
    calls = None
    self._held += said
    if self._tools and self.finish == 'stop':
      how = (self._tools, self._several)
      calls = messages.called(self._tokenizer, self._ids, *how)
      if calls:
        self._held, self.finish = '', 'tool_calls'
    hold = self._tools and not self.finish and parser.may_be(self._held)
    if not self.finish and (hold or not self._held):
      return None
    if self._tools and not hold:
      self._tools = ()  # it began as a text
    delta = Delta(self._held, tuple(self._tokens), calls, self.finish or None)
    self._held, self._tokens = '', []
    return delta


class Written:
  """How the tokens of a vocabulary are written in log-probabilities."""

  def __init__(self, tokenizer: Tokenizer | Library) -> None:
    self._tokenizer = tokenizer

  def token(self, token: int) -> tuple[str, list[int]]:
    """(text, bytes) of a token; a row of the model that is no token has neither."""
    try:
      spelt = self._tokenizer.decode_bytes([token])
    except UserError:
      return '', []
    return spelt.decode('utf-8', 'replace'), list(spelt)

  def chat(self, tokens: Sequence[Token]) -> dict[str, object]:
    """logprobs of a chat."""
    rows = []
    for t in tokens:
      best = [self._row(*pair) for pair in t.best]
      rows.append(self._row(t.id, t.logp) | {'top_logprobs': best})
    return {'content': rows, 'refusal': None}

  def _row(self, token, logp):
    text, spelt = self.token(token)
    return {'token': text, 'logprob': round(logp, ROUND), 'bytes': spelt}

  def completion(self, tokens: Sequence[Token], offset: int) -> dict[str, object]:
    """logprobs of a completion; offset: characters of the tokens before."""
    texts, offsets = [self.token(t.id)[0] for t in tokens], []
    for text in texts:
      offsets.append(offset)
      offset += len(text)
    best = [
      {self.token(i)[0]: round(v, ROUND) for i, v in (*t.best, (t.id, t.logp))}
      for t in tokens
    ]
    return {
      'tokens': texts,
      'token_logprobs': [round(t.logp, ROUND) for t in tokens],
      'top_logprobs': best,
      'text_offset': offsets,
    }


def usage(prompt: int, completion: int) -> Mapping[str, int]:
  """Counts of tokens."""
  return {
    'prompt_tokens': prompt,
    'completion_tokens': completion,
    'total_tokens': prompt + completion,
  }
