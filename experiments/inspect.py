"""What a training step sees: its rows, decoded, with segment borders and masks (3.4.1).

  python -m experiment --config=configs/inspect.py:tiny --workdir=runs/inspect \\
    --config.data.root=runs/herd/shards --config.step=400

The mix, seed, lanes and ramp are those of configs/pretrain.py; give the run's own
overrides, or its folder: --config.run=runs/herd/pretrain. Prints every row as segments:
source, document, tokens from and to, supervised tokens, and the text, borders shown;
writes the same to rows.jsonl, and the shares drawn until then to results.json.
"""

import pathlib
import sys

import ml_collections
import numpy as np

from llama3_jax import config as configs
from llama3_jax import workdir as workdirs
from llama3_jax.base import files
from llama3_jax.base import jsonl
from llama3_jax.base import processes
from llama3_jax.base.errors import UserError
from llama3_jax.data.config import DataConfig
from llama3_jax.text import store
from llama3_jax.train import belongs
from llama3_jax.train import schedule
from llama3_jax.train import sources


def main(config, workdir):
  """Show the rows of step `config.step`; returns {step, tokens, shares, rows}."""
  folder = workdirs.claim(config, workdir)
  config = adopt(config)
  if config.step < 1:
    raise UserError(f'step={config.step}: steps count from 1')
  mixed = configs.fill(DataConfig(), config.data, 'data')
  used = sources.of_split(mixed, 'train')
  if config.tokenizer:
    tokenizer = store.load(config.tokenizer)
    belongs.compare(tokenizer, used, 'tokenizer')
  else:
    tokenizer = belongs.of_shards(used)
  if tokenizer is None:
    raise UserError('tokenizer is empty and the shards carry none: give its path')
  data = sources.rows(mixed, used, config.seed)
  phases = schedule.ramp(config.train)
  for _ in range(config.step - 1):
    phase = schedule.phase(phases, data.tokens)
    data.plan(phase.batch, phase.length)
  phase = schedule.phase(phases, data.tokens)
  plan = data.plan(phase.batch, phase.length)
  batch = data.read(plan)
  rows = [describe(batch, plan.pieces, i, tokenizer) for i in range(phase.batch)]
  drawn, total = data.drawn, sum(data.drawn.values())
  results = {
    'step': config.step,
    'batch': phase.batch,
    'length': phase.length,
    'tokens': data.tokens,
    'shares': {name: round(n / total, 4) for name, n in sorted(drawn.items())},
  }
  jsonl.write(folder / 'rows.jsonl', rows)
  processes.write_json(folder / 'results.json', results)
  sys.stdout.write(text(results, rows[: config.rows], config.characters))
  return results


def adopt(config):
  """The config with the fields of the run `config.run`, if one is named."""
  if not config.run:
    return config
  flat = files.read_json(pathlib.Path(config.run, 'config.json'))['config']
  root, changes = pathlib.Path(config.run), {}
  for path, value in flat.items():
    if path.split('.')[0] in ('data', 'seed', 'train') or path == 'model.vocab_size':
      changes[path] = value
  if 'data.root' not in changes:
    raise UserError(f'run={config.run}: its config.json is not of pre-training')
  # Paths beside the run's folder are kept relative to it.
  place = changes['data.root']
  changes['data.root'] = str(root / place) if place.startswith('..') else place
  mix = {k[9:]: changes.pop(k) for k in list(changes) if k.startswith('data.mix.')}
  return configs.edit(config, changes | {'data.mix': ml_collections.ConfigDict(mix)})


def describe(batch, plan, row, tokenizer):
  """One row as a dict: its segments, in order.

  Args:
    batch: of Rows.read.
    plan: the pieces of its Plan: (source, record, offset, count), row after row.
  """
  length = batch.tokens.shape[1]
  ends = np.cumsum([count for *_, count in plan])
  segments = []
  for (source, record, offset, count), end in zip(plan, ends.tolist()):
    first = end - count - row * length
    if first < 0 or first >= length:
      continue
    cut = slice(first, first + count)
    segments.append(
      {
        'source': source,
        'document': record,
        'from': offset,
        'tokens': count,
        'segment': int(batch.segment[row, first]),
        'position': int(batch.position[row, first]),
        'supervised': int((batch.weight[row, cut] > 0).sum()),
        'text': tokenizer.decode(batch.tokens[row, cut].tolist()),
      }
    )
  return {'row': row, 'segments': segments}


def text(results, rows, characters):
  """The rows for a terminal."""
  shares = ', '.join(f'{name} {share:.1%}' for name, share in results['shares'].items())
  lines = [
    f'step {results["step"]}: {results["batch"]} rows of {results["length"]} tokens; '
    f'{results["tokens"]:,} tokens given by its end',
    f'shares drawn so far: {shares}',
  ]
  for row in rows:
    lines.append(f'row {row["row"]}')
    for s in row['segments']:
      end = s['from'] + s['tokens']
      lines.append(
        f'  segment {s["segment"]} | {s["source"]} document {s["document"]}, tokens '
        f'{s["from"]}-{end} | position {s["position"]} | {s["supervised"]} of '
        f'{s["tokens"]} supervised'
      )
      shown = s['text']
      if len(shown) > characters:
        half = characters // 2
        shown = f'{shown[:half]} [...] {shown[-half:]}'
      lines.append('    ' + shown.replace('\n', '\n    '))
  return '\n'.join(lines) + '\n'
