"""Small whole files of every kind that a user brings, and the reader of each.

A reader returns what can be compared: equal values are equal readings.
"""

import gzip
import json
import shutil
from typing import NamedTuple

import jax
import numpy as np
import post_examples as toy
import pyarrow as pa
import pyarrow.parquet as pq
import toy_files as goldens
import zstandard

from experiments import tokenizer as tokenizer_stage
from llama3_jax import workdir as workdirs
from llama3_jax.base import files
from llama3_jax.base import jsonl as base
from llama3_jax.curate.judging import classify
from llama3_jax.curate.reading import read as documents
from llama3_jax.curate.reading import warc
from llama3_jax.curate.rules import exclude
from llama3_jax.data import assets
from llama3_jax.data import shards
from llama3_jax.data import tokenise
from llama3_jax.model import convert
from llama3_jax.post import preference
from llama3_jax.post import sft
from llama3_jax.reliable import goodput
from llama3_jax.text import tokenizer as tokenizers
from llama3_jax.train import final
from llama3_jax.train import metrics
from llama3_jax.train import models

SFT = {
  'messages': [
    {'role': 'system', 'content': 'Be short.'},
    {'role': 'user', 'content': 'weather?', 'context': 'CTX'},
    {
      'role': 'assistant',
      'content': '',
      'end': 'eom',
      'calls': [{'name': 'get', 'arguments': {'city': 'x'}}],
    },
    {'role': 'ipython', 'content': '42'},
    {'role': 'assistant', 'content': 'It is 42.'},
  ],
  'source': 'made',
}
PAIR = {'prompt': SFT['messages'][:2], 'responses': ['a', 'b'], 'margin': 0.5}
TEXTS = [{'text': f'document {i} ' * 8, 'lang': 'en'} for i in range(40)]
TRIPLE = {
  'question': 'q',
  'context': 'c',
  'edited': 'e',
  'chosen': 'x',
  'rejected': 'y',
}
PROBLEM = {'question': '1 + 1?', 'answer': '<<1+1=2>>2 #### 2'}
TASK = {'text': 'Add.', 'code': 'a + b', 'task_id': 601, 'test_list': ['assert 1']}
LABELS = [{'text_hash': f'{i:x}', 'label': 'ab'[i % 2]} for i in range(4)]


class Documents(NamedTuple):
  rows: list
  problems: list


def jsonl(rows):
  return ''.join(json.dumps(r) + '\n' for r in rows).encode()


def leaves(tree):
  """A tree of arrays as bytes."""
  found = jax.tree_util.tree_leaves_with_path(tree)
  return [(str(path), np.asarray(x).tobytes()) for path, x in found]


def everything(folder):
  """{name: (files to damage, read())}; every file is whole at first."""
  vocabulary = toy.tokenizer(folder)
  return (
    _rows(folder)
    | _documents(folder)
    | _shards(folder, vocabulary)
    | _weights(folder, vocabulary)
    | _side(folder)
  )


def _rows(folder):
  """Rows of post-training, data sets, labels, texts for a vocabulary."""
  (folder / 'sft.jsonl').write_bytes(jsonl([SFT] * 3))
  (folder / 'pairs.jsonl').write_bytes(jsonl([PAIR] * 3))
  (folder / 'texts.jsonl.gz').write_bytes(gzip.compress(jsonl(TEXTS)))
  (folder / 'labels.jsonl').write_bytes(jsonl(LABELS))
  sets = {assets.TRIPLES: TRIPLE, assets.GSM8K: PROBLEM, assets.MBPP: TASK}
  for name, row in sets.items():
    (folder / name).parent.mkdir()
    (folder / name).write_bytes(jsonl([row] * 3))

  def data_sets():
    return (
      assets.preferences(folder, 9),
      assets.maths_dialogs(folder, 2),
      list(assets.maths_documents(folder)),
      list(assets.code_documents(folder)),
    )

  def texts():
    path = folder / 'texts.jsonl.gz'
    found = list(base.documents(path, 'documents'))
    return found, list(tokenizer_stage.documents([str(path)]))

  def labels():
    classify._labels.cache_clear()
    exclude.load.cache_clear()
    config = exclude.Config((str(folder / 'texts.jsonl.gz'),), ('text',))
    return classify._labels(str(folder / 'labels.jsonl')), exclude.load(config).names

  return {
    'SFT rows': (['sft.jsonl'], lambda: sft.read(folder / 'sft.jsonl')),
    'preference rows': (
      ['pairs.jsonl'],
      lambda: preference.read(folder / 'pairs.jsonl'),
    ),
    'data sets': (list(sets), data_sets),
    'texts of shards and vocabulary': (['texts.jsonl.gz'], texts),
    'labels and excluded items': (['labels.jsonl', 'texts.jsonl.gz'], labels),
    'vocabulary': (
      ['bytes.model'],
      lambda: tokenizers.Tokenizer.load(folder / 'bytes.model').fingerprint,
    ),
  }


def _documents(folder):
  """Documents as curation reads them, and the problems it names."""
  (folder / 'd.jsonl').write_bytes(jsonl(TEXTS))
  (folder / 'd.jsonl.gz').write_bytes(gzip.compress(jsonl(TEXTS)))
  # With a checksum, as the zstd program writes it; without one a flip may stay unseen.
  frame = zstandard.ZstdCompressor(write_checksum=True).compress(jsonl(TEXTS))
  (folder / 'd.jsonl.zst').write_bytes(frame)
  pq.write_table(pa.Table.from_pylist(TEXTS), folder / 'd.parquet')
  page = {'date': '', 'html': '<p>x' * 9}
  pages = [page | {'url': f'http://a.example/{i}'} for i in 'ab']
  warc.write(folder / 'd.warc.gz', pages)

  def read(name):
    found = list(documents.batches(folder / name, 'general', 's'))
    named = [problem for _, problems in found for problem in problems]
    return Documents([b.to_pylist() for b, _ in found if b.num_rows], named)

  return {
    f'documents {kind}': ([name], lambda name=name: read(name))
    for kind, name in (
      ('JSONL', 'd.jsonl'),
      ('gz', 'd.jsonl.gz'),
      ('zst', 'd.jsonl.zst'),
      ('Parquet', 'd.parquet'),
      ('WARC', 'd.warc.gz'),
    )
  }


def _shards(folder, vocabulary):
  tokenise.write(TEXTS, vocabulary, folder / 'web', heldout=0.2)

  def read():
    found = [shards.open_source(folder / 'web', split=s) for s in tokenise.SPLITS]
    return [x[i].tolist() for x in found for i in range(len(x))]

  names = ('index.json', 'train-lengths.npy', 'train-00000-00000.array_record')
  return {'token shards': ([f'web/{name}' for name in names], read)}


def _weights(folder, vocabulary):
  """Weights in every format that is read, and a run's own final/."""
  final.save(folder / 'run/final', toy.model(), toy.CONFIG, vocabulary)
  weights = convert.from_params(*models.load(folder / 'run'))
  convert.write(weights, str(folder / 'hf'), 'hf', None, 1, 1 << 30)
  convert.write(weights, str(folder / 'parts'), 'hf', None, 1, 40_000)
  convert.write(weights, str(folder / 'meta'), 'meta', None, 1, 1 << 30)
  goldens.write_gguf(folder / 'm.gguf', goldens.tensors())
  goldens.write_npz(folder / 'npz', goldens.tensors())

  def load(name):
    weights = convert.open_checkpoint(str(folder / name))
    return leaves(convert.load(weights)), weights.config

  kept = sorted((folder / 'run/final').rglob('*'))
  kept = [str(p.relative_to(folder)) for p in kept if p.is_file()]

  def run():
    params, config = models.load(folder / 'run')
    vocabulary = models.tokenizer(folder / 'run')
    identity = models.identity(folder / 'run')
    return leaves(params), config, vocabulary.read_bytes(), identity

  index = 'model.safetensors.index.json'
  return {
    'safetensors': (['hf/config.json', 'hf/model.safetensors'], lambda: load('hf')),
    'safetensors in parts': ([f'parts/{index}'], lambda: load('parts')),
    "Meta's files": (
      ['meta/params.json', 'meta/consolidated.00.pth'],
      lambda: load('meta'),
    ),
    'GGUF': (['m.gguf'], lambda: load('m.gguf')),
    'npz': (['npz/w.npz'], lambda: load('npz/w.npz')),
    'a final/': (kept, run),
  }


def _side(folder):
  """Files beside the checkpoints of a workdir."""
  side = folder / 'side'
  side.mkdir()
  goodput.Clock(side).write()
  (side / 'metrics.jsonl').write_bytes(jsonl([{'step': 1, 'loss': 2.0}] * 3))
  (side / 'config.json').write_text('{"config": {"a": 1}, "versions": {}}')
  shutil.copy(side / 'config.json', side / 'results.json')

  def read():
    return (
      metrics.read(side),
      goodput.report(side),
      files.read_json(side / 'config.json'),
      workdirs.finished(side),
    )

  names = ('goodput.json', 'metrics.jsonl', 'config.json', 'results.json')
  return {'side files': ([f'side/{name}' for name in names], read)}
