"""transformers' Llama with torch's fused AdamW, on synthetic tokens.

python sides/torch_transformers.py SHAPE DTYPE REMAT STEPS
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import torch
import transformers
from shapes import SHAPES


def main(shape, dtype, remat, steps):
  s = SHAPES[shape]
  config = transformers.LlamaConfig(
    vocab_size=s['vocabulary'],
    hidden_size=s['d'],
    intermediate_size=s['ffn'],
    num_hidden_layers=s['layers'],
    num_attention_heads=s['heads'],
    num_key_value_heads=s['kv_heads'],
    head_dim=s['head'],
    rope_theta=5e5,
    max_position_embeddings=s['length'],
    tie_word_embeddings=False,
    attn_implementation='sdpa',
    use_cache=False,
  )
  torch.manual_seed(0)
  model = transformers.LlamaForCausalLM(config)
  model.train()
  if remat == 'full':
    model.gradient_checkpointing_enable({'use_reentrant': False})
  optimizer = torch.optim.AdamW(
    model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True
  )
  rows = torch.randint(0, s['vocabulary'], (s['rows'], s['length']))
  low = dtype == 'bfloat16'
  for _ in range(steps):
    with torch.autocast('cpu', torch.bfloat16, enabled=low):
      loss = model(input_ids=rows, labels=rows).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    value = loss.item()
  count = sum(p.numel() for p in model.parameters())
  print(f'loss {value:.4f} parameters {count}')


if __name__ == '__main__':
  main(*sys.argv[1:4], int(sys.argv[4]))
