"""Vocabulary files: reading, writing, training and extending them (3.2)."""

import base64
import binascii
import collections
import json
import os
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence

import tiktoken
import tokenizers

from llama3_jax.base import files
from llama3_jax.base.errors import UserError

# The alternatives in the order in which they are tried, as the released code
# has them. `regex`, `tiktoken` and `tokenizers` all read this dialect.
PATTERN = '|'.join(
  [
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",  # English contractions
    r'[^\r\n\p{L}\p{N}]?\p{L}+',  # a word with at most one mark before it
    r'\p{N}{1,3}',  # digits, three at a time
    r' ?[^\s\p{L}\p{N}]+[\r\n]*',  # punctuation, and the newlines that follow
    r'\s*[\r\n]+',  # white space that ends in newlines
    r'\s+(?!\S)',  # white space, leaving one for the word that follows
    r'\s+',
  ]
)


def train(
  texts: Iterable[str], n_base: int, path: str | os.PathLike, fewer: bool = False
) -> None:
  """Trains a byte-level BPE and writes it as a vocabulary file.

  A merge's rank is the order in which it was learnt. tiktoken joins the pair
  whose join has the lowest rank, which is then the pair that training joined.

  Args:
    texts: training text.
    n_base: base ranks, of which the first 256 are the bytes.
    path: file to write, replaced at once when done.
    fewer: write as many as the texts teach where these are fewer.

  Raises:
    UserError: n_base below 256, or (without `fewer`) more than the texts can teach.
  """
  if n_base < 256:
    raise UserError(f'vocab_size is {n_base}: the 256 bytes need at least 256')
  alphabet = byte_characters()
  to_bytes = tokenizers.pre_tokenizers.ByteLevel(
    add_prefix_space=False, use_regex=False
  )
  merges = _merges(
    texts,
    tokenizers.pre_tokenizers.Sequence([_splitter(), to_bytes]),
    list(alphabet),
    n_base - 256,
  )
  if len(merges) < n_base - 256 and not fewer:
    raise UserError(
      f'vocab_size is {n_base}, but the texts teach only {256 + len(merges)} '
      'tokens: give more text or lower vocab_size'
    )
  tokens = [bytes([i]) for i in range(256)]
  for left, right in merges:
    tokens.append(bytes(alphabet[c] for c in left + right))
  write(tokens, path)


def extend(
  base_path: str | os.PathLike,
  texts: Iterable[str],
  n_extra: int,
  path: str | os.PathLike,
  keep: Iterable[str] = (),
) -> None:
  """Adds tokens for other languages to a vocabulary (3.2: 100K + 28K).

  Training continues from the base: each word is a sequence of base tokens, and pairs
  of these are merged. The base ranks stay, and every new rank is higher, so a
  word is first encoded as before and changes only if it contains a new token.

  Args:
    base_path: vocabulary file to extend.
    texts: text of the new languages.
    n_extra: number of ranks to add.
    path: file to write.
    keep: text of the languages that must not change; a token that would occur
      in it is not added.

  Raises:
    UserError: bad base file, or too little text.
  """
  ranks = parse(read(base_path), base_path)
  encoding = plain(ranks)
  names = {rank: token for token, rank in ranks.items()}
  counts = _words(texts)
  # A base token is written as one character, which the trainer treats as a letter.
  # From U+10000 on there is room for all of them, and no surrogate.
  rows = [
    (''.join(chr(0x10000 + i) for i in encoding.encode_ordinary(word)), n)
    for word, n in counts.items()
  ]
  letters = [chr(0x10000 + i) for i in range(len(ranks))]

  def spell(row: str) -> bytes:
    return b''.join(names[ord(letter) - 0x10000] for letter in row)

  kept = list(_words(keep))
  count = n_extra
  while True:
    repeated = (row for row, n in rows for _ in range(n))
    merges = _merges(repeated, None, letters, count)
    pairs = [(spell(left), spell(right)) for left, right in merges]
    added = _admit(ranks, pairs, kept)
    if len(added) >= n_extra or len(merges) < count:
      break
    count *= 2  # `keep` ruled out some of them
  if len(added) < n_extra:
    raise UserError(
      f'vocab_size asks for {n_extra} more tokens, but the texts teach only '
      f'{len(added)}: give more text or lower vocab_size'
    )
  write(sorted(ranks, key=ranks.__getitem__) + added[:n_extra], path)


def write(tokens: Sequence[bytes], path: str | os.PathLike) -> None:
  """Writes tokens in the order of their ranks, atomically."""
  try:
    with files.renamed(path) as partial, open(partial, 'wb') as file:
      file.write(dump({token: rank for rank, token in enumerate(tokens)}))
  except OSError as error:
    raise UserError(f'tokenizer file {os.fspath(path)}: {error.strerror}')


def dump(ranks: Mapping[bytes, int]) -> bytes:
  """The content of Meta's vocabulary file, in the order of the ranks."""
  ordered = sorted(ranks.items(), key=lambda item: item[1])
  return b''.join(base64.b64encode(token) + b' %d\n' % rank for token, rank in ordered)


def byte_characters() -> dict[str, int]:
  """The printable character by which `tokenizers` writes each byte, in byte order."""
  printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
  others = iter(range(0x100, 0x200))
  return {chr(b if b in printable else next(others)): b for b in range(256)}


def _splitter() -> tokenizers.pre_tokenizers.PreTokenizer:
  return tokenizers.pre_tokenizers.Split(tokenizers.Regex(PATTERN), 'isolated')


def _words(texts: Iterable[str]) -> collections.Counter:
  """Counts of the pieces into which texts are split; no token spans two."""
  splitter = _splitter()
  counts = collections.Counter()
  for text in texts:
    counts.update(word for word, _ in splitter.pre_tokenize_str(text))
  return counts


def _merges(
  texts: Iterable[str],
  pre_tokenizer: tokenizers.pre_tokenizers.PreTokenizer | None,
  alphabet: Sequence[str],
  n: int,
) -> list[tuple[str, str]]:
  """The first n merges that the texts teach, fewer if no pair occurs twice."""
  model = tokenizers.Tokenizer(tokenizers.models.BPE())
  if pre_tokenizer is not None:
    model.pre_tokenizer = pre_tokenizer
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=len(alphabet) + n,
    min_frequency=2,
    initial_alphabet=list(alphabet),
    special_tokens=[],
    show_progress=False,
  )
  model.train_from_iterator(texts, trainer)
  merges = json.loads(model.to_str())['model']['merges']
  return [(left, right) for left, right in merges[:n]]


def _admit(
  ranks: Mapping[bytes, int], pairs: Sequence[tuple[bytes, bytes]], kept: list[str]
) -> list[bytes]:
  """New tokens, in order, with which every word of `kept` is encoded as before."""
  banned = set()
  while True:
    known = set(ranks)
    added = []
    for left, right in pairs:
      token = left + right
      if (
        token not in known and token not in banned and left in known and right in known
      ):
        known.add(token)
        added.append(token)
    new = {token: len(ranks) + i for i, token in enumerate(added)}
    encoding = plain({**ranks, **new})
    used = {i for word in kept for i in encoding.encode_ordinary(word)}
    used = {i for i in used if i >= len(ranks)}
    if not used:
      return added
    # Without these, shorter ones may be used in their place: check again.
    banned |= {added[i - len(ranks)] for i in used}


def plain(ranks: Mapping[bytes, int]) -> tiktoken.Encoding:
  """The tiktoken encoding of base ranks, without special tokens."""
  return tiktoken.Encoding(
    'base', pat_str=PATTERN, mergeable_ranks=dict(ranks), special_tokens={}
  )


def read(path: str | os.PathLike) -> bytes:
  """The content of a vocabulary file; UserError if it cannot be read."""
  try:
    with open(path, 'rb') as file:
      return file.read()
  except OSError as error:
    raise UserError(
      f'tokenizer file {os.fspath(path)}: {error.strerror}; give the path of a '
      'tokenizer.model, or train one with configs/tokenizer.py'
    ) from error


def parse(content: bytes, path: str | os.PathLike) -> dict[bytes, int]:
  """{token: rank} of the content of a vocabulary file; a UserError names the line."""
  name = os.fspath(path)
  ranks = {}
  lines = content.split(b'\n')
  for number, line in enumerate(lines[:-1] if not lines[-1] else lines, 1):
    try:
      encoded, rank = line.split()
      token, rank = base64.b64decode(encoded, validate=True), int(rank)
    except (ValueError, binascii.Error) as error:
      raise UserError(
        f'tokenizer file {name}, line {number}: {line[:40]!r} is not "base64 rank";'
        " is this Meta's tokenizer.model, whole?"
      ) from error
    if rank != len(ranks) or token in ranks or not token:
      raise UserError(
        f'tokenizer file {name}, line {number}: '
        + (
          f'token {token!r} appears twice or is empty'
          if rank == len(ranks)
          else f'rank {rank} where {len(ranks)} is due'
        )
        + '; the file is corrupt, fetch it again'
      )
    ranks[token] = rank
  missing = [i for i in range(256) if bytes([i]) not in ranks]
  if missing:
    raise UserError(
      f'tokenizer file {name}, {len(ranks)} lines: no token for byte {missing[0]}'
      '; the file is cut short or not a byte-level vocabulary'
    )
  return ranks
