"""The whole curation chain beside datatrove's, on the same pages.

  python bench/chain.py PAGES.warc.gz --datatrove=/opt/datatrove/bin/python
  python bench/chain.py FOLDER --datatrove=...   (FOLDER/html/*.html.gz, made a WARC)

Ours: configs/curate.py:files with its defaults (block lists, extraction, language, PII,
URL, document and line de-duplication, repeated and C4 lines, all heuristics, the
divergence, output), in one process. Theirs: trafilatura extraction, Gopher repetition,
Gopher quality, C4 and FineWeb filters, MinHash signatures, buckets, clusters and
filter, one task, one worker, no language filter (its model is downloaded). CPU-seconds
of whole processes, less those of the same command on the first 30 pages: start.
"""

import argparse
import gzip
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from fastwarc.warc import ArchiveIterator
from fastwarc.warc import WarcRecordType

from llama3_jax.curate.reading import warc

ROOT = pathlib.Path(__file__).parents[1]
FEW = 30  # pages of the run that is subtracted
SIDES = pathlib.Path(__file__).parent / 'sides'


def cpu_seconds(command):
  """CPU-seconds of a command and what it said."""
  before = resource.getrusage(resource.RUSAGE_CHILDREN)
  threads = {n: '1' for n in ('OMP_NUM_THREADS', 'RAYON_NUM_THREADS')}
  done = subprocess.run(
    command, cwd=ROOT, env={**os.environ, **threads}, capture_output=True, text=True
  )
  if done.returncode:
    raise SystemExit(f'{command[0]} failed:\n{done.stderr[-2000:]}')
  after = resource.getrusage(resource.RUSAGE_CHILDREN)
  spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
  return spent, done.stdout


def ours(pages, folder):
  command = [sys.executable, '-m', 'experiment', '--config=configs/curate.py:files']
  command += [f"--config.inputs=('{pages}',)", '--config.workers=1']
  spent, _ = cpu_seconds([*command, f'--workdir={folder}'])
  steps = json.loads((folder / 'funnel.json').read_text('utf-8'))['steps']
  return spent, steps[0]['documents'], steps[-1]['documents']


def theirs(python, pages, folder):
  script = str(SIDES / 'datatrove_chain.py')
  spent, text = cpu_seconds([python, script, str(pages), str(folder)])
  found = json.loads(text.strip().split('\n')[-1])
  return spent, found['read'], found['written']


def first_pages(pages, folder, count=FEW):
  """A WARC file of the first pages alone."""
  path = folder / 'few.warc'
  with open(pages, 'rb') as f, open(path, 'wb') as out:
    kinds = WarcRecordType.response
    for record, _ in zip(ArchiveIterator(f, record_types=kinds), range(count)):
      record.write(out, checksum_data=False)
  return path


def as_warc(folder, path):
  """Writes the pages of a folder as a WARC file."""
  pages = [
    {
      'url': f'https://pages.example/{file.name.split(".")[0]}',
      'date': '2024-01-01',
      'html': gzip.decompress(file.read_bytes()).decode('utf-8', 'replace'),
    }
    for file in sorted(folder.glob('html/*.html.gz'))
  ]
  warc.write(path, pages)
  return path


def main():
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('pages', type=pathlib.Path)
  parser.add_argument('--datatrove', default='')
  flags = parser.parse_args()
  pages = flags.pages.resolve()
  sides = {'ours': ours}
  if flags.datatrove:
    sides['datatrove'] = lambda p, f: theirs(flags.datatrove, p, f)
  rates = {}
  with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    if pages.is_dir():
      pages = as_warc(pages, folder / 'pages.warc.gz')
    few = first_pages(pages, folder)
    for name, side in sides.items():
      side(few, folder / f'{name}-warm')  # caches of compiled code
      start, first, _ = side(few, folder / f'{name}-few')
      spent, read, written = side(pages, folder / name)
      rates[name] = (read - first) / (spent - start)
      print(
        f'{name}: {read} pages, {written} left, {spent:.1f} CPU-seconds of which '
        f'{start:.1f} for the first {first}: {rates[name]:.1f} pages a CPU-second'
      )
  if len(rates) == 2:
    print(f'ours / datatrove: {rates["ours"] / rates["datatrove"]:.1f}')


if __name__ == '__main__':
  main()
