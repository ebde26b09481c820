"""Documents to token shards: part by part, in several processes (3.1)."""

import collections
import dataclasses
import errno
import functools
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
from absl import logging
from array_record.python import array_record_module

from llama3_jax.base import files
from llama3_jax.base.errors import UserError
from llama3_jax.data import shuffle
from llama3_jax.data import texts
from llama3_jax.text import store
from llama3_jax.text.library import Library
from llama3_jax.text.tokenizer import Tokenizer

# One record a group, so that a random read decompresses one document; zstd saves 63%.
WRITER_OPTIONS = 'group_size:1,zstd:3'
SPLITS = ('train', 'heldout')
BATCH_CHARACTERS = 1 << 20  # of text in memory at a time


@dataclasses.dataclass(frozen=True)
class Options:
  """How documents become shards.

  Attributes:
    heldout: share of documents kept for evaluation, in [0, 1).
    shard_tokens: tokens after which a new file begins (2^27 is 0.5 GB of uint32).
    seed: changes which documents are held out, and the order of the shuffle.
    cells: above 0, documents are shuffled over the whole part through that many files
      (see shuffle.py), so that a reader may read from front to back.
    part_bytes: bytes of the files of documents that one task of write_files reads, at
      least one file; a stopped run begins its unfinished parts again.
  """

  heldout: float = 0.01
  shard_tokens: int = 1 << 27
  seed: int = 0
  cells: int = 0
  part_bytes: int = 1 << 28


@dataclasses.dataclass(frozen=True)
class Part:
  """A task: files of documents, to be written into `folder` as part `number`."""

  folder: str
  number: int
  paths: tuple[str, ...]
  tokenizer: str
  field: str
  options: Options


def write(
  documents: Iterable[Mapping[str, object]],
  tokenizer: Tokenizer,
  folder: str | os.PathLike,
  *,
  vocabulary: str | os.PathLike | None = None,
  **options: float,
) -> dict[str, object]:
  """Tokenises documents and writes shards and index.json (atomic: all or nothing).

  The hash of its text decides whether a document is held out, so the same text is
  always in the same split, whatever its order, url or source.

  Args:
    documents: iterable of dicts with 'text' and, optionally, 'lang' and 'source'.
    tokenizer: has encode_batch(texts), bos, eos, fingerprint.
    folder: path; an earlier folder of the same name is replaced at the end.
    vocabulary: path of the tokenizer's file, which is copied into the folder.
    options: fields of Options.

  Returns:
    The index: documents, tokens, heldout counts, per language and per source counts,
    vocabulary fingerprint, seed, and the files of each split.
  """
  options, partial = Options(**options), _partial(folder)
  shutil.rmtree(partial, ignore_errors=True)
  try:
    partial.mkdir(parents=True)
    _fill(documents, tokenizer, partial, 0, options)
    return _finish(folder, 1, tokenizer, vocabulary, options)
  except OSError as error:
    raise UserError(f'{folder}: shards cannot be written: {error.strerror}') from error
  finally:
    shutil.rmtree(partial, ignore_errors=True)


def write_files(
  paths: Sequence[str | os.PathLike],
  vocabulary: str | os.PathLike,
  folder: str | os.PathLike,
  each: Callable[[Callable[[Part], int], list[Part]], Iterator[tuple[Part, int]]],
  field: str = 'documents',
  **options: float,
) -> dict[str, object]:
  """As `write`, of the documents in files, by tasks that run in parallel.

  A part is a sequence of files of options.part_bytes together, read BATCH_CHARACTERS at
  a time, so memory does not grow with the corpus. The same call again writes only the
  parts that are missing.

  Args:
    paths: files of documents (data/texts.py), in order.
    vocabulary: path of the tokenizer's file.
    folder: path; an earlier folder of the same name is replaced at the end.
    each: each(work, jobs) -> iterator of (job, result), as curation's engine gives.
    field: of the config, that names the files; for errors.
    options: fields of Options.

  Returns:
    The index, as `write`.
  """
  options, partial = Options(**options), _partial(folder)
  tokenizer = store.load(vocabulary)
  plan = [[str(path) for path in group] for group in _groups(paths, options.part_bytes)]
  facts = [[p, os.path.getsize(p), os.stat(p).st_mtime_ns] for g in plan for p in g]
  about = {'parts': plan, 'files': facts, 'vocabulary': tokenizer.fingerprint}
  about |= dataclasses.asdict(options)
  try:
    if not _same(partial / 'plan.json', about):
      shutil.rmtree(partial, ignore_errors=True)
      files.write_json(partial / 'plan.json', about)
    jobs = [
      Part(str(partial), i, tuple(group), str(vocabulary), field, options)
      for i, group in enumerate(plan)
    ]
    for job, count in each(work, [j for j in jobs if not _facts(partial, j.number)]):
      logging.info('%s: part %d, %d documents', folder, job.number, count)
    (partial / 'plan.json').unlink()
    return _finish(folder, len(plan), tokenizer, vocabulary, options)
  except OSError as error:
    raise UserError(f'{folder}: shards cannot be written: {error.strerror}') from error


def work(part: Part) -> int:
  """Writes one Part; returns its number of documents."""
  documents = (row for path in part.paths for row in texts.read(path, part.field))
  tokenizer, folder = _tokenizer(part.tokenizer), pathlib.Path(part.folder)
  return _fill(documents, tokenizer, folder, part.number, part.options)


@functools.lru_cache(maxsize=1)
def _tokenizer(path):
  return store.load(path)


def _partial(folder):
  folder = pathlib.Path(folder)
  return folder.with_name(f'{folder.name}.partial')


def _same(path, about):
  try:
    return json.loads(path.read_text(encoding='utf-8')) == about
  except (OSError, ValueError):
    return False


def _groups(paths, most):
  """Groups of consecutive files of `most` bytes together, at least one file each."""
  groups, size = [[]], 0
  for path in paths:
    size += os.path.getsize(path)
    groups[-1].append(path)
    if size >= most:
      groups.append([])
      size = 0
  return [group for group in groups if group] or [[]]


def _facts(folder, number):
  """Facts of a part that is written, or None; its .json is written last."""
  path = folder / f'{number:05d}.json'
  return files.read_json(path) if path.exists() else None


def _fill(documents, tokenizer, folder, number, options):
  """Writes one part, ArrayRecord files, lengths and facts; returns its documents."""
  writers = {s: _Writer(folder, s, number, options.shard_tokens) for s in SPLITS}
  counts = {kind: collections.defaultdict(_count) for kind in ('languages', 'sources')}
  pairs = _split(documents, tokenizer, options, counts)
  if options.cells:
    cells = folder / f'cells-{number:05d}'
    with shuffle.cells(cells, options.cells, options.seed) as shuffled:
      for split, ids in shuffled(pairs):
        writers[split].add(ids)
  else:
    for split, ids in pairs:
      writers[split].add(ids)
  splits = {split: writer.close() for split, writer in writers.items()}
  files.write_json(folder / f'{number:05d}.json', {**counts, 'splits': splits})
  return sum(entry['documents'] for entry in splits.values())


def _finish(folder, parts, tokenizer, vocabulary, options):
  """Joins the parts into a folder of shards; returns the index."""
  folder, partial = pathlib.Path(folder), _partial(folder)
  facts = [_facts(partial, i) for i in range(parts)]
  if vocabulary is not None:
    store.write(store.load(vocabulary), partial)
  splits = {split: _join(partial, split, facts) for split in SPLITS}
  index = {
    'version': 1,
    'vocabulary': tokenizer.fingerprint,
    'seed': options.seed,
    'heldout': options.heldout,
    'vocab_size': getattr(tokenizer, 'vocab_size', None),
    'cells': options.cells,
    'documents': sum(entry['documents'] for entry in splits.values()),
    'tokens': sum(entry['tokens'] for entry in splits.values()),
    **{kind: _sum(f[kind] for f in facts) for kind in ('languages', 'sources')},
    'splits': splits,
  }
  with open(partial / 'index.json', 'w', encoding='utf-8') as f:
    json.dump(index, f, indent=1, ensure_ascii=False)
  for path in partial.glob('[0-9]*.json'):
    path.unlink()
  shutil.rmtree(folder, ignore_errors=True)
  os.replace(partial, folder)
  logging.info(
    '%s: %d documents, %d tokens', folder, index['documents'], index['tokens']
  )
  return index


def _join(folder, split, facts):
  """The entry of a split: the parts' files one after the other, and all lengths."""
  entries = [f['splits'][split] for f in facts]
  with files.renamed(folder / f'{split}-lengths.npy') as partial:
    with open(partial, 'wb') as out:
      count = sum(entry['documents'] for entry in entries)
      form = dict(descr='<u4', fortran_order=False, shape=(count,))
      np.lib.format.write_array_header_1_0(out, form)
      for number in range(len(facts)):
        path = folder / f'{split}-{number:05d}-lengths'
        with open(path, 'rb') as f:
          shutil.copyfileobj(f, out)
        path.unlink()
  marks = [entry['fingerprint'] for entry in entries]
  joined = hashlib.sha256(' '.join(marks).encode()).hexdigest()[:16]
  return {
    'documents': count,
    'tokens': sum(entry['tokens'] for entry in entries),
    'fingerprint': marks[0] if len(marks) == 1 else joined,
    'shards': [shard for entry in entries for shard in entry['shards']],
  }


def _sum(counts):
  """Counts of the parts by name, added."""
  total = {}
  for count in counts:
    for name, entry in count.items():
      into = total.setdefault(name, _count())
      for key, value in entry.items():
        into[key] += value
  return dict(sorted(total.items()))


def _count():
  return {'documents': 0, 'tokens': 0}


def _split(documents, tokenizer, options, counts):
  """Yields (split, np.uint32 [n]) of every document, and adds it to `counts`."""
  written = (document for document in documents if document['text'].strip())
  for document, inside in encoded(written, tokenizer):
    whole = [i for i in (tokenizer.bos, *inside, tokenizer.eos) if i is not None]
    ids = np.array(whole, np.uint32)
    for kind, field in (('languages', 'lang'), ('sources', 'source')):
      count = counts[kind][document.get(field) or 'unknown']
      count['documents'] += 1
      count['tokens'] += len(ids)
    held = _is_heldout(document['text'], options.heldout, options.seed)
    yield SPLITS[held], ids


def encoded(
  documents: Iterable[dict], tokenizer: Tokenizer | Library
) -> Iterator[tuple[dict, list[int]]]:
  """Yields (document, ids of its text alone) in order; some are encoded at once."""
  batch, characters = [], 0
  for document in documents:
    batch.append(document)
    characters += len(document['text'])
    if characters >= BATCH_CHARACTERS:
      yield from _encode(batch, tokenizer)
      batch, characters = [], 0
  yield from _encode(batch, tokenizer)


def _encode(batch, tokenizer):
  return zip(batch, tokenizer.encode_batch([document['text'] for document in batch]))


def _is_heldout(text, fraction, seed):
  digest = hashlib.blake2b(
    text.encode('utf-8', 'replace'), digest_size=8, salt=str(seed).encode()[:16]
  )
  return int.from_bytes(digest.digest(), 'little') < fraction * 2**64


class _Writer:
  """Appends token arrays to the numbered ArrayRecord files of one part and split."""

  def __init__(self, folder, split, number, shard_tokens):
    self.folder, self.shard_tokens = folder, shard_tokens
    self.name = f'{split}-{number:05d}'
    self.shards, self.documents, self.tokens = [], 0, 0
    self._lengths = open(folder / f'{self.name}-lengths', 'wb')
    self._digest = hashlib.sha256()
    self._file = None
    self._room = 0

  def add(self, ids):
    if self._room <= 0:
      self._finish_shard()
      name = f'{self.name}-{len(self.shards):05d}.array_record'
      self._file = array_record_module.ArrayRecordWriter(
        str(self.folder / name), WRITER_OPTIONS
      )
      self.shards.append({'file': name, 'documents': 0, 'tokens': 0})
      self._room = self.shard_tokens
    record = ids.tobytes()
    self._call(self._file.write, record)
    self._digest.update(record)
    self._lengths.write(np.uint32(len(ids)).tobytes())
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
    """Closes the last file; returns the part's entry of the split."""
    self._finish_shard()
    self._lengths.close()
    return {
      'documents': self.documents,
      'tokens': self.tokens,
      'fingerprint': self._digest.hexdigest()[:16],
      'shards': self.shards,
    }
