"""Weight files of a toy model as Meta, Hugging Face and GGUF write them."""

import json

import gguf
import numpy as np
import safetensors.numpy

from llama3_jax.model import files
from llama3_jax.model import pth

L, D, N, K, H, F, V, THETA, EPS = 2, 24, 4, 2, 6, 40, 50, 321.0, 3e-5


def tensors(tied=False):
  """Meta's names; [outputs, inputs]."""
  rng = np.random.default_rng(3)
  make = lambda *shape: rng.normal(0, 0.4, shape).astype(np.float32)
  found = {'tok_embeddings.weight': make(V, D), 'norm.weight': 1 + make(D)}
  for i in range(L):
    layer = dict(
      attention_norm=1 + make(D),
      ffn_norm=1 + make(D),
      **{
        'attention.wq': make(N * H, D),
        'attention.wk': make(K * H, D),
        'attention.wv': make(K * H, D),
        'attention.wo': make(D, N * H),
        'feed_forward.w1': make(F, D),
        'feed_forward.w2': make(D, F),
        'feed_forward.w3': make(F, D),
      },
    )
    found |= {f'layers.{i}.{name}.weight': x for name, x in layer.items()}
  found['output.weight'] = found['tok_embeddings.weight'] if tied else make(V, D)
  return found


PARAMS = dict(dim=D, n_layers=L, n_heads=N, n_kv_heads=K, norm_eps=EPS, vocab_size=V)


def write_meta(folder, w, **changes):
  folder.mkdir()
  lazy = {n: files.Tensor(x.shape, x.dtype, '', lambda x=x: x) for n, x in w.items()}
  pth.write_pth(str(folder / 'consolidated.00.pth'), lazy)
  values = PARAMS | dict(rope_theta=THETA) | changes
  values = {k: v for k, v in values.items() if v is not None}
  (folder / 'params.json').write_text(json.dumps(values))
  return folder


def write_npz(folder, w):
  write_meta(folder, w)
  np.savez(folder / 'w.npz', **w)
  return folder / 'w.npz'


GGUF = {
  'tok_embeddings': 'token_embd',
  'norm': 'output_norm',
  'output': 'output',
  'attention_norm': 'attn_norm',
  'ffn_norm': 'ffn_norm',
  'attention.wq': 'attn_q',
  'attention.wk': 'attn_k',
  'attention.wv': 'attn_v',
  'attention.wo': 'attn_output',
  'feed_forward.w1': 'ffn_gate',
  'feed_forward.w2': 'ffn_down',
  'feed_forward.w3': 'ffn_up',
}


HF = {
  'tok_embeddings': 'model.embed_tokens',
  'norm': 'model.norm',
  'output': 'lm_head',
  'attention_norm': 'input_layernorm',
  'ffn_norm': 'post_attention_layernorm',
  'attention.wq': 'self_attn.q_proj',
  'attention.wk': 'self_attn.k_proj',
  'attention.wv': 'self_attn.v_proj',
  'attention.wo': 'self_attn.o_proj',
  'feed_forward.w1': 'mlp.gate_proj',
  'feed_forward.w2': 'mlp.down_proj',
  'feed_forward.w3': 'mlp.up_proj',
}


def renamed(w, names, prefix):
  """The tensors under another format's names."""
  found = {}
  for name, x in w.items():
    parts = name.removesuffix('.weight').split('.', 2)
    if parts[0] == 'layers':
      found[f'{prefix}.{parts[1]}.{names[parts[2]]}.weight'] = x
    else:
      found[f'{names[parts[0]]}.weight'] = x
  return found


def write_gguf(path, w, extra=lambda writer: None):
  writer = gguf.GGUFWriter(path, 'llama')
  writer.add_block_count(L)
  writer.add_embedding_length(D)
  writer.add_feed_forward_length(F)
  writer.add_head_count(N)
  writer.add_head_count_kv(K)
  writer.add_rope_freq_base(THETA)
  writer.add_layer_norm_rms_eps(EPS)
  extra(writer)
  for name, x in renamed(w, GGUF, 'blk').items():
    writer.add_tensor(name, x)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return path


def write_hf(folder, w, **changes):
  """HF pairs channel i with i + H / 2: rows 0 2 4 1 3 5 of every head of Meta's."""
  folder.mkdir()
  w = dict(w)
  for name in w:
    if name.endswith(('wq.weight', 'wk.weight')):
      heads = w[name].reshape(-1, H, D)
      w[name] = np.concatenate([heads[:, 0::2], heads[:, 1::2]], 1).reshape(-1, D)
  w = {n: np.array(x) for n, x in renamed(w, HF, 'model.layers').items()}
  safetensors.numpy.save_file(w, folder / 'model.safetensors')
  values = dict(
    model_type='llama',
    hidden_size=D,
    num_hidden_layers=L,
    num_attention_heads=N,
    num_key_value_heads=K,
    intermediate_size=F,
    vocab_size=V,
    rope_theta=THETA,
    rms_norm_eps=EPS,
  )
  (folder / 'config.json').write_text(json.dumps(values | changes))
  return folder


WRITERS = dict(meta=write_meta, npz=write_npz, gguf=write_gguf, hf=write_hf)
