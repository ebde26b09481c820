"""The text of an answer as its tokens come: whole characters, up to a stop string."""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence

from llama3_jax.text.library import Library
from llama3_jax.text.tokenizer import Tokenizer

PARTS = 3  # most tokens of a character that was cut off: it has up to four bytes
NEAR = 16  # tokens whose text tells whether it ends inside a character


class Characters:
  """Text of tokens as they come.

  A character may be spread over tokens: its bytes are held back until it is whole, and
  dropped where the answer is cut off inside it.
  """

  def __init__(self, tokenizer: Tokenizer | Library) -> None:
    self._tokenizer = tokenizer
    self._ids = []
    self._shown = self._read = 0  # ids[shown:read] give a text its left neighbour

  def add(self, token: int) -> str:
    """The text that is certain with one more token, which is not a stop token."""
    self._ids.append(int(token))
    decode = self._tokenizer.decode
    before = decode(self._ids[self._shown : self._read])
    now = decode(self._ids[self._shown :])
    if len(now) <= len(before) or now.endswith('\ufffd'):
      return ''
    self._shown, self._read = self._read, len(self._ids)
    return now[len(before) :]

  def rest(self, stopped: bool = False) -> str:
    """The text that was held back when no token follows; stopped: the model ended by
    itself, so that nothing was cut off."""
    left = self._ids if stopped else whole(self._tokenizer, self._ids)
    before = self._tokenizer.decode(self._ids[self._shown : self._read])
    now = self._tokenizer.decode(left[self._shown :])
    self._shown = self._read = len(self._ids)
    return now[len(before) :]


def pieces(tokenizer: Tokenizer | Library, tokens: Iterable[int]) -> Iterator[str]:
  """Yields the text of tokens as they come, without the stop token."""
  characters, stopped = Characters(tokenizer), False
  for token in tokens:
    if token in tokenizer.stop_ids:
      stopped = True
      break
    if piece := characters.add(token):
      yield piece
  if piece := characters.rest(stopped):
    yield piece


def whole(tokenizer: Tokenizer | Library, ids: Sequence[int]) -> list[int]:
  """Sampled ids without the beginning of a character that was cut off."""
  ids = list(ids)
  if ids and ids[-1] in tokenizer.stop_ids:
    return ids
  for n in range(min(PARTS, len(ids)) + 1):
    end = len(ids) - n
    if not tokenizer.decode(ids[max(end - NEAR, 0) : end]).endswith('\ufffd'):
      return ids[:end]
  return ids


class Stops:
  """Text up to the first of some strings, however it is cut into pieces.

  What may be the beginning of one is held back. Each string is followed by its own
  automaton (Knuth, Morris and Pratt), so that a character costs the same however long
  the strings are.
  """

  def __init__(self, strings: Sequence[str]) -> None:
    self._strings = [s for s in strings if s]
    self._tables = [_failures(s) for s in self._strings]
    self._matched = [0] * len(self._strings)
    self._held = ''
    self.found = False

  def add(self, text: str) -> str:
    """The text that is certain not to be of a stop string; '' once one was found."""
    for at, character in enumerate(text, 1):
      if ended := self._follow(character):
        self.found = True
        seen = self._held + text[:at]
        self._held = ''
        return seen[: len(seen) - ended]
    seen = '' if self.found else self._held + text
    keep = len(seen) - max(self._matched, default=0)
    self._held = seen[keep:]
    return seen[:keep]

  def rest(self) -> str:
    """What was held back, when no text follows."""
    left, self._held = self._held, ''
    return left

  def _follow(self, character):
    """Length of the longest string that ends with this character; 0: none does."""
    if self.found:
      return 0
    ended = 0
    for i, string in enumerate(self._strings):
      n = self._matched[i]
      while n and string[n] != character:
        n = self._tables[i][n - 1]
      self._matched[i] = n = n + (string[n] == character)
      if n == len(string):
        ended = max(ended, n)
    return ended


def _failures(string):
  """For each prefix, the length of its longest proper beginning that also ends it."""
  table = [0] * len(string)
  n = 0
  for i in range(1, len(string)):
    while n and string[i] != string[n]:
      n = table[n - 1]
    n += string[i] == string[n]
    table[i] = n
  return table


class Text:
  """The text of one answer: whole characters, up to a stop token or a stop string.

  Attributes:
    ended: whether a stop token or a stop string came; later tokens change nothing.
  """

  def __init__(
    self,
    tokenizer: Tokenizer | Library,
    stop_ids: Sequence[int] = (),
    strings: Sequence[str] = (),
  ) -> None:
    self._characters = Characters(tokenizer)
    self._stops, self._stop_ids = Stops(strings), frozenset(stop_ids)
    self.ended = False

  def add(self, token: int) -> str:
    """The text that is certain with one more token."""
    if self.ended:
      return ''
    if token in self._stop_ids:
      return self._end(stopped=True)
    piece = self._stops.add(self._characters.add(token))
    self.ended = self._stops.found
    return piece

  def rest(self) -> str:
    """The text that was held back, where the answer was cut off."""
    return '' if self.ended else self._end(stopped=False)

  def _end(self, stopped):
    self.ended = True
    piece = self._stops.add(self._characters.rest(stopped))
    return piece + ('' if self._stops.found else self._stops.rest())
