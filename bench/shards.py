"""Token shards: python bench/shards.py TOKENIZER.model DOCUMENTS.jsonl.gz [M TOKENS].

Tokens a CPU-second of tokenising alone and of the whole writing (tokenise, count, hash,
compress, write), with and without the two-stage shuffle; and the seconds in which a set
of 500M tokens is opened and gives its first batch.
"""

import gzip
import json
import pathlib
import resource
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import numpy as np

from llama3_jax.data import pipeline
from llama3_jax.data import shards
from llama3_jax.data import tokenise
from llama3_jax.text import tokenizer as tokenizers

DOCUMENT = 600  # tokens of a generated document


class Cut:
  """A tokenizer whose documents are numbers: slices of one random array."""

  bos, eos, fingerprint = 0, 1, 'cut'
  ids = np.random.default_rng(0).integers(2, 128_000, 1 << 22).astype(np.uint32)

  def encode_batch(self, texts):
    starts = (int(text) * 7919 % (len(self.ids) - DOCUMENT) for text in texts)
    return [self.ids[i : i + DOCUMENT] for i in starts]


def cpu_seconds():
  used = resource.getrusage(resource.RUSAGE_SELF)
  return used.ru_utime + used.ru_stime


def measured(name, tokens, function):
  start = cpu_seconds()
  count = function()
  rate = (tokens or count) / (cpu_seconds() - start) / 1e6
  print(f'{name}: {rate:.2f} M tokens a CPU-second')


def main():
  tokenizer = tokenizers.Tokenizer.load(sys.argv[1])
  with gzip.open(sys.argv[2], 'rt', encoding='utf-8', newline='\n') as f:
    documents = [json.loads(line) for line in f]
  texts = [d['text'] for d in documents]
  size = sum(len(t.encode()) for t in texts)
  total = sum(len(ids) for ids in tokenizer.encode_batch(texts))
  print(f'{len(texts)} documents, {size / 1e6:.1f} MB, {total / 1e6:.2f} M tokens')
  measured('tokenise', total, lambda: tokenizer.encode_batch(texts))
  with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    made = lambda **o: tokenise.write(documents, tokenizer, folder / 'a', **o)
    write = lambda **o: made(**o)['tokens']
    measured('tokenise and write', 0, write)
    measured('with the shuffle', 0, lambda: write(cells=16))
    millions = int(sys.argv[3]) if len(sys.argv) > 3 else 500
    numbers = ({'text': str(i)} for i in range(millions * 1_000_000 // DOCUMENT))
    tokenise.write(numbers, Cut(), folder / 'b', heldout=0.0)
    start = time.monotonic()
    source = shards.open_source(folder / 'b')
    opened = time.monotonic() - start
    pipeline.Rows({'b': source}, [(0, {'b': 1.0})], 0).batch(8, 8192)
    first = time.monotonic() - start
    files = len(source.index['splits']['train']['shards'])
    print(
      f'{source.tokens / 1e6:.0f} M tokens in {len(source)} documents and {files} '
      f'files: open in {opened:.3f} s, first batch after {first:.3f} s'
    )


if __name__ == '__main__':
  main()
