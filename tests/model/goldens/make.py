"""Makes the golden arrays with transformers on random weights: not run by the tests.

  python -m venv /tmp/oracle
  /tmp/oracle/bin/pip install torch transformers numpy
  /tmp/oracle/bin/python tests/model/goldens/make.py

Writes llama_<name>.npz beside this file: Hugging Face's names, the config as JSON,
token ids and float32 logits.
"""

import json
import pathlib

import numpy as np
import torch
import transformers

SCALING = dict(
  rope_type='llama3',
  factor=4.0,
  low_freq_factor=1.0,
  high_freq_factor=4.0,
  # Short, so that wave lengths fall into all three ranges at head size 16.
  original_max_position_embeddings=64,
)
CASES = dict(
  scaled=dict(rope_scaling=SCALING, tie_word_embeddings=False),
  tied=dict(rope_scaling=None, tie_word_embeddings=True),
)


def make(name, fields):
  torch.manual_seed(0)
  values = dict(
    vocab_size=96,
    hidden_size=48,
    intermediate_size=80,
    num_hidden_layers=2,
    num_attention_heads=6,
    num_key_value_heads=2,
    head_dim=16,  # not hidden_size / heads: wo is not square
    rope_theta=10_000.0,
    rms_norm_eps=1e-5,
    max_position_embeddings=512,
    hidden_act='silu',
    **fields,
  )
  config = transformers.LlamaConfig(**values)
  model = transformers.LlamaForCausalLM(config).eval()
  with torch.no_grad():
    for p in model.parameters():
      # Wide enough for the logits to depend on every weight, norms included.
      spread = 0.2 if p.ndim == 1 else 0.15
      x = torch.randn_like(p) * spread + (p.ndim == 1)
      p.copy_(torch.round(x * 64) / 64)  # few bits, so that the file is small
    ids = torch.randint(0, values['vocab_size'], (2, 80))
    logits = model(ids).logits
  arrays = {n: p.detach().numpy() for n, p in model.named_parameters()}
  path = pathlib.Path(__file__).parent / f'llama_{name}.npz'
  np.savez_compressed(
    path,
    config=json.dumps(dict(model_type='llama', **values)),
    versions=json.dumps([torch.__version__, transformers.__version__]),
    ids=ids.numpy().astype(np.int32),
    logits=logits.numpy(),
    **arrays,
  )
  print(path, path.stat().st_size)


if __name__ == '__main__':
  for case, case_fields in CASES.items():
    make(case, case_fields)
