"""Meta's checkpoints: params.json and tensor-parallel .pth files, in and out."""

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
from llama3_jax.model import llama
from llama3_jax.model import pth
from llama3_jax.model.files import Tensor
from llama3_jax.model.formats import Weights

LAYOUT = formats.Format(
  'meta',
  True,
  {
    'embed': 'tok_embeddings.weight',
    'layers.attn_norm': 'layers.{}.attention_norm.weight',
    'layers.wq': 'layers.{}.attention.wq.weight',
    'layers.wk': 'layers.{}.attention.wk.weight',
    'layers.wv': 'layers.{}.attention.wv.weight',
    'layers.wo': 'layers.{}.attention.wo.weight',
    'layers.ff_norm': 'layers.{}.ffn_norm.weight',
    'layers.w_gate': 'layers.{}.feed_forward.w1.weight',
    'layers.w_up': 'layers.{}.feed_forward.w3.weight',
    'layers.w_down': 'layers.{}.feed_forward.w2.weight',
    'norm': 'norm.weight',
    'head': 'output.weight',
  },
  ('rope.freqs',),
)
# Meta's tensor-parallel files split this dim of [outputs, inputs]; norms are copied.
SPLIT = {
  'embed': 0,
  'head': 0,
  'layers.wq': 0,
  'layers.wk': 0,
  'layers.wv': 0,
  'layers.wo': 1,
  'layers.w_gate': 0,
  'layers.w_up': 0,
  'layers.w_down': 1,
}


# Fields of params.json that Llama 3 does not have: with them it is another model.
PLAIN = dict.fromkeys(
  (
    *('quantization_args', 'lora_args', 'moe_args', 'rope_scaling_factor'),
    *('rope_high_freq_factor', 'use_qk_norm', 'nope_layer_interval'),
  )
)


def open_checkpoint(path: str, form: str, params_json: str | None) -> Weights:
  """Opens a folder of .pth files, or an .npz file with Meta's names (form 'npz')."""
  folder = path if form == 'meta' else os.path.dirname(path)
  config_path = params_json or os.path.join(folder, 'params.json')
  if not os.path.exists(config_path):
    raise UserError(f'{config_path} is missing: it holds the sizes of {path}')
  values = formats.read_json(config_path)
  if form == 'npz':
    shards = [files.open_npz(path)]
  else:
    paths = sorted(pathlib.Path(path).glob('consolidated.*.pth'))
    if not paths:
      raise UserError(f'source {path}: no consolidated.*.pth')
    for number, p in enumerate(paths):
      if p.name != f'consolidated.{number:02d}.pth':
        raise UserError(f'{path}: consolidated.{number:02d}.pth is missing')
    shards = [pth.open_pth(str(p)) for p in paths]
  tensors = _join(shards, values, path)
  needed = {leaf: LAYOUT.names[leaf] for leaf in ('embed', 'layers.w_gate')}
  sizes = []
  for name in needed.values():
    name = name.format(0)
    if name not in tensors:
      raise UserError(f'{path}: tensor {name} is missing')
    sizes.append(tensors[name].shape[0])
  formats.without(values, config_path, PLAIN)
  config = formats.read_config(
    config_path,
    lambda: read_params_json(values, sizes[1], sizes[0], _tied(tensors)),
  )
  return formats.collect(config, tensors, LAYOUT, path)


def _join(
  shards: list[dict[str, Tensor]], values: Mapping[str, object], path: str
) -> dict[str, Tensor]:
  """Whole tensors from tensor-parallel files, joined along the dim of their SPLIT."""
  joined = {}
  for name, first in shards[0].items():
    parts = [shard.get(name) for shard in shards]
    leaf = formats.leaf_of(LAYOUT, name)
    dim = SPLIT.get(leaf)
    for number, part in enumerate(parts):
      if part is None:
        raise UserError(f'{path}: consolidated.{number:02d}.pth lacks tensor {name}')
      if part.shape != first.shape or part.dtype != first.dtype:
        raise UserError(
          f'{part.file}: tensor {name} is {part.shape}, not {first.shape}'
        )
    if leaf == 'embed' and _by_width(first, shards, values):
      dim = 1
    if leaf in ('layers.wk', 'layers.wv'):
      # With more files than KV heads, neighbours hold copies of one head.
      heads = values.get('n_kv_heads') or values.get('n_heads') or len(parts)
      known = type(heads) is int and heads > 0  # else it is reported later
      parts = parts[:: max(1, len(parts) // heads if known else 1)]
    joined[name] = first if dim is None or len(parts) == 1 else _concatenate(parts, dim)
  return joined


def _by_width(
  embed: Tensor, shards: list[dict[str, Tensor]], values: Mapping[str, object]
) -> bool:
  """Whether files hold columns of the embedding (Llama 2 and before), not rows.

  Decided by the width, since such models have vocab_size -1.
  """
  width = values.get('dim')
  whole = width if isinstance(width, int) else 0
  return len(embed.shape) == 2 and embed.shape[1] * len(shards) == whole


def _concatenate(parts: list[Tensor], dim: int) -> Tensor:
  shape = list(parts[0].shape)
  shape[dim] *= len(parts)

  def read():
    x = np.empty(shape, parts[0].dtype)
    for to, part in zip(np.split(x, len(parts), axis=dim), parts):
      to[...] = part.read()
    return x

  return Tensor(tuple(shape), parts[0].dtype, parts[0].file, read)


def write(weights: Weights, path: str, shards: int) -> list[dict[str, Tensor]]:
  """Writes params.json and `shards` tensor-parallel files into the folder `path`.

  A tied model repeats its embedding as the output, as the released 3.2 files do.
  """
  config = weights.config
  for field in ('n_heads', 'n_kv_heads', 'd_ff', 'vocab_size'):
    if getattr(config, field) % shards:
      raise UserError(
        f'shards={shards} does not divide {field}={getattr(config, field)}'
      )
  processes.write_json(os.path.join(path, 'params.json'), params_json(config))
  whole = {
    formats.tensor_name(LAYOUT, *key): (key[0], formats.theirs(weights, LAYOUT, key))
    for key in formats.leaves(config)
  }
  if config.tie_embeddings:
    whole[LAYOUT.names['head']] = whole[LAYOUT.names['embed']]
  written = []
  for shard in range(shards):
    tensors = {
      name: _part(t, SPLIT.get(leaf), shard, shards)
      for name, (leaf, t) in whole.items()
    }
    name = f'consolidated.{shard:02d}.pth'
    logging.info('writing %s', name)
    pth.write_pth(os.path.join(path, name), tensors)
    written.append(tensors)
  return written


def _part(t: Tensor, dim: int | None, shard: int, shards: int) -> Tensor:
  if dim is None or shards == 1:
    return t
  size = t.shape[dim] // shards
  shape = t.shape[:dim] + (size,) + t.shape[dim + 1 :]
  index = (slice(None),) * dim + (slice(shard * size, (shard + 1) * size),)
  return t.map(lambda x: x[index], shape)


def _tied(tensors: Mapping[str, Tensor]) -> bool:
  """Whether the output equals the embedding, or is missing."""
  head, embed = tensors.get(LAYOUT.names['head']), tensors[LAYOUT.names['embed']]
  if head is None or head.shape != embed.shape:
    return head is None
  return formats.digest(head) == formats.digest(embed)  # one in memory at a time


def read_params_json(
  values: Mapping[str, object], d_ff: int, vocab: int, tied: bool
) -> ModelConfig:
  """ModelConfig of Meta's params.json; its implied widths come from the weights."""
  checked = formats.Fields(values)
  n_heads, width = checked.size('n_heads'), checked.size('dim')
  config = ModelConfig(
    n_layers=checked.size('n_layers'),
    d_model=width,
    n_heads=n_heads,
    n_kv_heads=checked.size('n_kv_heads', n_heads),
    d_head=width // n_heads,
    d_ff=d_ff,
    vocab_size=vocab,
    rope_theta=checked.number('rope_theta', 10_000.0),
    norm_eps=checked.number('norm_eps', 1e-5),
    tie_embeddings=tied,
  )
  scaling = None
  if own := checked.object('rope_scaling'):
    own = formats.Fields(own)
    factors = (own.number(name) for name in ('factor', 'low', 'high'))
    scaling = RopeScaling(*factors, own.size('original'))
  elif checked.flag('use_scaled_rope', False):
    scaling = _released_scaling(config)
  return dataclasses.replace(config, rope_scaling=scaling)


def params_json(config: ModelConfig) -> dict[str, object]:
  """Meta's params.json; UserError for a config that its format cannot express."""
  if config.d_head * config.n_heads != config.d_model:
    raise UserError(
      f"Meta's format has heads of d_model / n_heads, not d_head={config.d_head}: "
      'write target_format=hf'
    )
  multiplier, multiple = _ffn_rule(config.d_model, config.d_ff)
  values = dict(
    dim=config.d_model,
    n_layers=config.n_layers,
    n_heads=config.n_heads,
    n_kv_heads=config.n_kv_heads,
    vocab_size=config.vocab_size,
    ffn_dim_multiplier=multiplier,
    multiple_of=multiple,
    norm_eps=config.norm_eps,
    rope_theta=config.rope_theta,
    use_scaled_rope=config.rope_scaling is not None,
  )
  scaling = config.rope_scaling
  if scaling is not None and scaling != _released_scaling(config):
    # The released files have no field for it and readers skip unknown ones.
    values['rope_scaling'] = dataclasses.asdict(scaling)
  return values


def ffn_width(d_model: int, multiplier: float, multiple: int) -> int:
  """The rule of the released code, by which params.json implies d_ff (spec 2.1)."""
  width = int(multiplier * int(2 * 4 * d_model / 3))
  return multiple * -(-width // multiple)


def _ffn_rule(d_model: int, d_ff: int) -> tuple[float, int]:
  for rule in ((1.3, 4096), (1.3, 1024), (1.2, 4096), (1.5, 256), (1.0, 256)):
    if ffn_width(d_model, *rule) == d_ff:
      return rule
  multiple = math.gcd(d_ff, 4096)
  # The middle of the last step before d_ff, clear of rounding.
  return (d_ff - multiple / 2) / int(8 * d_model / 3), multiple


def _released_scaling(config: ModelConfig) -> RopeScaling:
  """The scaling of `use_scaled_rope`: 3.1's factor 8, or 32 in the sizes of 3.2."""
  sizes = 'n_layers', 'd_model', 'n_heads', 'n_kv_heads', 'd_ff'
  for released in llama.SIZES.values():
    same = all(getattr(released, s) == getattr(config, s) for s in sizes)
    if same and released.rope_scaling:
      return released.rope_scaling
  return RopeScaling()
