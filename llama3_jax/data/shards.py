"""Token shards: tokenised documents in ArrayRecord files, read at random (3.1)."""

import dataclasses
import json
import os
import pathlib
import tokenize
from collections.abc import Mapping

import grain
import numpy as np

from llama3_jax.base.errors import UserError


@dataclasses.dataclass(frozen=True)
class Instruction:
  """Describes one shard to ArrayRecordDataSource, so that opening reads no file."""

  filename: str
  skip: int
  take: int
  examples_in_shard: int


class Source:
  """Random access to one split of a folder of shards.

  source[i] is np.uint32 [n]: bos + document + eos; len(source) is the number of
  documents. source.lengths is np.uint32 [documents], known without reading them;
  source.vocabulary is the fingerprint of the tokenizer; source.limit is the number of
  rows of the embedding of the model that reads it, None if not known.
  """

  def __init__(
    self,
    folder: str | os.PathLike,
    index: Mapping[str, object],
    split: str,
    limit: int | None = None,
  ) -> None:
    self.folder = pathlib.Path(folder)
    self.name = self.folder.name
    self.index = index
    self.split = split
    self.lengths = _lengths(self.folder, index, split)
    self.tokens = int(self.lengths.sum(dtype=np.int64))
    self.fingerprint = index['splits'][split]['fingerprint']
    self.vocabulary, self.limit = index['vocabulary'], limit
    shards = index['splits'][split]['shards']
    self._files = [str(self.folder / shard['file']) for shard in shards]
    self._ends = np.cumsum([shard['documents'] for shard in shards])
    instructions = [
      Instruction(file, 0, shard['documents'], shard['documents'])
      for file, shard in zip(self._files, shards)
    ]
    self._records = (
      grain.sources.ArrayRecordDataSource(instructions) if instructions else []
    )

  def __len__(self):
    return len(self.lengths)

  def __getitem__(self, i):
    try:
      record = self._records[i]
    except (RuntimeError, EOFError, OSError) as error:
      raise self._corrupt(i, str(error).split(',')[0].split('(')[0].strip()) from error
    if len(record) != 4 * int(self.lengths[i]):
      raise self._corrupt(
        i, f'{len(record)} bytes, {self.split}-lengths.npy says {self.lengths[i]} ids'
      )
    ids = np.frombuffer(record, np.uint32)
    if self.limit is not None and ids.max(initial=0) >= self.limit:
      raise UserError(
        f'{self.folder}: document {i} holds id {ids.max()}, the model has '
        f'{self.limit} rows: give --config.model.vocab_size as the tokenizer of these '
        'shards has it'
      )
    return ids

  def _corrupt(self, i, reason):
    file = self._files[int(np.searchsorted(self._ends, i, side='right'))]
    return UserError(
      f'{file}: record {i} cannot be read ({reason}); the shard is corrupt or was cut '
      'under this run, write the folder again'
    )


def open_source(
  folder: str | os.PathLike,
  fingerprint: str | None = None,
  split: str = 'train',
  limit: int | None = None,
) -> Source:
  """Opens one split of a folder that data/tokenise.py wrote.

  Args:
    folder: path.
    fingerprint: the tokenizer's; None skips the check.
    split: 'train' or 'heldout'.
    limit: rows of the model's embedding, which may be more than there are tokens (a
      padded vocabulary).

  Raises:
    UserError: no index, another vocabulary than the tokenizer's, more ids than rows of
      the model, or a missing, truncated or foreign shard.
  """
  folder = pathlib.Path(folder)
  path = folder / 'index.json'
  index = _index_of(path, split)
  if fingerprint is not None and index['vocabulary'] != fingerprint:
    raise UserError(
      f'{path}: written with vocabulary {index["vocabulary"][:12]}, the tokenizer is '
      f'{fingerprint[:12]}; tokenise again or give the other tokenizer'
    )
  ids = index.get('vocab_size')
  if limit is not None and ids is not None and ids > limit:
    raise UserError(
      f'data.root: {folder} was written with {ids} ids, the model has {limit} rows '
      f'(model.vocab_size): give --config.model.vocab_size={ids}, or tokenise again'
    )
  for shard in index['splits'][split]['shards']:
    file = folder / shard['file']
    size = file.stat().st_size if file.exists() else None
    if size != shard['bytes']:
      fault = 'is missing' if size is None else f'has {size} bytes'
      raise UserError(
        f'{file}: {fault}, index.json says {shard["bytes"]}; write the folder again'
      )
  return Source(folder, index, split, limit)


def _index_of(path, split):
  """The index in `path`; the types of its fields and its file names are checked."""
  try:
    index = json.loads(path.read_text('utf-8'))
  except FileNotFoundError:
    raise UserError(
      f'{path}: not found; write the token shards first (--config=shards), or train on '
      'your own text (--config=own --text=FOLDER)'
    ) from None
  except (ValueError, RecursionError, OSError):
    index = None
  try:
    entry = index['splits'][split]
    shards = entry['shards']
    numbers = [entry['documents'], entry['tokens']]
    for shard in shards:
      numbers += [shard['documents'], shard['tokens'], shard['bytes']]
      if pathlib.PurePath(shard['file']).name != shard['file']:
        raise UserError(f'{path}: file {shard["file"]!r} is not inside the folder')
    ids = index.get('vocab_size')
    numbers += [] if ids is None else [ids]
    right = all(type(n) is int and n >= 0 for n in numbers)
    right &= all(type(t) is str for t in (index['vocabulary'], entry['fingerprint']))
    right &= sum(s['documents'] for s in shards) == entry['documents']
  except (KeyError, TypeError, IndexError, AttributeError, ValueError):
    right = False
  if not right:
    raise UserError(f'{path}: not an index of token shards; write them again')
  return index


def members(folder: str | os.PathLike) -> dict[str, int]:
  """Sources of a category: {'category/name': tokens}; {} if the folder is a source.

  Args:
    folder: of a category, whose sub-folders are sources.
  """
  folder = pathlib.Path(folder)
  if (folder / 'index.json').exists() or not folder.is_dir():
    return {}
  tokens = {}
  for path in sorted(folder.glob('*/index.json')):
    source = open_source(path.parent)
    tokens[f'{folder.name}/{path.parent.name}'] = source.tokens
  return tokens


def _lengths(folder, index, split):
  """np.uint32 [documents], memory-mapped."""
  path = folder / f'{split}-lengths.npy'
  entry = index['splits'][split]
  if not entry['documents']:
    return np.zeros(0, np.uint32)
  try:
    lengths = np.load(path, mmap_mode='r')
  except (OSError, ValueError, EOFError, SyntaxError, tokenize.TokenError):
    raise UserError(f'{path}: missing or truncated; write the folder again') from None
  if lengths.dtype != np.uint32 or lengths.ndim != 1:
    raise UserError(f'{path}: not a list of lengths; write the folder again')
  if len(lengths) != entry['documents']:
    raise UserError(
      f'{path}: {len(lengths)} lengths, index.json says {entry["documents"]} '
      'documents; write the folder again'
    )
  if lengths.sum(dtype=np.int64) != entry['tokens'] or lengths.min() < 2:
    raise UserError(
      f'{path}: the lengths do not add up to the {entry["tokens"]} tokens of '
      'index.json; write the folder again'
    )
  return lengths
