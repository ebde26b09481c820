"""datatrove's filters and MinHash: CPU-seconds of each on documents (JSONL: text).

Run by bench/heuristics.py and bench/minhash.py with datatrove's own interpreter; prints
one line of JSON.
"""

import json
import sys
import time

from datatrove.data import Document


def filters():
  """Function text -> anything, by name."""
  from datatrove.pipeline.filters import C4QualityFilter
  from datatrove.pipeline.filters import FineWebQualityFilter
  from datatrove.pipeline.filters import GopherQualityFilter
  from datatrove.pipeline.filters import GopherRepetitionFilter

  found = {
    'Gopher repetition': GopherRepetitionFilter(),
    'Gopher quality': GopherQualityFilter(),
    # As FineWeb uses it: a line without a full stop may stay.
    'C4 quality': C4QualityFilter(filter_no_terminal_punct=False),
    'FineWeb quality': FineWebQualityFilter(),
  }
  return {name: lambda text, f=f: f.filter(document(text)) for name, f in found.items()}


def minhash():
  from datatrove.pipeline.dedup.minhash import MinhashConfig
  from datatrove.pipeline.dedup.minhash import MinhashDedupSignature

  config = MinhashConfig(n_grams=5, num_buckets=14, hashes_per_bucket=8)
  step = MinhashDedupSignature(output_folder='/tmp', config=config)
  return {'MinHash': lambda text: step.get_signature(step.get_shingles(text))}


def document(text):
  return Document(text=text, id='0')


def main():
  path, kind = sys.argv[1:3]
  with open(path, encoding='utf-8') as f:
    texts = [json.loads(line)['text'] for line in f]
  result = {}
  for name, function in (filters if kind == 'filters' else minhash)().items():
    function(texts[0])  # loads the word splitter
    began = time.process_time()
    kept = sum(function(text) is True for text in texts)
    seconds = time.process_time() - began
    result[name] = {'seconds': seconds, 'documents': len(texts), 'kept': kept}
  print(json.dumps(result))


if __name__ == '__main__':
  main()
