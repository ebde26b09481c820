"""Tokenizers of others, by the library `tokenizers`: ids of tokenizer.json (3.2)."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
import tokenizers

from llama3_jax.base.errors import UserError
from llama3_jax.text import vocabulary
from llama3_jax.text.template import Template

# In place of the first character of a special token that is to stay text: characters
# that no text has (noncharacters of Unicode), one for each first character.
HIDDEN = tuple(map(chr, range(0xFDD2, 0xFDF0)))
NO_CHARACTERS = dict.fromkeys(range(0xFDD0, 0xFDF0), '\ufffd')
KINDS = ('BPE',)  # of models that the Llama family has
BYTES = ('ByteLevel', 'ByteFallback')  # decoders that know the bytes of a token


@dataclasses.dataclass(frozen=True)
class Library:
  """Text to ids and back, as `tokenizers` and so transformers do it.

  Attributes:
    content: tokenizer.json, which travels with a model's parameters.
    fingerprint: sha256 of it, to be kept with encoded data.
    specials: special token text -> id.
    tokens: texts of special tokens by name: bos_token, eos_token, pad_token, ...
    stop_ids: ids that end a generation.
    template: its chat template; None for a model that does not chat.
    call_format: how the model writes calls of custom tools (tool_calls.FORMATS).
  """

  content: bytes = dataclasses.field(repr=False)
  fingerprint: str
  specials: Mapping[str, int] = dataclasses.field(repr=False)
  tokens: Mapping[str, str]
  stop_ids: tuple[int, ...]
  template: Template | None = dataclasses.field(default=None, repr=False)
  call_format: str = 'json'

  @functools.cached_property
  def backend(self) -> tokenizers.Tokenizer:
    """The library's tokenizer, for which special tokens in a text are such."""
    return tokenizers.Tokenizer.from_str(self.content.decode('utf-8'))

  @functools.cached_property
  def plain(self) -> tokenizers.Tokenizer:
    """The same, for which special tokens in a text are text."""
    other = tokenizers.Tokenizer.from_str(self.content.decode('utf-8'))
    other.encode_special_tokens = True
    return other

  @functools.cached_property
  def vocab_size(self) -> int:
    return max(self.backend.get_vocab(with_added_tokens=True).values()) + 1

  @functools.cached_property
  def bos(self) -> int | None:
    """Id that opens a document; None where the tokenizer puts none before a text."""
    around = self.backend.encode('', add_special_tokens=True).ids
    bos = self._token('bos_token')
    return bos if bos in around[:1] else None

  @functools.cached_property
  def eos(self) -> int | None:
    """Id that ends a document; None where the model has none."""
    return self._token('eos_token')

  @functools.cached_property
  def pad(self) -> int:
    """Padding id; -1 where the model has none."""
    found = self._token('pad_token')
    return -1 if found is None else found

  def _token(self, name):
    return self.backend.token_to_id(self.tokens[name]) if name in self.tokens else None

  def special(self, name: str) -> int:
    """Id of a special token; UserError if it has none."""
    if name not in self.specials:
      raise UserError(f'the tokenizer has no special token {name}')
    return self.specials[name]

  def encode(
    self, text: str, bos: bool = False, eos: bool = False, special: bool = False
  ) -> list[int]:
    """Ids of a text, see Tokenizer.encode; without a token to open or end, none."""
    how = self.backend if special else self.plain
    ids = how.encode(_whole(text), add_special_tokens=False).ids
    opening = [self.bos] if bos and self.bos is not None else []
    return opening + ids + ([self.eos] if eos and self.eos is not None else [])

  def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
    """Ids of many texts, on all cores; the same as `encode` of each."""
    encoded = self.plain.encode_batch_fast(
      [_whole(text) for text in texts], add_special_tokens=False
    )
    return [each.ids for each in encoded]

  def spans(self, text: str) -> tuple[np.ndarray, np.ndarray]:
    """(ids int32 [T], index of each one's first character int32 [T]) of a text whose
    special tokens are such, except those that `hide` has hidden."""
    parts = self._parts(text) if any(c in text for c in self._shown) else [(text, 0)]
    ids, starts = [], []
    for part, begin in parts:
      shown = ''.join(self._shown.get(c, c) for c in part)
      encoded = (self.backend if shown == part else self.plain).encode(
        _whole(shown), add_special_tokens=False
      )
      ids += encoded.ids
      starts += [begin + start for start, _ in encoded.offsets]
    return np.array(ids, np.int32), np.array(starts, np.int32)

  def _parts(self, text):
    """(part, its first character) of a text: special tokens, and what is between."""
    encoded = self.backend.encode(_whole(text), add_special_tokens=False)
    special, cuts = set(self.specials.values()), {0, len(text)}
    for i, span in zip(encoded.ids, encoded.offsets):
      if i in special:
        cuts |= set(span)
    edges = sorted(cuts)
    return [(text[a:b], a) for a, b in zip(edges, edges[1:])]

  def hide(self, text: str) -> str:
    """A text in which no special token is left: each one's first character is another
    until `spans` has its ids. Noncharacters of its own become U+FFFD."""
    text = text.translate(NO_CHARACTERS)
    for name in sorted(self.specials, key=len, reverse=True):
      if name in text:
        text = text.replace(name, self._unseen[name[0]] + name[1:])
    return text

  @functools.cached_property
  def _unseen(self):
    firsts = sorted({name[0] for name in self.specials if name})
    if len(firsts) > len(HIDDEN):
      raise UserError(f'special tokens begin with {len(firsts)} characters: too many')
    return dict(zip(firsts, HIDDEN, strict=False))

  @functools.cached_property
  def _shown(self):
    return {hidden: first for first, hidden in self._unseen.items()}

  def decode(self, ids: Sequence[int]) -> str:
    """Text of ids; bytes that are not UTF-8 become U+FFFD."""
    self._check(ids)
    return self.backend.decode([int(i) for i in ids], skip_special_tokens=False)

  def decode_bytes(self, ids: Sequence[int]) -> bytes:
    """Bytes of ids: a streaming reader must not cut inside a character."""
    self._check(ids)
    return b''.join(self._bytes(int(i)) for i in ids)

  def _check(self, ids):
    for i in ids:
      if self.backend.id_to_token(int(i)) is None:
        raise UserError(f'id {i} is outside the vocabulary of {self.vocab_size}')

  def _bytes(self, i):
    token = self.backend.id_to_token(i)
    if i in self._added:
      return token.encode()
    if self._level:
      table = _table()
      return b''.join(bytes([table[c]]) if c in table else c.encode() for c in token)
    if len(token) == 6 and token.startswith('<0x') and token.endswith('>'):
      return bytes([int(token[3:5], 16)])
    return token.replace('▁', ' ').encode()

  @functools.cached_property
  def _level(self):
    return 'ByteLevel' in kinds(json.loads(self.content).get('decoder'))

  @functools.cached_property
  def _added(self):
    return frozenset(t['id'] for t in json.loads(self.content)['added_tokens'])


def read(
  content: bytes,
  where: str,
  tokens: Mapping[str, str],
  stops: Sequence[int] = (),
  template: str | None = None,
) -> Library:
  """The Library of a tokenizer.json.

  Args:
    content: of the file.
    where: its path, for errors.
    tokens: texts of special tokens by name, bos_token, eos_token and others.
    stops: ids that end a generation, beside that of eos_token.
    template: source of the chat template.

  Raises:
    UserError: not a tokenizer.json, or of a kind that the Llama family does not have.
  """
  try:
    spec = json.loads(content)
    made = tokenizers.Tokenizer.from_str(content.decode('utf-8'))
    added = spec.get('added_tokens') or []
  except Exception as error:  # the library raises nothing finer
    reason = ' '.join(str(error).split())[:120]
    raise UserError(f'{where}: not a tokenizer.json ({reason})') from None
  kind = spec['model'].get('type', 'BPE')
  if kind not in KINDS:
    raise UserError(
      f'{where}: a tokenizer of kind {kind}; models of the Llama family have '
      f'{" or ".join(KINDS)}'
    )
  decoders = kinds(spec.get('decoder'))
  if not set(decoders) & set(BYTES):
    raise UserError(
      f'{where}: its decoder is {", ".join(decoders) or "none"}: only '
      f'{" and ".join(BYTES)} tell the bytes of a token'
    )
  for name, text in tokens.items():
    if made.token_to_id(text) is None:
      raise UserError(f'{where}: {name} {text!r} is not in the vocabulary')
  ends = [made.token_to_id(tokens['eos_token'])] if 'eos_token' in tokens else []
  return Library(
    content,
    hashlib.sha256(content).hexdigest(),
    {t['content']: t['id'] for t in added if t.get('special')},
    dict(tokens),
    tuple(dict.fromkeys((*stops, *ends))),
    None if template is None else Template(template, dict(tokens), where),
  )


def kinds(part: Mapping | None) -> list[str]:
  """Types of a part of tokenizer.json and of all that is in it."""
  if not part:
    return []
  names = ('decoders', 'pretokenizers', 'normalizers')
  inside = [p for name in names for p in part.get(name) or ()]
  return [part['type'], *(k for p in inside for k in kinds(p))]


@functools.lru_cache(maxsize=1)
def _table():
  """{character: byte} of byte-level vocabularies."""
  return vocabulary.byte_characters()


def _whole(text):
  """A text whose lone surrogates, which the library refuses, are question marks."""
  try:
    text.encode()
  except UnicodeEncodeError:
    return text.encode('utf-8', 'replace').decode()
  return text


def with_stops(tokenizer: Library, stops: Sequence[int]) -> Library:
  """The same tokenizer with further ids that end a generation."""
  every = tuple(dict.fromkeys((*stops, *tokenizer.stop_ids)))
  return dataclasses.replace(tokenizer, stop_ids=every)
