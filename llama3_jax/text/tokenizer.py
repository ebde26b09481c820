"""Byte-level BPE with the Llama 3 vocabulary format, loading and training (3.2)."""

import dataclasses
import functools
import hashlib
import itertools
import os
import re
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Self

import tiktoken

from llama3_jax.base.errors import UserError
from llama3_jax.text import vocabulary

N_SPECIAL = 256
# tiktoken panics on longer input, and its regex engine on longer runs.
MAX_CHARACTERS = 400_000
MAX_RUN = 25_000
RUNS = re.compile(r'\s+|\S+')  # re's \s is exactly str.isspace

# None is the next <|reserved_special_token_i|>; ids after the last are reserved too.
SPECIALS = {
  '3.1': (
    '<|begin_of_text|>',
    '<|end_of_text|>',
    None,
    None,
    '<|finetune_right_pad_id|>',
    '<|step_id|>',
    '<|start_header_id|>',
    '<|end_header_id|>',
    '<|eom_id|>',
    '<|eot_id|>',
    '<|python_tag|>',
    '<|image|>',
  ),
  'april': (
    '<|begin_of_text|>',
    '<|end_of_text|>',
    None,
    None,
    None,
    None,
    '<|start_header_id|>',
    '<|end_header_id|>',
    None,
    '<|eot_id|>',
  ),
}


@dataclasses.dataclass(frozen=True)
class Tokenizer:
  """Text to ids and back; ids are base ranks, then 256 special tokens.

  Attributes:
    n_base: number of base ranks (128,000 in the released vocabulary).
    variant: '3.1' or 'april' (2024), the naming of the special tokens.
    fingerprint: sha256 of the vocabulary file, stored with encoded data.
    specials: special token text -> id.
    encoding: the tiktoken object that encodes and decodes.
    content: the vocabulary file, which is copied beside a model's parameters.
    call_format: how the model writes calls of custom tools (tool_calls.FORMATS).
  """

  n_base: int
  variant: str
  fingerprint: str
  specials: Mapping[str, int] = dataclasses.field(repr=False)
  encoding: tiktoken.Encoding = dataclasses.field(repr=False)
  content: bytes = dataclasses.field(default=b'', repr=False, compare=False)
  call_format: str = 'json'

  @classmethod
  def load(cls, path: str | os.PathLike, variant: str = '3.1') -> Self:
    """Reads Meta's format: one base64 token, a space and its rank per line.

    Raises:
      UserError: missing, corrupt or foreign file (names file and line).
    """
    if variant not in SPECIALS:
      raise UserError(
        f'tokenizer variant {variant!r} is unknown: use one of {list(SPECIALS)}'
      )
    content = vocabulary.read(path)
    ranks = vocabulary.parse(content, path)
    return _made(content, ranks, variant, os.path.basename(os.fspath(path)))

  @property
  def vocab_size(self) -> int:
    """Number of ids: base ranks and special tokens."""
    return self.n_base + N_SPECIAL

  def special(self, name: str) -> int:
    """Id of a special token, e.g. '<|eot_id|>'; UserError if it has none."""
    if name not in self.specials:
      raise UserError(
        f'tokenizer variant {self.variant!r} has no special token {name}'
        + (": load it with variant='3.1'" if self.variant == 'april' else '')
      )
    return self.specials[name]

  # Cached, since they are used for every document and message.
  @functools.cached_property
  def bos(self) -> int:
    return self.special('<|begin_of_text|>')

  @functools.cached_property
  def eos(self) -> int:
    return self.special('<|end_of_text|>')

  @functools.cached_property
  def pad(self) -> int:
    """Padding id; -1 in the April variant, as in the code of that release."""
    return self.specials.get('<|finetune_right_pad_id|>', -1)

  @functools.cached_property
  def eot(self) -> int:
    return self.special('<|eot_id|>')

  @functools.cached_property
  def eom(self) -> int:
    return self.special('<|eom_id|>')

  @functools.cached_property
  def start_header(self) -> int:
    return self.special('<|start_header_id|>')

  @functools.cached_property
  def end_header(self) -> int:
    return self.special('<|end_header_id|>')

  @functools.cached_property
  def python_tag(self) -> int:
    return self.special('<|python_tag|>')

  @functools.cached_property
  def stop_ids(self) -> tuple[int, ...]:
    """Ids that end a generation: end of text, of message (3.1 only), of turn."""
    names = '<|end_of_text|>', '<|eom_id|>', '<|eot_id|>'
    return tuple(self.specials[name] for name in names if name in self.specials)

  def encode(
    self, text: str, bos: bool = False, eos: bool = False, special: bool = False
  ) -> list[int]:
    """Ids of a text.

    Args:
      text: any string; a lone surrogate becomes U+FFFD.
      bos: put begin_of_text before it.
      eos: put end_of_text after it.
      special: read '<|...|>' in the text as special tokens. Only for text that
        is known to be safe: by default it stays ordinary text.
    """
    ids = [self.bos] if bos else []
    for piece in pieces(text):
      if special:
        ids += self.encoding.encode(piece, allowed_special='all')
      else:
        ids += self.encoding.encode_ordinary(piece)
    return ids + [self.eos] if eos else ids

  def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
    """Ids of many texts, on all cores; the same as `encode` of each."""
    chain = itertools.chain.from_iterable
    parts, counts = [], []
    for text in texts:
      split = list(pieces(text))
      parts += split
      counts.append(len(split))
    threads = min(len(parts), os.cpu_count() or 1)
    encoded = iter(
      self.encoding.encode_ordinary_batch(parts, num_threads=threads) if parts else ()
    )
    return [
      next(encoded) if n == 1 else list(chain(itertools.islice(encoded, n)))
      for n in counts
    ]

  def decode(self, ids: Iterable[int]) -> str:
    """Text of ids; bytes that are not UTF-8 become U+FFFD."""
    return self.decode_bytes(ids).decode('utf-8', errors='replace')

  def decode_bytes(self, ids: Iterable[int]) -> bytes:
    """Bytes of ids: a streaming reader must not cut inside a character."""
    ids = [int(i) for i in ids]
    for i in ids:
      if not 0 <= i < self.vocab_size:
        raise UserError(f'id {i} is outside the vocabulary of {self.vocab_size}')
    return self.encoding.decode_bytes(ids)


def of_ranks(ranks: Mapping[bytes, int], variant: str = '3.1') -> Tokenizer:
  """The Tokenizer of a vocabulary {token: rank}, with Meta's file as its content."""
  return _made(vocabulary.dump(ranks), dict(ranks), variant, 'ranks')


def _made(content, ranks, variant, name):
  specials = special_tokens(len(ranks), variant)
  encoding = tiktoken.Encoding(
    name=name,
    pat_str=vocabulary.PATTERN,
    mergeable_ranks=ranks,
    special_tokens=specials,
  )
  fingerprint = hashlib.sha256(content).hexdigest()
  return Tokenizer(len(ranks), variant, fingerprint, specials, encoding, content)


# The two other operations on a vocabulary file.
train = vocabulary.train
extend = vocabulary.extend


def special_tokens(n_base: int, variant: str) -> dict[str, int]:
  """The 256 special tokens of a variant, placed right after the base ranks."""
  names = SPECIALS[variant]
  names += (None,) * (N_SPECIAL - len(names))
  reserved = (f'<|reserved_special_token_{i}|>' for i in range(N_SPECIAL))
  return {name or next(reserved): n_base + i for i, name in enumerate(names)}


def pieces(text: str) -> Iterator[str]:
  """Splits a text into parts that tiktoken can take; most texts are one part."""
  for start in range(0, len(text), MAX_CHARACTERS):
    part = text[start : start + MAX_CHARACTERS]
    begin = 0
    if len(part) > MAX_RUN:
      for run in RUNS.finditer(part):
        for end in range(run.start() + MAX_RUN, run.end(), MAX_RUN):
          yield part[begin:end]
          begin = end
    yield part[begin:]


def characters_per_token(
  tokenizer: Tokenizer, texts_by_language: Mapping[str, Iterable[str]]
) -> dict[str, float]:
  """Compression by language, in characters per token (3.2: 3.94 for English)."""
  rates = {}
  for language, texts in texts_by_language.items():
    texts = list(texts)
    tokens = sum(map(len, tokenizer.encode_batch(texts)))
    rates[language] = sum(map(len, texts)) / max(tokens, 1)
  return rates
