"""GGUF checkpoints, read and dequantised tensor by tensor."""

from typing import Any

import gguf
import numpy as np

from llama3_jax.base.errors import UserError
from llama3_jax.config import ModelConfig
from llama3_jax.config import RopeScaling
from llama3_jax.model import files
from llama3_jax.model import formats
from llama3_jax.model.formats import Weights

LAYOUT = formats.Format(
  'gguf',
  True,
  {
    'embed': 'token_embd.weight',
    'layers.attn_norm': 'blk.{}.attn_norm.weight',
    'layers.wq': 'blk.{}.attn_q.weight',
    'layers.wk': 'blk.{}.attn_k.weight',
    'layers.wv': 'blk.{}.attn_v.weight',
    'layers.wo': 'blk.{}.attn_output.weight',
    'layers.ff_norm': 'blk.{}.ffn_norm.weight',
    'layers.w_gate': 'blk.{}.ffn_gate.weight',
    'layers.w_up': 'blk.{}.ffn_up.weight',
    'layers.w_down': 'blk.{}.ffn_down.weight',
    'norm': 'output_norm.weight',
    'head': 'output.weight',
  },
  ('rope_freqs.weight',),
)
PLAIN = {
  gguf.GGMLQuantizationType.F32: np.dtype(np.float32),
  gguf.GGMLQuantizationType.F16: np.dtype(np.float16),
  gguf.GGMLQuantizationType.BF16: files.BFLOAT16,
}


def open_checkpoint(path: str) -> Weights:
  """Opens a GGUF file; quantised tensors become float32 when read."""
  try:
    reader = gguf.GGUFReader(path)
    tensors = {t.name: _tensor(path, t) for t in reader.tensors}
    config = _config(reader, tensors, path)
  except UserError:
    raise
  except (ValueError, IndexError, KeyError, OSError, TypeError) as error:
    raise UserError(f'{path}: not a whole GGUF file ({error})')
  return formats.collect(config, tensors, LAYOUT, path)


def _tensor(path: str, t: gguf.ReaderTensor) -> files.Tensor:
  shape = tuple(int(n) for n in reversed(t.shape))  # GGUF counts from the inside
  kind, offset, stored = t.tensor_type, t.data_offset, t.data
  if kind in PLAIN:
    dtype = PLAIN[kind]
    return files.Tensor(
      shape, dtype, path, lambda: files.read_at(path, offset, shape, dtype)
    )
  rows, row_type = stored.shape, stored.dtype

  def read():
    packed = files.read_at(path, offset, rows, row_type)
    return np.asarray(gguf.quants.dequantize(packed, kind), np.float32).reshape(shape)

  return files.Tensor(shape, np.dtype(np.float32), path, read)


def _config(reader: gguf.GGUFReader, tensors, path: str) -> ModelConfig:
  def value(key: str, default: Any = None):
    field = reader.get_field(key)
    if field is None and default is None:
      raise UserError(f'{path}: metadata {key} is missing')
    return default if field is None else field.contents()

  if value('general.architecture') != 'llama':
    raise UserError(
      f'{path}: architecture {value("general.architecture")!r}; only "llama" is read'
    )
  if 'token_embd.weight' not in tensors:
    raise UserError(f'{path}: tensor token_embd.weight is missing')
  heads, width = value('llama.attention.head_count'), value('llama.embedding_length')
  d_head = value('llama.attention.key_length', width // heads)
  theta = value('llama.rope.freq_base', 10_000.0)
  eps = value('llama.attention.layer_norm_rms_epsilon')
  return ModelConfig(
    n_layers=value('llama.block_count'),
    d_model=width,
    n_heads=heads,
    n_kv_heads=value('llama.attention.head_count_kv', heads),
    d_head=d_head,
    d_ff=value('llama.feed_forward_length'),
    vocab_size=tensors['token_embd.weight'].shape[0],
    rope_theta=float(theta),
    rope_scaling=_scaling(tensors.get('rope_freqs.weight'), d_head, theta),
    norm_eps=float(str(np.float32(eps))),  # 1e-5, not the float32 nearest to it
    tie_embeddings='output.weight' not in tensors,
  )


def _scaling(table: files.Tensor | None, d_head: int, theta: float):
  """Llama 3.1 scaling from GGUF's table of what each RoPE frequency is divided by."""
  if table is None:
    return None
  divisors = table.read().astype(np.float64)
  guess = RopeScaling(factor=float(divisors.max()))
  wave = 2 * np.pi * theta ** (2 * np.arange(d_head // 2) / d_head)
  s = (guess.original / wave - guess.low) / (guess.high - guess.low)
  s = np.clip(s, 0, 1)
  expected = 1 / ((1 - s) / guess.factor + s)
  if divisors.shape != expected.shape or np.abs(divisors - expected).max() > 1e-3:
    raise UserError(f"{table.file}: rope_freqs.weight is not Llama 3.1's scaling")
  return guess
