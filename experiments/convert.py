"""Weights from one checkpoint format to another, one tensor in memory at a time (3.2).

  python -m experiment --config=configs/convert.py:meta_to_hf --workdir=runs/convert \\
    --config.source=Meta-Llama-3.1-8B/original --config.target=llama-hf

Reads Meta's .pth files, Hugging Face's safetensors, GGUF and npz; writes the first
three. Expect the time that the disk needs, and little memory. `run` is the format of
this code's own stages (held in memory whole): run_to_hf exports a trained model,
hf_to_run writes what a stage's `init_from` can name.
"""

import os
import pathlib
import time

import jax
from absl import logging

from llama3_jax import config as configs
from llama3_jax import workdir as workdirs
from llama3_jax.base import files
from llama3_jax.base.errors import UserError
from llama3_jax.model import convert
from llama3_jax.text import store
from llama3_jax.train import final
from llama3_jax.train import foreign
from llama3_jax.train import models

SIZES = ('n_layers', 'd_model', 'n_heads', 'n_kv_heads', 'd_head', 'd_ff', 'vocab_size')


def _target(config, results):
  """What a finished conversion has left."""
  return [pathlib.Path(config.target).absolute()] if config.target else []


@workdirs.stage(made=_target)
def main(config, folder):
  """Returns what was written: files, tensors, parameters, bytes, and the sizes."""
  for field in ('source', 'target'):
    if not config[field]:
      raise UserError(f'{field} is empty: give --config.{field}=PATH')
  start = time.time()
  if config.source_format == 'auto' and not _own(config):  # also a name, hf://org/name
    found = foreign.located(config.source, 'source') or config.source
    config = configs.edit(config, {'source': str(found)})
  weights = _open(config)
  tokenizer = _tokenizer(config, weights.config.vocab_size)
  if config.target_format == 'run':
    results = _write_run(weights, config.target, tokenizer)
  else:
    results = convert.write(
      weights,
      config.target,
      config.target_format,
      config.dtype or None,
      config.shards,
      config.shard_bytes,
      tokenizer,
      _length(config),
    )
  seconds = time.time() - start
  model = configs.model_fields(weights.config).to_dict()
  results['model'] = {k: model[k] for k in SIZES}
  logging.info(
    '%s -> %s: %d tensors, %s parameters, %.2f GB in %d files, %.0f s',
    config.source,
    config.target,
    results['tensors'],
    f'{results["parameters"]:,}',
    results['bytes'] / 1e9,
    results['files'],
    seconds,
  )
  return results


def _own(config):
  """Whether the source is a stage of this code."""
  if config.source_format != 'auto':
    return config.source_format == 'run'
  return models.own(config.source) is not None


def _open(config):
  if _own(config):
    return convert.from_params(*models.load(config.source, field='source'))
  return convert.open_checkpoint(
    config.source, config.source_format, config.params_json or None
  )


def _tokenizer(config, rows):
  """The tokenizer of the model: the one that is named, or that lies beside its
  parameters; None where there is none. rows: of the embedding."""
  path, variant = config.tokenizer, '3.1'
  if not path and _own(config):
    path = models.tokenizer(config.source)
    variant = models.identity(config.source)['variant'] or variant
  tokenizer = store.load(path, variant) if path else _beside(config)
  if tokenizer is None:
    logging.warning(
      '%s: no tokenizer there, so what is written has no vocabulary: name one with '
      '--config.tokenizer=',
      config.source,
    )
    return None
  if tokenizer.vocab_size > rows:
    raise UserError(
      f'tokenizer {path} has {tokenizer.vocab_size} tokens, {config.source} has {rows} '
      'rows of the embedding: name its own with --config.tokenizer='
    )
  return tokenizer


def _beside(config):
  """The tokenizer that comes with somebody's parameters, or None."""
  if _own(config):
    return None
  try:
    return foreign.tokenizer_of(config.source)
  except UserError as error:
    logging.warning('its tokenizer is not used: %s', error)
    return None


def _length(config):
  """The length of the rows a stage was trained on, as it recorded it, or 0."""
  if not _own(config):
    return 0
  path = models.folder(config.source).resolve().parent / 'config.json'
  if not path.exists():
    return 0
  recorded = files.read_json(path)
  fields = recorded.get('config') if isinstance(recorded, dict) else None
  length = fields.get('train.length') if isinstance(fields, dict) else None
  return length if type(length) is int and length > 0 else 0


def _write_run(weights, target, tokenizer):
  if os.path.exists(target):
    raise UserError(f'target {target} exists: remove it or name another folder')
  params = convert.load(weights)
  final.save(target, params, weights.config, tokenizer)
  leaves = jax.tree.leaves(params)
  return dict(
    files=1,
    tensors=len(leaves),
    parameters=sum(x.size for x in leaves),
    bytes=sum(x.nbytes for x in leaves),
  )
