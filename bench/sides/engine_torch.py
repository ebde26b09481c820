"""transformers at the work that a job on standard input describes; see engine.py."""

import json
import os
import sys
from time import process_time as cpu  # user and system

os.environ['OMP_NUM_THREADS'] = '1'

import torch
import transformers

torch.set_num_threads(1)


def model(job):
  dtype = getattr(torch, job['dtype'])
  made = transformers.AutoModelForCausalLM.from_pretrained(job['folder'], dtype=dtype)
  return made.eval()


def decode(job):
  """CPU-seconds of a step of all rows with the better of two caches."""
  made, ids = model(job), torch.tensor(job['prompts'])
  found = {}
  for kind in ('dynamic', 'static'):
    cache = None
    if kind == 'static':
      size = ids.shape[1] + job['steps']
      cache = transformers.StaticCache(config=made.config, max_cache_len=size)
    out = made(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
    times = []
    for step in range(job['steps']):
      start = cpu()
      token = out.logits[:, -1:].argmax(-1)
      at = torch.tensor([ids.shape[1] + step])
      out = made(
        token, past_key_values=out.past_key_values, use_cache=True, cache_position=at
      )
      times.append(cpu() - start)
    found[kind] = min(times)
  return {'seconds': min(found.values()), **found}


def queue(job):
  """CPU-seconds of generate() in batches, each as long as its longest answer."""
  made, size = model(job), job['rows']
  start, tokens = cpu(), 0
  for i in range(0, len(job['queue']), size):
    part = job['queue'][i : i + size]
    longest, most = max(len(p) for p, _ in part), max(n for _, n in part)
    rows = [[0] * (longest - len(p)) + p for p, _ in part]
    mask = [[0] * (longest - len(p)) + [1] * len(p) for p, _ in part]
    made.generate(
      torch.tensor(rows),
      attention_mask=torch.tensor(mask),
      do_sample=False,
      max_new_tokens=most,
      min_new_tokens=most,
      pad_token_id=0,
    )
    tokens += sum(n for _, n in part)
  return {'seconds': cpu() - start, 'tokens': tokens}


if __name__ == '__main__':
  job = json.load(sys.stdin)
  with torch.inference_mode():
    print(json.dumps(dict(decode=decode, queue=queue)[job['work']](job)))
