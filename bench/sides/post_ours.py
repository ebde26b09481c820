"""Our training steps after pre-training, by a job on standard input; see post.py."""

import functools
import json
import pathlib
import resource
import sys
from time import process_time as cpu  # user and system

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

import jax
import numpy as np

from llama3_jax import feed
from llama3_jax.model import llama
from llama3_jax.post import dpo
from llama3_jax.post import joined
from llama3_jax.post import ranked
from llama3_jax.post import reward
from llama3_jax.post import rows as rows_lib
from llama3_jax.post import sft
from llama3_jax.reliable import guard
from llama3_jax.train import counted
from llama3_jax.train import models
from llama3_jax.train import optim
from llama3_jax.train import step


def mask(prompt, answer):
  return np.arange(len(prompt) + len(answer)) >= len(prompt)


def side(prompt, answer):
  row = rows_lib.place(prompt + answer, len(prompt + answer), mask(prompt, answer))
  return feed.Pairs(**vars(row), contrast=row.weight, ref_logp=np.float32(-500))


def rows(job):
  """The batch of a job."""
  made = []
  for p, c, r in job['rows']:
    if job['stage'] == 'sft':
      made.append(rows_lib.place(p + c, len(p + c), mask(p, c)))
    elif job['stage'] in ('dpo', 'joined'):
      made.append(rows_lib.stack([side(p, c), side(p, r)]))
    else:
      row = ranked.paper_row(p, [c, r], [0, 1], len(p + c + r))
      made.append(feed.Ranked(**row, margin=np.zeros(len(row['ends']), np.float32)))
  made = rows_lib.stack(made)
  if job['stage'] != 'joined':
    return made
  longest = max(len(p) + 1 + len(c) + len(r) for p, c, r in job['rows'])
  return joined.rows(made, longest)[0]


def main():
  job = json.load(sys.stdin)
  params, model = models.load(job['model'])
  model = model.__class__(**{**vars(model), 'remat': job['remat']})
  loss = dict(sft=sft.loss, dpo=dpo.loss, joined=dpo.loss, reward=reward.loss)[
    job['stage']
  ]
  if job['stage'] == 'reward':
    start = jax.jit(reward.init, static_argnums=2)
    params = start(jax.random.key(0), params, model)
  loss, whole = functools.partial(loss, config=model), rows(job)
  if job['stage'] != 'reward':
    loss = functools.partial(loss, kept=counted.most(whole))
  adam = optim.create(optim.OptimConfig(peak=1e-6, warmup=1, decay=0))
  train = step.compose(loss, adam, guard=guard.Guard())
  state, batch = train.start(params), feed.place(whole)
  del params
  times, losses = [], []
  for _ in range(job['steps'] + 1):  # the first one compiles
    start = cpu()
    state, metrics = train(state, batch)
    losses.append(float(metrics['loss']))
    times.append(cpu() - start)
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  found = {'seconds': min(times[1:]), 'memory': peak * 1024, 'losses': losses}
  print(json.dumps(found | {'parameters': llama.count(model)}))


if __name__ == '__main__':
  main()
