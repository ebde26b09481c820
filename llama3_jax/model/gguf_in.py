"""GGUF checkpoints, read and dequantised tensor by tensor."""

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
    values = _values(reader)
  except UserError:
    raise
  except (ValueError, IndexError, KeyError, OSError, TypeError) as error:
    raise UserError(f'{path}: not a whole GGUF file ({files.short(error)})')
  config = formats.read_config(path, lambda: _config(values, tensors, path))
  return formats.collect(config, tensors, LAYOUT, path)


def fields(path: str) -> dict[str, object]:
  """{name: value} of a GGUF file's fields, its vocabulary among them."""
  try:
    return _values(gguf.GGUFReader(path))
  except (ValueError, IndexError, KeyError, OSError, TypeError) as error:
    raise UserError(f'{path}: not a whole GGUF file ({files.short(error)})')


def _values(reader):
  return {name: field.contents() for name, field in reader.fields.items()}


def _tensor(path: str, t: gguf.ReaderTensor) -> files.Tensor:
  shape = tuple(int(n) for n in reversed(t.shape))  # GGUF lists the innermost dim first
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


def _config(values: dict[str, object], tensors, path: str) -> ModelConfig:
  kind = values.get('general.architecture')
  if kind != 'llama':
    raise UserError(f'{path}: architecture {str(kind)[:60]!r}; only "llama" is read')
  if 'token_embd.weight' not in tensors:
    raise UserError(f'{path}: tensor token_embd.weight is missing')
  checked = formats.Fields(values)
  heads = checked.size('llama.attention.head_count')
  width = checked.size('llama.embedding_length')
  d_head = checked.size('llama.attention.key_length', width // heads)
  theta = checked.number('llama.rope.freq_base', 10_000.0)
  eps = checked.number('llama.attention.layer_norm_rms_epsilon')
  _plain_rope(checked, d_head, path)
  return ModelConfig(
    n_layers=checked.size('llama.block_count'),
    d_model=width,
    n_heads=heads,
    n_kv_heads=checked.size('llama.attention.head_count_kv', heads),
    d_head=d_head,
    d_ff=checked.size('llama.feed_forward_length'),
    vocab_size=tensors['token_embd.weight'].shape[0],
    rope_theta=theta,
    rope_scaling=_scaling(tensors.get('rope_freqs.weight'), d_head, theta),
    norm_eps=float(str(np.float32(eps))),  # 1e-5, not the float32 nearest to it
    tie_embeddings='output.weight' not in tensors,
  )


def _plain_rope(checked: formats.Fields, d_head: int, path: str) -> None:
  """Raises UserError for metadata that changes RoPE in another way than 3.1's table."""
  plain = {
    'llama.rope.scaling.type': ('none',),
    'llama.rope.scaling.factor': (1.0,),
    'llama.rope.scale_linear': (1.0,),
    'llama.rope.scaling.attn_factor': (1.0,),
    'llama.rope.dimension_count': (d_head,),
  }
  for key, allowed in plain.items():
    value = checked.values.get(key)
    if value is not None and value not in allowed:
      raise UserError(
        f'{path}: {key} is {str(value)[:60]!r}; only {allowed[0]!r} is read'
      )


def _scaling(table: files.Tensor | None, d_head: int, theta: float):
  """Llama 3.1 scaling from GGUF's table of divisors of the RoPE frequencies."""
  if table is None:
    return None
  divisors = table.read().astype(np.float64)
  if divisors.shape != (d_head // 2,) or not np.all((divisors >= 1) & (divisors < 1e6)):
    raise UserError(f"{table.file}: rope_freqs.weight is not Llama 3.1's scaling")
  guess = RopeScaling(factor=float(divisors.max()))
  wave = 2 * np.pi * theta ** (2 * np.arange(d_head // 2) / d_head)
  s = (guess.original / wave - guess.low) / (guess.high - guess.low)
  s = np.clip(s, 0, 1)
  expected = 1 / ((1 - s) / guess.factor + s)
  if np.abs(divisors - expected).max() > 1e-3:
    raise UserError(f"{table.file}: rope_freqs.weight is not Llama 3.1's scaling")
  return guess
