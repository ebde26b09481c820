"""Generated documents through all of curation to token shards.

Usage: python bench/crawl_to_shards.py [DOCUMENTS] [FILES] [FOLDER]  (5000000 50)

Documents of 52 to 70 words of English, of which 5 in 100 are exact copies of others,
are written as Parquet files and given to the three commands of a user: `curate` (all
stages that need no model, keys bounded by curate.memory_bytes), `tokenizer`, `shards`.
Printed for each: seconds, and the highest memory of one of its processes and of all
together. Exits 1 when a process passes BAR_MB, a copy is kept, or a document is lost.
"""

import itertools
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import threading
import time

import pyarrow as pa
import pyarrow.parquet as pq

ROOT = pathlib.Path(__file__).parents[1]
KEY_MEMORY = 256 << 20
BAR_MB = 768
COPIES = 5  # of a hundred
CHUNK = 10_000
WORDS = (
  'the of and to in is that it was for on are as with his they be at one have this '
  'from or had by but some what there we can out other were all your when up use '
  'word how said each she which do their time will way about many then them would '
  'write like so these her long make thing see him two has look more day could go '
  'come did my sound no most number who over know water than call first people may '
  'down side been now find any new work part take get place made live where after '
  'back little only round man year came show every good me give our under name very '
  'through just form much great think say help low line before turn cause same mean '
  'differ move right boy old too does tell sentence set three want air well also '
  'play small end put home read hand port large spell add even land here must big '
  'high such follow act why ask men change went light kind off need house picture '
  'try us again animal point mother world near build self earth father head stand '
  'own page should country found answer school grow study still learn plant cover '
  'food sun four thought let keep eye never last door between city tree cross since '
  'hard start might story saw far sea draw left late run '
).split()
COMMON = [*itertools.accumulate(1 / (rank + 5) for rank in range(len(WORDS)))]


def text(number):
  """Sentences of document `number`; the same number gives the same text."""
  rng = random.Random(number)
  sentences, left = [], rng.randint(52, 70)
  while left > 0:
    size = min(rng.randint(7, 14), max(left, 4))
    words = rng.choices(WORDS, cum_weights=COMMON, k=size)
    sentences.append(f'{words[0].capitalize()} {" ".join(words[1:])}.')
    left -= size
  lines = [' '.join(sentences[i : i + 3]) for i in range(0, len(sentences), 3)]
  return '\n'.join(lines)


def write(folder, count, files):
  """`count` documents in Parquet files; copies are of the hundred before."""
  source = lambda i: i - 50 if i % 100 < COPIES and i >= 100 else i
  row = lambda i: {'text': text(source(i)), 'url': f'https://s{i % 977}.example/{i}'}
  for file in range(files):
    first, last = file * count // files, (file + 1) * count // files
    schema = pa.schema({'text': pa.string(), 'url': pa.string()})
    with pq.ParquetWriter(folder / f'{file:05d}.parquet', schema) as out:
      for start in range(first, last, CHUNK):
        rows = [row(i) for i in range(start, min(start + CHUNK, last))]
        out.write_table(pa.Table.from_pylist(rows, schema))


class Memory(threading.Thread):
  """The highest resident memory of a process's tree: of one process, and of all."""

  def __init__(self, pid):
    super().__init__(daemon=True)
    self.pid, self.one, self.all = pid, 0, 0

  def run(self):
    while os.path.exists(f'/proc/{self.pid}'):
      sizes = [_resident(pid) for pid in _tree(self.pid)]
      self.one, self.all = max(self.one, *sizes, 0), max(self.all, sum(sizes))
      time.sleep(0.2)


def _tree(pid):
  """Process `pid` and all below it."""
  try:
    children = pathlib.Path(f'/proc/{pid}/task/{pid}/children').read_text().split()
  except OSError:
    return []
  return [pid, *(p for child in children for p in _tree(int(child)))]


def _resident(pid):
  """Bytes of memory that belong to the process: mapped files are the system's."""
  try:
    text = pathlib.Path(f'/proc/{pid}/status').read_text()
  except OSError:
    return 0
  fields = dict(line.split(':', 1) for line in text.splitlines() if ':' in line)
  return sum(
    1024 * int(fields.get(n, '0 kB').split()[0]) for n in ('RssAnon', 'RssShmem')
  )


def launch(folder, config, **fields):
  """Runs a command of a user; returns (results, row of the table)."""
  changes = [f'--config.{k.replace("__", ".")}={v}' for k, v in fields.items()]
  name = config.split(':')[0].removesuffix('.py')
  workdir = folder / name
  began = time.monotonic()
  process = subprocess.Popen(
    [sys.executable, '-m', 'experiment', f'--config={config}', f'--workdir={workdir}']
    + changes,
    cwd=ROOT,
  )
  memory = Memory(process.pid)
  memory.start()
  if process.wait():
    sys.exit(f'{name} ended with status {process.returncode}')
  seconds = time.monotonic() - began
  results = json.loads((workdir / 'results.json').read_text())
  print(
    f'{name}: {seconds:,.0f} s, one process {memory.one / 2**20:,.0f} MB, '
    f'all {memory.all / 2**20:,.0f} MB',
    flush=True,
  )
  return results, memory.one / 2**20


def main():
  count, files = ([int(x) for x in sys.argv[1:3]] + [0, 0])[:2]
  count, files = count or 5_000_000, files or 50
  with tempfile.TemporaryDirectory(dir=sys.argv[3] if sys.argv[3:] else None) as made:
    folder = pathlib.Path(made)
    (folder / 'crawl').mkdir()
    write(folder / 'crawl', count, files)
    size = sum(p.stat().st_size for p in (folder / 'crawl').iterdir())
    print(f'{count:,} documents, {size / 1e9:.2f} GB in {files} files', flush=True)
    curated, *peaks = launch(
      folder,
      'curate:files',
      inputs=f'{folder}/crawl/*.parquet',
      curate__memory_bytes=KEY_MEMORY,
    )
    tokenizer, peak = launch(
      folder,
      'tokenizer',
      inputs=f'{folder}/curate/documents',
      max_characters=20_000_000,
      vocab_size=1024,
    )
    peaks.append(peak)
    none = dict(task_pages=0, drills=0, needle__short_pages=0, needle__long_pages=0)
    written, peak = launch(
      folder,
      'shards',
      documents=f'{folder}/curate/documents',
      tokenizer=f'{folder}/tokenizer/tokenizer.model',
      **none,
    )
    return report(count, curated, written, [*peaks, peak])


def report(count, curated, written, peaks):
  """Prints what came through; returns whether a bar was missed."""
  kept = sum(entry['documents'] for entry in curated['categories'].values())
  left = sum(entry['documents'] for entry in written.values())
  planted = COPIES * (count // 100 - 1)
  print(f'kept {kept:,} of {count:,} (planted copies {planted:,}), in shards {left:,}')
  print(f'highest memory of a process {max(peaks):,.0f} MB (bar {BAR_MB:,})')
  return max(peaks) > BAR_MB or left != kept or kept > count - planted


if __name__ == '__main__':
  sys.exit(main())
