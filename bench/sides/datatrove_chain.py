"""datatrove's chain over the WARC file argv[1] into the folder argv[2], one worker.

Prints the documents read and written as a line of JSON.
"""

import json
import pathlib
import sys

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline import dedup
from datatrove.pipeline import extractors
from datatrove.pipeline import filters
from datatrove.pipeline import readers
from datatrove.pipeline import writers
from datatrove.pipeline.dedup.minhash import MinhashConfig

pages, folder = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
config = MinhashConfig(n_grams=5, num_buckets=14, hashes_per_bucket=8)


def run(name, *steps, tasks=1):
  logs = str(folder / 'logs' / name)
  return LocalPipelineExecutor(
    [*steps], tasks=tasks, workers=1, logging_dir=logs, start_method='fork'
  ).run()


def texts():
  return readers.JsonlReader(str(folder / 'text'))


def count(name):
  import gzip

  paths = (folder / name).glob('*.jsonl.gz')
  return sum(gzip.open(path, 'rt').read().count('\n') for path in paths)


def main():
  reader = readers.WarcReader(str(pages.parent), glob_pattern=pages.name)
  run(
    'filter',
    reader,
    extractors.Trafilatura(favour_precision=True, timeout=10),
    filters.GopherRepetitionFilter(),
    filters.GopherQualityFilter(),
    filters.C4QualityFilter(filter_no_terminal_punct=False),
    filters.FineWebQualityFilter(),
    writers.JsonlWriter(str(folder / 'text')),
  )
  at = {name: str(folder / name) for name in ('sig', 'buckets', 'ids')}
  run('1', texts(), dedup.MinhashDedupSignature(at['sig'], config))
  run('2', dedup.MinhashDedupBuckets(at['sig'], at['buckets'], config=config), tasks=14)
  run('3', dedup.MinhashDedupCluster(at['buckets'], at['ids'], config=config))
  out = writers.JsonlWriter(str(folder / 'out'))
  run('4', texts(), dedup.MinhashDedupFilter(at['ids']), out)
  read = json.loads((folder / 'logs/filter/stats.json').read_text())[0]
  total = read['stats']['documents']['total'] if 'stats' in read else 0
  print(json.dumps({'read': total, 'written': count('out')}))


if __name__ == '__main__':
  main()
