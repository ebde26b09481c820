"""Answers that are JSON of a schema: which tokens may come next, by llguidance."""

import functools
import json
from collections.abc import Mapping

import numpy as np

from llama3_jax.base.errors import UserError
from llama3_jax.generate import rows
from llama3_jax.text.library import Library
from llama3_jax.text.tokenizer import Tokenizer

# As json.dumps writes, which is what training rows hold; with free blanks a model may
# write blanks for ever.
FORM = dict(whitespace_flexible=False, item_separator=', ', key_separator=': ')


@functools.lru_cache(maxsize=1)
def _library():
  try:
    import llguidance
  except ImportError:
    raise UserError(
      "JSON of a schema needs llguidance: pip install -e '.[schema]'"
    ) from None
  return llguidance


class Grammar:
  """A schema, compiled for a vocabulary; `bound` gives a constraint for one answer."""

  def __init__(self, vocabulary: 'Vocabulary', schema: Mapping | bool) -> None:
    """Raises UserError for a schema that is wrong, or that no text meets."""
    if not isinstance(schema, Mapping):
      raise UserError('a JSON schema is an object')
    matcher = _library().LLMatcher
    try:
      grammar = matcher.grammar_from_json_schema(json.dumps(schema), FORM)
    except (ValueError, TypeError, RecursionError) as error:
      raise UserError(f'the JSON schema cannot be used: {_line(error)}') from None
    self._vocabulary = vocabulary
    self._matcher = matcher(vocabulary.tokens, grammar, log_level=0)
    if self._matcher.is_error():
      reason = _line(self._matcher.get_error())
      raise UserError(f'the JSON schema cannot be used: {reason}')
    first = self.bound()
    first.allowed()
    if first.failed:
      raise UserError('the JSON schema cannot be met by any text')

  def bound(self) -> 'Bound':
    """A constraint of an answer that has not begun."""
    return Bound(self._matcher.deep_copy(), self._vocabulary)


class Vocabulary:
  """The tokens of a model as llguidance reads them.

  size: rows of the model, which may be more than the tokenizer has tokens. Raises
  UserError where llguidance is not installed.
  """

  def __init__(self, tokenizer: Tokenizer | Library, size: int) -> None:
    make, self.size = _library().LLTokenizer, size
    self.ends = ends = list(tokenizer.stop_ids)
    count = tokenizer.vocab_size
    if isinstance(tokenizer, Library):
      text = tokenizer.content.decode()
      self.tokens = make(text, n_vocab=count, eos_token=ends)
      return
    encoding = tokenizer.encoding
    self.tokens = make.from_tiktoken(
      encoder=encoding._mergeable_ranks,
      special_tokens=encoding._special_tokens,
      pattern=encoding._pat_str,
      eos_token=ends,
      n_vocab=count,
    )


class Bound:
  """The constraint of one answer, as group.Answer.bound is used.

  failed: whether the grammar became too large, or no token fits; the answer then ends.
  """

  def __init__(self, matcher: object, vocabulary: Vocabulary) -> None:
    self._matcher, self._vocabulary = matcher, vocabulary
    self.failed = False

  def allowed(self) -> np.ndarray:
    """Bits of the tokens that may come next, uint32 [ceil(V/32)]."""
    found = np.frombuffer(self._matcher.compute_bitmask(), np.uint32)
    words = np.zeros(rows.words(self._vocabulary.size), np.uint32)
    words[: len(found)] = found[: len(words)]  # it gives one more where 32 divides V
    if self._matcher.is_error() or not words.any():
      self.failed = True
      for token in self._vocabulary.ends:
        words[token // 32] |= np.uint32(1 << token % 32)
    return words

  def accept(self, token: int) -> None:
    """Is told which token came."""
    if not self._matcher.is_stopped():
      self._matcher.consume_token(int(token))


def _line(error):
  return ' '.join(str(error).split())[:300]
