"""URLs: their normal form, and pages that are unwanted because of them (3.1.1).

Block lists are files of one host (or URL) a line, any number of millions: they are kept
as sorted 64-bit hashes (8 bytes a line), cached and mapped from disk.
"""

import dataclasses
import functools
import gzip
import os
import pathlib
import re
import tarfile
import urllib.parse
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import xxhash

from llama3_jax.base import files
from llama3_jax.base.errors import UserError
from llama3_jax.curate.machine import documents

UNRESERVED = re.compile(r'%[0-9a-fA-F]{2}')
TRACKING = ('utm_', 'fbclid', 'gclid', 'sessionid')
PORTS = {'http': ':80', 'https': ':443'}
WORD = re.compile(r'[^a-z0-9]+')
LINES = 1_000_000  # hashed at a time


@dataclasses.dataclass(frozen=True)
class Config:
  """What is blocked, in the order of the checks.

  Fields:
    hosts: hosts; their subdomains are blocked too.
    host_lists: files of hosts, one a line, may be .gz; of a .tar.gz its `domains`.
    url_lists: files of URLs, one a line (of a .tar.gz the files `urls`).
    hard_words: one of them as a word of the URL is enough.
    soft_words: two different ones are enough.
    substrings: anywhere in the URL.
    cache: folder of the hashed lists; '' is LLAMA3_CACHE, or ~/.cache/llama3_jax.
  """

  hosts: tuple[str, ...] = ()
  host_lists: tuple[str, ...] = ()
  url_lists: tuple[str, ...] = ()
  hard_words: tuple[str, ...] = ()
  soft_words: tuple[str, ...] = ()
  substrings: tuple[str, ...] = ()
  cache: str = ''


def normalise(url: str) -> str:
  """The form under which two URLs are the same page.

  Scheme and fragment are removed (http and https, and anchors, are one page; a fragment
  `!...` names a page of its own), the host is lower case, tracking parameters are
  removed, the others are sorted, and letters, digits and -._~ are unescaped (RFC 3986,
  6.2.2).
  """
  try:
    parts = urllib.parse.urlsplit(url.strip())
  except ValueError:
    return url
  name = parts.netloc.lower().removesuffix(PORTS.get(parts.scheme.lower(), ':'))
  query = sorted(
    pair
    for pair in UNRESERVED.sub(_plain, parts.query).split('&')
    if pair and not pair.lower().startswith(TRACKING)
  )
  path = UNRESERVED.sub(_plain, parts.path).rstrip('/')
  page = f'#{parts.fragment}' if parts.fragment.startswith('!') else ''
  return f'{name}{path}{"?" if query else ""}{"&".join(query)}{page}'


def _plain(escape):
  """A character that need not be escaped, or its escape in capitals."""
  sign = chr(int(escape[0][1:], 16))
  plain = sign.isascii() and (sign.isalnum() or sign in '-._~')
  return sign if plain else escape[0].upper()


def of_row(name: str, number: int) -> str:
  """A URL for a row of a file that has none: the file's path and the row's number."""
  for sign in '%?#:':  # which would cut the path when it is normalised
    name = name.replace(sign, urllib.parse.quote(sign))
  return f'{name}/{number}'


def host(url: str | None) -> str:
  """The host name, lower case; '' when there is none or the URL is broken."""
  try:
    return (urllib.parse.urlsplit(url or '').hostname or '').rstrip('.')
  except ValueError:
    return ''


def step(
  batch: pa.RecordBatch,
  config: Config = Config(),
  state: Mapping[str, np.ndarray] | None = None,
) -> pa.RecordBatch:
  """Drops pages whose host, URL or words in the URL are blocked."""
  rows = documents.alive(batch)
  addresses = [url or '' for url in documents.take(batch, 'url', rows)]
  bad_host = _blocked_hosts(addresses, config)
  bad_url = _listed(
    [normalise(url).lower() for url in addresses], config.url_lists, config, 'urls'
  )
  drops = {}
  for row, url, by_host, by_url in zip(rows, addresses, bad_host, bad_url):
    if by_host:
      drops[row] = ('urls.host', None)
    elif by_url:
      drops[row] = ('urls.url', None)
    elif reason := _words(url.lower(), config):
      drops[row] = reason
  return documents.drop(batch, drops)


def _blocked_hosts(addresses, config):
  """bool [URLs]: the host, or a domain that it belongs to, is blocked."""
  named = {name.lower() for name in config.hosts}
  names, owner = [], []
  for i, url in enumerate(addresses):
    labels = host(url).split('.')
    for k in range(len(labels)):
      names.append('.'.join(labels[k:]))
      owner.append(i)
  bad = _listed(names, config.host_lists, config, 'domains')
  bad |= np.array([name in named for name in names], bool)
  result = np.zeros(len(addresses), bool)
  result[np.array(owner, int)[bad]] = True
  return result


def _listed(keys, paths, config, member):
  """bool [keys]: whether one of the lists contains it."""
  result = np.zeros(len(keys), bool)
  hashes = hash_keys(keys) if paths and keys else None
  for path in paths:
    listed = load_list(path, config.cache, member)
    if len(listed) and keys:
      index = np.minimum(np.searchsorted(listed, hashes), len(listed) - 1)
      result |= listed[index] == hashes
  return result


def _words(url, config):
  """(reason, how many) for a URL (lower case) with blocked words; else None."""
  if config.hard_words or config.soft_words:
    words = set(WORD.split(url))
    hard = words.intersection(config.hard_words)
    if hard:
      return 'urls.hard_word', float(len(hard))
    soft = words.intersection(config.soft_words)
    if len(soft) >= 2:
      return 'urls.soft_words', float(len(soft))
  if any(part in url for part in config.substrings):
    return 'urls.substring', None
  return None


def hash_keys(keys: Sequence[str]) -> np.ndarray:
  """np.uint64 [keys]: xxh3 hashes."""
  digest = xxhash.xxh3_64_intdigest
  return np.array([digest(key.encode('utf-8', 'replace')) for key in keys], np.uint64)


@functools.cache
def load_list(
  path: str | os.PathLike, cache: str = '', member: str = 'domains'
) -> np.ndarray:
  """Sorted hashes (np.uint64, mapped) of a block list.

  Args:
    path: the list, see Config.
    cache: folder of the .npy file that is made the first time.
    member: name of the files inside a .tar.gz; 'urls' are normalised.

  Raises:
    UserError: the list does not exist or cannot be read.
  """
  path = pathlib.Path(path)
  try:
    stat = path.stat()
  except OSError:
    field = 'url_lists' if member == 'urls' else 'host_lists'
    raise UserError(f'{path}: no such block list; correct curate.urls.{field}')
  folder = pathlib.Path(cache or files.cache_folder())
  name = f'{path.resolve()} {stat.st_size} {stat.st_mtime_ns} {member}'
  file = folder / f'{path.name}.{xxhash.xxh3_64_hexdigest(name.encode())}.npy'
  if not file.exists():
    folder.mkdir(parents=True, exist_ok=True)
    with files.renamed(file) as partial, open(partial, 'wb') as f:
      np.save(f, _hash_file(path, member))
      f.flush()
  return np.load(file, mmap_mode='r')


def _hash_file(path, member):
  parts, chunk = [], []
  for line in _lines(path, member):
    key = line.decode('utf-8', 'replace').strip().lower()
    if key and not key.startswith('#'):
      if member == 'urls':
        chunk.append(normalise(key if '//' in key else f'//{key}'))
      else:
        chunk.append(host(key) if '//' in key else key)
    if len(chunk) == LINES:
      parts.append(hash_keys(chunk))
      chunk = []
  parts.append(hash_keys(chunk))
  return np.unique(np.concatenate(parts))


def _lines(path, member):
  """Lines (bytes) of a list, or of each list in an archive."""
  try:
    if path.name.endswith(('.tar.gz', '.tgz')):
      with tarfile.open(path) as archive:
        for entry in archive:
          if entry.isfile() and pathlib.PurePath(entry.name).name == member:
            yield from archive.extractfile(entry)
    else:
      with gzip.open(path) if path.name.endswith('.gz') else open(path, 'rb') as f:
        yield from f
  except (OSError, EOFError, tarfile.TarError) as error:
    reason = str(error).splitlines()[0].rstrip(':')
    raise UserError(f'{path}: block list cannot be read: {reason}') from None
