"""Conversion of weights; argument SOURCE_to_TARGET: meta_to_hf, run_to_hf, ..."""

import ml_collections

from llama3_jax.base.errors import UserError


def get_config(mode='auto_to_hf'):
  source, to, target = mode.partition('_to_')
  sources = ('auto', 'meta', 'hf', 'gguf', 'npz', 'run')
  targets = ('meta', 'hf', 'gguf', 'run')
  if not to or source not in sources or target not in targets:
    raise UserError(
      f'configs/convert.py:{mode}: write SOURCE_to_TARGET with a source of '
      f'{", ".join(sources)} and a target of {", ".join(targets)}'
    )
  c = ml_collections.ConfigDict()
  c.experiment = 'convert'
  c.source = ''  # folder of a checkpoint, a .gguf or .npz file, or a run
  c.source_format = source
  c.params_json = ''  # Meta's params.json, where it is not beside the weights
  c.tokenizer = ''  # tokenizer.model of the model; empty: the one beside its parameters
  c.target = ''  # folder to write; must not exist
  c.target_format = target
  c.dtype = ''  # bfloat16, float16 or float32; empty: as it is
  c.shards = 1  # tensor-parallel files (Meta)
  c.shard_bytes = 5_000_000_000  # size of a file (Hugging Face)
  return c
