"""lm-eval with transformers at a task; a job on standard input, see evaluation.py."""

import json
import os
import pathlib
import sys
from time import process_time as cpu  # user and system

os.environ['OMP_NUM_THREADS'] = '1'
os.environ['HF_HUB_OFFLINE'] = '1'

import lm_eval
import torch
from lm_eval import tasks
from lm_eval.models.huggingface import HFLM

HARNESS = pathlib.Path(__file__).parents[1] / 'harness'
METRIC = {'arc': 'acc_norm', 'piqa': 'acc_norm', 'openbookqa': 'acc_norm'}

torch.set_num_threads(1)


def main(job):
  made = HFLM(pretrained=job['model'], device='cpu', dtype='float32', batch_size=16)
  name = 'l3_arc_easy' if job['task'] == 'arc' else f'l3_{job["task"]}'
  manager = tasks.TaskManager(
    include_path=str(HARNESS),
    include_defaults=False,
    metadata={'folder': str(pathlib.Path(job['file']).parent)},
  )
  start = cpu()
  found = lm_eval.simple_evaluate(
    made,
    tasks=[name],
    num_fewshot=job['shots'],
    limit=job['items'] or None,
    bootstrap_iters=0,
    task_manager=manager,
  )
  seconds = cpu() - start
  samples = found['samples'][name]
  return {
    'seconds': seconds,
    'score': found['results'][name][f'{METRIC.get(job["task"], "acc")},none'],
    'requests': sum(len(sample['resps']) for sample in samples),
  }


if __name__ == '__main__':
  print(json.dumps(main(json.load(sys.stdin))))
