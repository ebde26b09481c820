"""lm-eval with transformers at log-likelihoods of a job on standard input."""

import json
import os
import sys
from time import process_time as cpu  # user and system

os.environ['OMP_NUM_THREADS'] = '1'
os.environ['HF_HUB_OFFLINE'] = '1'

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

torch.set_num_threads(1)


def main(job):
  made = HFLM(pretrained=job['folder'], device='cpu', dtype=job['dtype'], batch_size=16)
  requests = [
    Instance('loglikelihood', {}, (context, answer), i)
    for i, (context, answer) in enumerate(job['pairs'])
  ]
  start = cpu()
  found = made.loglikelihood(requests, disable_tqdm=True)
  return {'seconds': cpu() - start, 'logps': [float(logp) for logp, _ in found]}


if __name__ == '__main__':
  print(json.dumps(main(json.load(sys.stdin))))
