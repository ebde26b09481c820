"""Our evaluation of a task; a job on standard input, see evaluation.py."""

import json
import os
import pathlib
import sys
from time import process_time as cpu  # user and system

os.environ['XLA_FLAGS'] = '--xla_cpu_multi_thread_eigen=false'
sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

import dataclasses

from llama3_jax.eval import run
from llama3_jax.train import belongs
from llama3_jax.train import models

ALL = 10**9
WARM = 8  # questions, before the clock starts


def main(job):
  config = dataclasses.replace(models.config(job['model']), dtype='float32')
  params, _ = models.load(job['model'], config)
  tokenizer = belongs.tokenizer('', job['model'])
  name = f'{job["task"]}={job["file"]},{job["file"]}'
  how = run.How(job['shots'])
  ask = lambda n: run.tasks(params, config, tokenizer, (name,), n, how=how)
  ask(WARM)
  start = cpu()
  found = ask(job['items'] or ALL)[name]
  seconds = cpu() - start
  return {'seconds': seconds, 'score': found['score'], 'questions': found['n']}


if __name__ == '__main__':
  print(json.dumps(main(json.load(sys.stdin))))
