"""Hugging Face checkpoints: config.json and safetensors, in and out."""

import dataclasses
import logging
import math
import os
import pathlib
from collections.abc import Mapping

import numpy as np

from llama3_jax.base import processes
from llama3_jax.base.errors import UserError
from llama3_jax.config import ModelConfig
from llama3_jax.config import RopeScaling
from llama3_jax.model import files
from llama3_jax.model import formats
from llama3_jax.model.files import Tensor
from llama3_jax.model.formats import Weights
from llama3_jax.text import hf_files
from llama3_jax.text.library import Library
from llama3_jax.text.tokenizer import Tokenizer

LAYOUT = formats.Format(
  'hf',
  False,
  {
    'embed': 'model.embed_tokens.weight',
    'layers.attn_norm': 'model.layers.{}.input_layernorm.weight',
    'layers.wq': 'model.layers.{}.self_attn.q_proj.weight',
    'layers.wk': 'model.layers.{}.self_attn.k_proj.weight',
    'layers.wv': 'model.layers.{}.self_attn.v_proj.weight',
    'layers.wo': 'model.layers.{}.self_attn.o_proj.weight',
    'layers.ff_norm': 'model.layers.{}.post_attention_layernorm.weight',
    'layers.w_gate': 'model.layers.{}.mlp.gate_proj.weight',
    'layers.w_up': 'model.layers.{}.mlp.up_proj.weight',
    'layers.w_down': 'model.layers.{}.mlp.down_proj.weight',
    'norm': 'model.norm.weight',
    'head': 'lm_head.weight',
  },
  ('rotary_emb.inv_freq',),
)


# Fields of config.json and their values in Llama 3; with others it is another model.
PLAIN = dict(
  model_type='llama',
  hidden_act='silu',
  attention_bias=False,
  mlp_bias=False,
  quantization_config=None,
  auto_map=None,
  partial_rotary_factor=1,
  sliding_window=None,
  attn_logit_softcapping=None,
  final_logit_softcapping=None,
  query_pre_attn_scalar=None,
  clip_qkv=None,
  use_qk_norm=False,
  qk_norm=False,
  no_rope_layers=None,
  num_local_experts=None,
  attention_multiplier=None,
  embedding_multiplier=1,
  residual_multiplier=1,
  logits_scaling=1,
)
SCALING = (
  *('factor', 'low_freq_factor', 'high_freq_factor'),
  'original_max_position_embeddings',
)


def open_checkpoint(path: str) -> Weights:
  """Opens a folder of Hugging Face's files; reads headers only."""
  config_path = os.path.join(path, 'config.json')
  values = formats.read_json(config_path)
  config = formats.read_config(
    config_path, lambda: read_config_json(values, config_path)
  )
  index = os.path.join(path, 'model.safetensors.index.json')
  tensors = {}
  if os.path.exists(index):
    for file in _files(index):
      full = os.path.join(path, file)
      if not os.path.exists(full):
        raise UserError(f'{full} is missing, though {index} names it')
      tensors |= files.open_safetensors(full)
  else:
    for full in sorted(pathlib.Path(path).glob('*.safetensors')):
      tensors |= files.open_safetensors(str(full))
  return formats.collect(_untied(config, tensors, path), tensors, LAYOUT, path)


def _files(index: str) -> list[str]:
  """The files that an index names, all of them in its folder."""
  names = formats.read_json(index).get('weight_map')
  if not isinstance(names, dict) or not names:
    raise UserError(f'{index}: weight_map is not an object of file names by tensor')
  for tensor, file in names.items():
    plain = isinstance(file, str) and file.endswith('.safetensors')
    if not plain or os.path.basename(file) != file or '\\' in file or '\0' in file:
      raise UserError(
        f'{index}: weight_map puts {tensor} into {str(file)[:80]!r}; '
        'only a *.safetensors beside the index is read'
      )
  return sorted(set(names.values()))


def _untied(
  config: ModelConfig, tensors: Mapping[str, Tensor], path: str
) -> ModelConfig:
  """`config` without tying when the folder has a head that is not the embedding."""
  embed, head = (tensors.get(LAYOUT.names[leaf]) for leaf in ('embed', 'head'))
  if not config.tie_embeddings or embed is None or head is None:
    return config
  if head.shape == embed.shape and formats.digest(head) == formats.digest(embed):
    return config
  logging.warning(
    '%s: config.json says tie_word_embeddings, but lm_head.weight is not the '
    'embedding: it is read untied',
    path,
  )
  return dataclasses.replace(config, tie_embeddings=False)


def write(
  weights: Weights,
  path: str,
  shard_bytes: int,
  tokenizer: Tokenizer | Library | None = None,
  length: int = 0,
) -> list[dict[str, Tensor]]:
  """Writes safetensors files, their index, the configs and the tokenizer's files.

  Args:
    tokenizer: that of the model, if it is known.
    length: of the rows the model was trained on, tokens; 0 if unknown.
  """
  c = weights.config
  if c.d_model % c.n_heads:
    raise UserError(
      f'model.d_model={c.d_model} is not a multiple of model.n_heads={c.n_heads}: '
      'transformers refuses such a model; write target_format=run'
    )
  form, groups, room = LAYOUT, [], 0
  for key in formats.leaves(weights.config):
    t = formats.theirs(weights, form, key)
    size = math.prod(t.shape) * t.dtype.itemsize
    if not groups or size > room:
      groups.append({})
      room = shard_bytes
    groups[-1][formats.tensor_name(form, *key)] = t
    room -= size
  names = ['model.safetensors']
  if len(groups) > 1:
    n = len(groups)
    names = [f'model-{i + 1:05d}-of-{n:05d}.safetensors' for i in range(n)]
  for name, tensors in zip(names, groups):
    logging.info('writing %s', name)
    files.write_safetensors(os.path.join(path, name), tensors)
  if len(groups) > 1:
    total = sum(
      math.prod(t.shape) * t.dtype.itemsize for g in groups for t in g.values()
    )
    weight_map = {
      tensor: name for name, group in zip(names, groups) for tensor in group
    }
    processes.write_json(
      os.path.join(path, 'model.safetensors.index.json'),
      {'metadata': {'total_size': total}, 'weight_map': weight_map},
    )
  dtype = weights.tensors['embed', None].dtype
  values = config_json(c, dtype, tokenizer, length)
  processes.write_json(os.path.join(path, 'config.json'), values)
  ids = {k: values[k] for k in ('bos_token_id', 'eos_token_id')}
  if ids['bos_token_id'] is not None:
    processes.write_json(os.path.join(path, 'generation_config.json'), ids)
  if tokenizer is not None:
    hf_files.write(tokenizer, path, values['max_position_embeddings'])
  return groups


def read_config_json(values: Mapping[str, object], path: str) -> ModelConfig:
  """ModelConfig of Hugging Face's config.json; UserError if it is another model."""
  formats.without(values, path, PLAIN)
  checked = formats.Fields(values)
  rope = _rope(checked, path)
  heads, width = checked.size('num_attention_heads'), checked.size('hidden_size')
  theta = rope if 'rope_theta' in rope.values else checked
  return ModelConfig(
    n_layers=checked.size('num_hidden_layers'),
    d_model=width,
    n_heads=heads,
    n_kv_heads=checked.size('num_key_value_heads', heads),
    d_head=checked.size('head_dim', width // heads),
    d_ff=checked.size('intermediate_size'),
    vocab_size=checked.size('vocab_size'),
    rope_theta=theta.number('rope_theta', 10_000.0),
    rope_scaling=_scaling(rope) if rope.values['scaled'] else None,
    norm_eps=checked.number('rms_norm_eps', 1e-6),
    tie_embeddings=checked.flag('tie_word_embeddings', False),
  )


def _rope(values: formats.Fields, path: str) -> formats.Fields:
  """The RoPE fields of config.json; UserError for a kind that is not supported."""
  given = {}
  for name in ('rope_parameters', 'rope_scaling'):
    section = dict(values.object(name))
    for key in [k for k in section if k in given and section[k] != given[k]]:
      raise UserError(f'{path}: rope_parameters and rope_scaling differ in {key}')
    given |= section
  kind = given.pop('rope_type', given.pop('type', None))
  if kind not in (None, 'default', 'llama3'):
    raise UserError(f'{path}: RoPE scaling {kind!r}; only "llama3" and none are read')
  formats.without(given, path, {'partial_rotary_factor': 1})
  known = {
    'rope_theta',
    'partial_rotary_factor',
    *(SCALING if kind == 'llama3' else ()),
  }
  if unknown := sorted(set(given) - known):
    raise UserError(
      f'{path}: {unknown[0]} is not a field of RoPE with rope_type {kind!r}: '
      'such a RoPE is not supported'
    )
  return formats.Fields({**given, 'scaled': kind == 'llama3'})


def _scaling(rope: formats.Fields) -> RopeScaling:
  return RopeScaling(
    rope.number('factor'),
    rope.number('low_freq_factor'),
    rope.number('high_freq_factor'),
    rope.size('original_max_position_embeddings'),
  )


def positions(config: ModelConfig, length: int) -> int:
  """Longest text of a model, tokens.

  RoPE scaling extends the length trained before it, up to its `original`; the length of
  a run that trained with scaling counts as it is. Without the length of a run, the
  released models with scaling are known to have been trained on 131,072.
  """
  s = config.rope_scaling
  if s is None:
    return length or RopeScaling().original
  if length:
    return max(length, int(min(length, s.original) * s.factor))
  released = s.original == 8192 and s.factor in (8.0, 32.0)
  return 131_072 if released else int(s.original * s.factor)


def special_ids(
  config: ModelConfig, tokenizer: Tokenizer | Library | None
) -> tuple[int | None, list[int] | None]:
  """(begin of text, ids that end a generation), or (None, None) if unknown."""
  if tokenizer is not None:
    return tokenizer.bos, list(tokenizer.stop_ids)
  if config.vocab_size == 128_256:  # the released vocabulary, known by its size
    return 128_000, [128_001, 128_008, 128_009]
  return None, None


def config_json(
  config: ModelConfig,
  dtype: np.dtype,
  tokenizer: Tokenizer | Library | None = None,
  length: int = 0,
) -> dict[str, object]:
  """Hugging Face's config.json, with the fields that all its versions read."""
  bos, stops = special_ids(config, tokenizer)
  values = dict(
    architectures=['LlamaForCausalLM'],
    model_type='llama',
    hidden_size=config.d_model,
    intermediate_size=config.d_ff,
    num_hidden_layers=config.n_layers,
    num_attention_heads=config.n_heads,
    num_key_value_heads=config.n_kv_heads,
    head_dim=config.d_head,
    vocab_size=config.vocab_size,
    bos_token_id=bos,
    eos_token_id=stops,
    hidden_act='silu',
    attention_bias=False,
    mlp_bias=False,
    rms_norm_eps=config.norm_eps,
    rope_theta=config.rope_theta,
    rope_scaling=None,
    max_position_embeddings=positions(config, length),
    tie_word_embeddings=config.tie_embeddings,
    torch_dtype=str(dtype),
  )
  if s := config.rope_scaling:
    values['rope_scaling'] = dict(
      rope_type='llama3',
      factor=s.factor,
      low_freq_factor=s.low,
      high_freq_factor=s.high,
      original_max_position_embeddings=s.original,
    )
  return values
