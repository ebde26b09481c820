"""llama.cpp at the work that a job on standard input describes; see bench/engine.py."""

import ctypes
import json
import sys
from time import process_time as cpu  # user and system

import llama_cpp as lc


def call(context, batch, entries):
  """Decodes [(token, position, row, whether logits are wanted), ...]."""
  batch.n_tokens = len(entries)
  for i, (token, position, row, wanted) in enumerate(entries):
    batch.token[i], batch.pos[i] = token, position
    batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = 1, row, wanted
  if lc.llama_decode(context, batch):
    sys.exit('llama_decode failed')


def decode(job):
  """CPU-seconds of a step of all rows."""
  prompts, steps = job['prompts'], job['steps']
  lc.llama_backend_init()
  how = lc.llama_model_default_params()
  how.n_gpu_layers = 0
  model = lc.llama_model_load_from_file(job['gguf'].encode(), how)
  size = lc.llama_context_default_params()
  size.n_ctx = len(prompts) * (len(prompts[0]) + steps + 8)
  size.n_batch = size.n_ubatch = 512
  size.n_seq_max, size.n_threads, size.n_threads_batch = len(prompts), 1, 1
  context = lc.llama_init_from_model(model, size)
  batch = lc.llama_batch_init(512, 0, 1)
  for row, prompt in enumerate(prompts):
    call(
      context, batch, [(t, i, row, i == len(prompt) - 1) for i, t in enumerate(prompt)]
    )
  count = lc.llama_vocab_n_tokens(lc.llama_model_get_vocab(model))
  tokens, times = [1] * len(prompts), []
  for step in range(steps):
    start = cpu()
    at = len(prompts[0]) + step
    call(context, batch, [(t, at, row, True) for row, t in enumerate(tokens)])
    for row in range(len(prompts)):
      logits = lc.llama_get_logits_ith(context, row)
      array = ctypes.cast(logits, ctypes.POINTER(ctypes.c_float * count)).contents
      tokens[row] = max(range(0, count, 997), key=array.__getitem__)  # hardly any work
    times.append(cpu() - start)
  return {'seconds': min(times)}


if __name__ == '__main__':
  print(json.dumps(decode(json.load(sys.stdin))))
