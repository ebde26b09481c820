"""Token shards: tokenised documents in ArrayRecord files, with an index (3.1)."""

import collections
import dataclasses
import errno
import hashlib
import json
import os
import pathlib
import shutil
import tokenize

import grain
import numpy as np
from absl import logging
from array_record.python import array_record_module

from llama3_jax.base.errors import UserError
from llama3_jax.data import shuffle

# One record a group, so that a random read decompresses one document; zstd saves 63%.
WRITER_OPTIONS = 'group_size:1,zstd:3'
SPLITS = ('train', 'heldout')
VOCABULARY = 'tokenizer.model'  # beside index.json
BATCH_CHARACTERS = 1 << 20


@dataclasses.dataclass(frozen=True)
class Instruction:
  """Names one shard to ArrayRecordDataSource, so that opening reads no file."""

  filename: str
  skip: int
  take: int
  examples_in_shard: int


class Source:
  """Random access to one split of a folder of shards.

  source[i] -> np.uint32 [n], bos + document + eos; len(source) documents;
  source.lengths: np.uint32 [documents], known without reading the documents;
  source.vocabulary: fingerprint of the tokenizer; source.limit: rows of the model that
  will read it, None: not known.
  """

  def __init__(self, folder, index, split, limit=None):
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


def write(
  documents,
  tokenizer,
  folder,
  *,
  heldout=0.01,
  shard_tokens=1 << 27,
  seed=0,
  cells=0,
  vocabulary=None,
):
  """Tokenises documents and writes shards and index.json (atomic: all or nothing).

  A document is held out by the hash of its text, so the same text is always on the
  same side, whatever its order, url or source.

  Args:
    documents: iterable of dicts with 'text' and, optionally, 'lang' and 'source'.
    tokenizer: has encode_batch(texts), bos, eos, fingerprint.
    folder: path; an earlier folder of the same name is replaced at the end.
    heldout: fraction of documents kept for evaluation, in [0, 1).
    shard_tokens: tokens after which a new file begins (2^27 is 0.5 GB of uint32).
    seed: changes which documents are held out, and the order of the shuffle.
    cells: above 0, documents are shuffled over the whole input through so many files
      (see shuffle.py), so that a reader may go from front to back.
    vocabulary: path of the tokenizer's file, of which the folder gets a copy.

  Returns:
    The index: documents, tokens, heldout counts, per language and per source counts,
    vocabulary fingerprint, seed, and the files of each split.
  """
  folder = pathlib.Path(folder)
  partial = folder.with_name(f'{folder.name}.partial')
  shutil.rmtree(partial, ignore_errors=True)
  try:
    partial.mkdir(parents=True)
    writers = {split: _Writer(partial, split, shard_tokens) for split in SPLITS}
    counts = {
      kind: collections.defaultdict(_count) for kind in ('languages', 'sources')
    }
    pairs = _split(documents, tokenizer, heldout, seed, counts)
    _fill(writers, pairs, partial / 'cells', cells, seed)
    about = {'vocabulary': tokenizer.fingerprint, 'seed': seed, 'heldout': heldout}
    about['vocab_size'] = getattr(tokenizer, 'vocab_size', None)
    if vocabulary is not None:
      shutil.copyfile(vocabulary, partial / VOCABULARY)
    index = _index(partial, writers, counts, {**about, 'cells': cells})
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)
  except OSError as error:
    raise UserError(f'{folder}: shards cannot be written: {error.strerror}') from error
  finally:
    shutil.rmtree(partial, ignore_errors=True)
  logging.info(
    '%s: %d documents, %d tokens', folder, index['documents'], index['tokens']
  )
  return index


def open_source(folder, fingerprint=None, split='train', limit=None):
  """Opens one split of a folder that write() made.

  Args:
    folder: path.
    fingerprint: the tokenizer's; None skips the check.
    split: 'train' or 'heldout'.
    limit: rows of the model's embedding; more than tokens is a padded vocabulary.

  Raises:
    UserError: no index, another vocabulary than the tokenizer's or than the model has
      rows for, or a missing, truncated or foreign shard.
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
      found = 'is missing' if size is None else f'has {size} bytes'
      raise UserError(
        f'{file}: {found}, index.json says {shard["bytes"]}; write the folder again'
      )
  return Source(folder, index, split, limit)


def _index_of(path, split):
  """The index in `path`, every field of it that is used typed; names stay inside."""
  try:
    index = json.loads(path.read_text('utf-8'))
  except FileNotFoundError:
    raise UserError(f'{path}: not found; write the token shards first') from None
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


def members(folder):
  """Sources of a category: {'category/name': tokens}; {} when the folder is a source.

  Args:
    folder: of a category: its sub-folders are sources.
  """
  folder = pathlib.Path(folder)
  if (folder / 'index.json').exists() or not folder.is_dir():
    return {}
  found = {}
  for path in sorted(folder.glob('*/index.json')):
    source = open_source(path.parent)
    found[f'{folder.name}/{path.parent.name}'] = source.tokens
  return found


def _split(documents, tokenizer, heldout, seed, counts):
  """Yields (split, np.uint32 [n]) of every document; counts what it sees."""
  for document, ids in _tokenise(documents, tokenizer):
    for kind, field in (('languages', 'lang'), ('sources', 'source')):
      count = counts[kind][document.get(field) or 'unknown']
      count['documents'] += 1
      count['tokens'] += len(ids)
    yield SPLITS[_is_heldout(document['text'], heldout, seed)], ids


def _fill(writers, pairs, folder, cells, seed):
  if cells:
    with shuffle.cells(folder, cells, seed) as shuffled:
      return _fill(writers, shuffled(pairs), folder, 0, seed)
  for split, ids in pairs:
    writers[split].add(ids)


def _index(folder, writers, counts, about):
  """Closes the writers and writes index.json; returns it."""
  index = {
    'version': 1,
    **about,
    'documents': sum(w.documents for w in writers.values()),
    'tokens': sum(w.tokens for w in writers.values()),
    **{kind: dict(sorted(count.items())) for kind, count in counts.items()},
    'splits': {split: writer.close() for split, writer in writers.items()},
  }
  with open(folder / 'index.json', 'w', encoding='utf-8') as f:
    json.dump(index, f, indent=1, ensure_ascii=False)
  return index


def _count():
  return {'documents': 0, 'tokens': 0}


def _tokenise(documents, tokenizer):
  """Yields (document, np.uint32 [n]) in order; empty documents are left out."""
  batch, characters = [], 0
  for document in documents:
    if not document['text'].strip():
      continue
    batch.append(document)
    characters += len(document['text'])
    if characters >= BATCH_CHARACTERS:
      yield from _encode(batch, tokenizer)
      batch, characters = [], 0
  yield from _encode(batch, tokenizer)


def _encode(batch, tokenizer):
  encoded = tokenizer.encode_batch([document['text'] for document in batch])
  for document, ids in zip(batch, encoded):
    yield document, np.array([tokenizer.bos, *ids, tokenizer.eos], np.uint32)


def _is_heldout(text, fraction, seed):
  digest = hashlib.blake2b(
    text.encode('utf-8', 'replace'), digest_size=8, salt=str(seed).encode()[:16]
  )
  return int.from_bytes(digest.digest(), 'little') < fraction * 2**64


class _Writer:
  """Appends token arrays to numbered ArrayRecord files of one split."""

  def __init__(self, folder, split, shard_tokens):
    self.folder, self.split, self.shard_tokens = folder, split, shard_tokens
    self.lengths, self.shards = [], []
    self.documents = self.tokens = 0
    self._digest = hashlib.sha256()
    self._file = None
    self._room = 0

  def add(self, ids):
    if self._room <= 0:
      self._finish_shard()
      name = f'{self.split}-{len(self.shards):05d}.array_record'
      self._file = array_record_module.ArrayRecordWriter(
        str(self.folder / name), WRITER_OPTIONS
      )
      self.shards.append({'file': name, 'documents': 0, 'tokens': 0})
      self._room = self.shard_tokens
    record = ids.tobytes()
    self._call(self._file.write, record)
    self._digest.update(record)
    self.lengths.append(len(ids))
    self.documents += 1
    self.tokens += len(ids)
    self.shards[-1]['documents'] += 1
    self.shards[-1]['tokens'] += len(ids)
    self._room -= len(ids)

  def _finish_shard(self):
    if self._file is not None:
      file, self._file = self._file, None
      self._call(file.close)
      shard = self.shards[-1]
      shard['bytes'] = (self.folder / shard['file']).stat().st_size

  def _call(self, write, *arguments):
    """Calls the ArrayRecord writer, which reports a full disk as RuntimeError."""
    try:
      write(*arguments)
    except RuntimeError as error:
      raise OSError(errno.EIO, str(error).split(';')[0]) from error

  def close(self):
    """Closes the last file; returns the split's entry of the index."""
    self._finish_shard()
    np.save(
      self.folder / f'{self.split}-lengths.npy', np.array(self.lengths, np.uint32)
    )
    return {
      'documents': self.documents,
      'tokens': self.tokens,
      'fingerprint': self._digest.hexdigest()[:16],
      'shards': self.shards,
    }


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
