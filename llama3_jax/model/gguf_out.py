"""GGUF files out: weights, sizes and tokenizer in one file, tensor by tensor."""

import os
from collections.abc import Mapping

import gguf
import numpy as np

from llama3_jax.config import ModelConfig
from llama3_jax.config import RopeScaling
from llama3_jax.model import files
from llama3_jax.model import formats
from llama3_jax.model import gguf_in
from llama3_jax.model.formats import Weights
from llama3_jax.text import gguf_vocabulary
from llama3_jax.text.library import Library
from llama3_jax.text.tokenizer import Tokenizer

TYPES = {str(dtype): kind for kind, dtype in gguf_in.PLAIN.items()}
FILE_TYPES = {'float32': 0, 'float16': 1, 'bfloat16': 32}  # general.file_type


def write(
  weights: Weights,
  path: str | os.PathLike,
  tokenizer: Tokenizer | Library | None = None,
  length: int = 0,
) -> list[dict[str, files.Tensor]]:
  """Writes a GGUF file; peak memory is the largest tensor.

  Args:
    weights: of dtype float32, float16 or bfloat16; norms are written as float32.
    tokenizer: that of the model, with its chat template.
    length: longest row the model knows, tokens; 0 if unknown.
  """
  form, config = gguf_in.LAYOUT, weights.config
  tensors = {}
  for key in formats.leaves(config):
    t = formats.theirs(weights, form, key)
    if len(t.shape) == 1:  # llama.cpp multiplies by norms in float32
      t = t.map(lambda x: x.astype(np.float32), t.shape, np.dtype(np.float32))
    tensors[formats.tensor_name(form, *key)] = t
  if config.rope_scaling:
    table = divisors(config.rope_scaling, config.d_head, config.rope_theta)
    read = lambda: table
    name, dtype = 'rope_freqs.weight', np.dtype(np.float32)
    tensors[name] = files.Tensor(table.shape, dtype, name, read)
  writer = gguf.GGUFWriter(os.fspath(path), 'llama')
  _sizes(writer, config, length)
  writer.add_file_type(FILE_TYPES[str(weights.tensors['embed', None].dtype)])
  if tokenizer is not None:
    _vocabulary(writer, gguf_vocabulary.fields(tokenizer, config.vocab_size))
  for name, t in tensors.items():
    size = int(np.prod(t.shape)) * t.dtype.itemsize
    kind = TYPES[str(t.dtype)]
    # The writer knows no bfloat16 of numpy: it is told the type beside the shape.
    plain = np.dtype(np.uint8) if kind == gguf.GGMLQuantizationType.BF16 else t.dtype
    shape = t.shape if plain == t.dtype else (*t.shape[:-1], t.shape[-1] * 2)
    writer.add_tensor_info(name, shape, plain, size, raw_dtype=kind)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_ti_data_to_file()
  for t in tensors.values():
    x = np.ascontiguousarray(t.read())
    writer.write_tensor_data(x.view(np.uint8) if x.dtype == files.BFLOAT16 else x)
  writer.close()
  return [tensors]


def divisors(s: RopeScaling, d_head: int, theta: float) -> np.ndarray:
  """float32 [H/2]: by how much Llama 3.1's scaling divides every frequency of RoPE."""
  wave = 2 * np.pi * theta ** (2 * np.arange(d_head // 2) / d_head)
  share = np.clip((s.original / wave - s.low) / (s.high - s.low), 0, 1)
  return (1 / ((1 - share) / s.factor + share)).astype(np.float32)


def _sizes(writer: gguf.GGUFWriter, c: ModelConfig, length: int) -> None:
  writer.add_block_count(c.n_layers)
  writer.add_context_length(length or (131_072 if c.rope_scaling else 8192))
  writer.add_embedding_length(c.d_model)
  writer.add_feed_forward_length(c.d_ff)
  writer.add_head_count(c.n_heads)
  writer.add_head_count_kv(c.n_kv_heads)
  writer.add_key_length(c.d_head)
  writer.add_value_length(c.d_head)
  writer.add_rope_dimension_count(c.d_head)
  writer.add_rope_freq_base(c.rope_theta)
  writer.add_layer_norm_rms_eps(c.norm_eps)
  writer.add_vocab_size(c.vocab_size)


def _vocabulary(writer: gguf.GGUFWriter, fields: Mapping[str, object]) -> None:
  add = {
    'model': writer.add_tokenizer_model,
    'pre': writer.add_tokenizer_pre,
    'tokens': writer.add_token_list,
    'token_type': writer.add_token_types,
    'merges': writer.add_token_merges,
    'scores': writer.add_token_scores,
    'bos_token_id': writer.add_bos_token_id,
    'eos_token_id': writer.add_eos_token_id,
    'eot_token_id': writer.add_eot_token_id,
    'unknown_token_id': writer.add_unk_token_id,
    'padding_token_id': writer.add_pad_token_id,
    'add_bos_token': writer.add_add_bos_token,
    'add_space_prefix': writer.add_add_space_prefix,
    'chat_template': writer.add_chat_template,
  }
  for name, value in fields.items():
    add[name](value)
