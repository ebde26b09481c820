"""Every reader of what a user brings, fed with thousands of damaged files."""

import gzip
import json
import pathlib
import random
import signal

import numpy as np
import post_examples as toy
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from llama3_jax import config as configs
from llama3_jax import override
from llama3_jax import tokenizer as tokenizers
from llama3_jax.base import fields
from llama3_jax.base.errors import UserError
from llama3_jax.curate import read as documents
from llama3_jax.curate import warc
from llama3_jax.data import shards
from llama3_jax.model import convert
from llama3_jax.post import preference
from llama3_jax.post import sft
from llama3_jax.train import checkpoint
from llama3_jax.train import goodput
from llama3_jax.train import metrics

MOST_S = 60
WORDS = (b'null', b'-1', b'1e999', b'[]', b'{}', b'"x"', b'true', b'[' * 100_000)
WORDS += (b'\xff', b'\xef\xbb\xbf', b'\x00', b'NaN', b'"ab"', b'0.5', b'\r')
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


def damage(data, rng):
  """`data` (bytes) with one or two faults of any kind."""
  for _ in range(rng.choice((1, 1, 2))):
    at = rng.randrange(len(data) + 1)
    size = rng.choice((1, 4, 16))
    kind = rng.randrange(6)
    if kind == 0:
      data = data[:at]
    elif kind == 1 and data:
      at = rng.randrange(len(data))
      data = data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
    elif kind == 2:
      data = data[:at] + rng.choice(WORDS) + data[at + size :]
    elif kind == 3:
      data = data[:at] + rng.choice(WORDS) + data[at:]
    elif kind == 4:
      data = data[:at] + data[at + size :]
    else:
      data = data[:at] + rng.randbytes(size) + data[at + size :]
  return data


def jsonl(rows):
  return ''.join(json.dumps(r) + '\n' for r in rows).encode()


def readers(folder):
  """{name: (files to damage, read())}; every file is whole at first."""
  (folder / 'sft.jsonl').write_bytes(jsonl([SFT] * 3))
  (folder / 'pairs.jsonl').write_bytes(jsonl([PAIR] * 3))
  vocabulary = toy.tokenizer(folder)
  texts = [{'text': f'document {i} ' * 8} for i in range(40)]
  shards.write(texts, vocabulary, folder / 'web', heldout=0.2)
  (folder / 'd.jsonl').write_bytes(jsonl(texts))
  (folder / 'd.jsonl.gz').write_bytes(gzip.compress(jsonl(texts)))
  # With a checksum, as the zstd program writes it; without one a flip may stay unseen.
  frame = zstandard.ZstdCompressor(write_checksum=True).compress(jsonl(texts))
  (folder / 'd.jsonl.zst').write_bytes(frame)
  pq.write_table(pa.Table.from_pylist(texts), folder / 'd.parquet')
  pages = [
    {'url': f'http://a.example/{i}', 'date': '', 'html': '<p>x' * 9} for i in 'ab'
  ]
  warc.write(folder / 'd.warc.gz', pages)
  checkpoint.save_params(folder / 'run/final', toy.model(), toy.CONFIG, vocabulary)
  weights = convert.from_params(*checkpoint.load(folder / 'run'))
  convert.write(weights, str(folder / 'hf'), 'hf', None, 1, 1 << 30)
  convert.write(weights, str(folder / 'meta'), 'meta', None, 1, 1 << 30)
  side = folder / 'side'
  side.mkdir()
  clock = goodput.Clock(side)
  clock.write()
  (side / 'metrics.jsonl').write_bytes(jsonl([{'step': 1, 'loss': 2.0}] * 3))
  (side / 'config.json').write_text('{"config": {"a": 1}, "versions": {}}')

  def all_of(name):
    found = list(documents.batches(folder / name, 'general', 's'))
    rows = sum(b.num_rows for b, _ in found)
    named = sum(len(problems) for _, problems in found)
    wanted = 2 if 'warc' in name else 40
    # Of plain lines a cut between two, or within a text, leaves nothing to see.
    if rows < wanted and not named and name != 'd.jsonl':
      raise LookupError(f'{rows} of {wanted} documents and no word of it')

  def source():
    for split in shards.SPLITS:
      found = shards.open_source(folder / 'web', split=split)
      [found[i] for i in range(len(found))]

  def beside():
    metrics.read(side)
    goodput.report(side)
    configs.read_json(side / 'config.json')

  load = lambda name: convert.load(convert.open_checkpoint(str(folder / name)))
  return {
    'SFT rows': (['sft.jsonl'], lambda: sft.read(folder / 'sft.jsonl')),
    'preference rows': (
      ['pairs.jsonl'],
      lambda: preference.read(folder / 'pairs.jsonl'),
    ),
    'vocabulary': (
      ['bytes.model'],
      lambda: tokenizers.Tokenizer.load(folder / 'bytes.model'),
    ),
    'documents JSONL': (['d.jsonl'], lambda: all_of('d.jsonl')),
    'documents gz': (['d.jsonl.gz'], lambda: all_of('d.jsonl.gz')),
    'documents zst': (['d.jsonl.zst'], lambda: all_of('d.jsonl.zst')),
    'documents Parquet': (['d.parquet'], lambda: all_of('d.parquet')),
    'documents WARC': (['d.warc.gz'], lambda: all_of('d.warc.gz')),
    'token shards': (
      ['web/index.json', 'web/train-lengths.npy', 'web/train-00000.array_record'],
      source,
    ),
    'safetensors': (['hf/config.json', 'hf/model.safetensors'], lambda: load('hf')),
    "Meta's files": (
      ['meta/params.json', 'meta/consolidated.00.pth'],
      lambda: load('meta'),
    ),
    'side files': (
      ['side/goodput.json', 'side/metrics.jsonl', 'side/config.json'],
      beside,
    ),
  }


COUNTS = {'SFT rows': 1500, 'preference rows': 1500, 'side files': 1000}
EACH = 700


@pytest.fixture(autouse=True)
def limit():
  def late(*_):
    raise TimeoutError(f'a reader took more than {MOST_S} s')

  before = signal.signal(signal.SIGALRM, late)
  yield
  signal.alarm(0)
  signal.signal(signal.SIGALRM, before)


def test_damaged_files_are_one_line_or_harmless(tmp_path, record):
  rng, lines, bad = random.Random(0), [], []
  total = 0
  for name, (files, read) in readers(tmp_path).items():
    whole = {f: (tmp_path / f).read_bytes() for f in files}
    tally = dict(refused=0, read=0)
    for i in range(COUNTS.get(name, EACH)):
      file = files[i % len(files)]
      data = damage(whole[file], rng)
      (tmp_path / file).write_bytes(data)
      signal.alarm(MOST_S)
      try:
        read()
        tally['read'] += 1
      except UserError as error:
        tally['refused'] += 1
        assert '\n' not in str(error), (name, str(error))
      except Exception as error:
        bad.append(
          (name, file, i, f'{type(error).__name__}: {error}'[:200], data[:200])
        )
      finally:
        signal.alarm(0)
        (tmp_path / file).write_bytes(whole[file])
    total += COUNTS.get(name, EACH)
    lines.append(f'{name} {tally["refused"]} refused, {tally["read"]} read')
  record(
    f'{total:,} damaged files to every reader: tracebacks, and hangs above {MOST_S} s',
    f'{len(bad)}; {"; ".join(lines)}',
    '0',
  )
  assert not bad, bad[:10]


VALUES = ('-1', '0', '1', '2', '0.5', '-0.5', 'nan', 'inf', '-inf', '1e308', '-1e308')
VALUES += ('2147483648', '1e18', '-5', 'true', 'abc', '', '1/0', '1e999999999', '()')
VALUES += ("('a',)", '(1, 2', '((1,),)', '[[1, 2, 3]]')


def test_values_of_every_field_are_values_or_one_line(record):
  import importlib

  root = pathlib.Path(__file__).parents[2] / 'configs'
  tried, refused, bad = 0, 0, []
  for path in sorted(root.glob('[a-z]*.py')):
    config = importlib.import_module(f'configs.{path.stem}').get_config()
    for field in configs.flatten(config):
      for text in VALUES:
        tried += 1
        signal.alarm(MOST_S)
        changed = config.copy_and_resolve_references()
        try:
          override.apply(changed, {field: text})
          found = configs.flatten(changed)[field]
          fields.check({field: found})
          if isinstance(found, float) and not np.isfinite(found):
            bad += [(field, text)] if 'heuristics' not in field else []
        except UserError:
          refused += 1
        except Exception as error:
          bad.append((field, text, type(error).__name__))
        finally:
          signal.alarm(0)
  record(
    f'{tried:,} values of every field of every config (24 a field)',
    f'{refused:,} refused in one line, {len(bad)} tracebacks or nonsense',
    '0',
  )
  assert not bad, bad[:10]
