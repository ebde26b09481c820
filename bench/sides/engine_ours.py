"""Our engine at the work that a job on standard input describes; see engine.py."""

import json
import os
import pathlib
import sys
from time import process_time as cpu  # user and system

os.environ['XLA_FLAGS'] = '--xla_cpu_multi_thread_eigen=false'
sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

import dataclasses

import jax
import numpy as np

from llama3_jax.generate import engine
from llama3_jax.generate import plain
from llama3_jax.generate.engine import Engine
from llama3_jax.generate.engine import Request
from llama3_jax.generate.engine import Sizes
from llama3_jax.generate.settings import Settings
from llama3_jax.train import models


def model(job):
  config = models.config(job['model'])
  config = dataclasses.replace(config, dtype=job['dtype'])
  params, _ = models.load(job['model'], config)
  return params, config


def finish(made):
  start = cpu()
  while not made.idle:
    made.step()
  jax.block_until_ready(made.memory)
  return cpu() - start


def greedy(n):
  return Settings(temperature=0.0, top_p=1.0, max_new=n)


def decode(job):
  """CPU-seconds of a step of all rows, after their prompts were read."""
  params, config = model(job)
  rows, steps = job['rows'], job['steps']
  length = engine.room(len(job['prompts'][0]) + steps + 64)
  made = Engine(params, config, Sizes((rows,), (512,), length, steps=8))
  made.warm()
  for prompt in job['prompts']:
    made.submit(Request(prompt, greedy(steps + 64)))
  while any(len(each.rows) < rows for each in made.groups):
    made.step()
  found = []
  for _ in range(steps // 8):
    before, start = made.decoded, cpu()
    made.step()
    if made.decoded - before == 8 * rows:
      found.append((cpu() - start) / 8)
  return {'seconds': min(found)}


def rectangle(job):
  """The same with the plain way of one rectangle."""
  params, config = model(job)
  from llama3_jax.generate import programs

  params = programs.cast(params, config)
  tokens = np.asarray(job['prompts'], np.int32)
  rows, size = tokens.shape[0], tokens.shape[1] + job['steps']
  length = np.full(rows, tokens.shape[1], np.int32)
  logits, cache = plain.prefill(params, tokens, length, config, size)
  rules = plain._rules(
    [(p, 0) for p in job['prompts']], greedy(1), (), 0, config.vocab_size
  )
  best = []
  for step in range(job['steps']):
    start = cpu()
    token, _ = plain.pick(
      logits, rules[0], np.full((rows, 1), step, np.int32), rules[1], rules[1]
    )
    logits, cache = plain.advance(params, cache, token, config)
    jax.block_until_ready(logits)
    best.append(cpu() - start)
  return {'seconds': min(best)}


def queue(job):
  """CPU-seconds of prompts with answers of given lengths."""
  params, config = model(job)
  longest = max(len(p) + n for p, n in job['queue'])
  sizes = Sizes((job['rows'],), (512,), engine.room(longest), steps=8)
  made = Engine(params, config, sizes)
  made.warm()
  for prompt, n in job['queue']:
    made.submit(Request(prompt, greedy(n)))
  seconds = finish(made)
  padding = made.padded / (made.read + made.padded)
  return {'seconds': seconds, 'tokens': made.decoded, 'padding': padding}


def samples(job):
  """CPU-seconds and pages of K answers to a prompt, in one request or in K."""
  params, config = model(job)
  [prompt], k, n = job['prompts'], job['samples'], job['steps']
  sizes = Sizes((k,), (512,), engine.room(len(prompt) + n), steps=8)
  made = Engine(params, config, sizes)
  made.warm()
  if job['shared']:
    made.submit(Request(prompt, greedy(n), (), k))
  else:
    for i in range(k):
      made.submit(Request([i, *prompt[1:]], greedy(n)))
  pages, start = 0, cpu()
  while not made.idle:
    made.step()
    pages = max(pages, made.pages[0])
  return {'seconds': cpu() - start, 'pages': pages}


def likelihood(job):
  """CPU-seconds of the log-likelihood of answers after their contexts."""
  from llama3_jax.generate import likelihood as scores
  from llama3_jax.generate import programs
  from llama3_jax.train import belongs

  params, config = model(job)
  params = programs.prepared(params, config)
  encode = belongs.tokenizer('', job['model']).encode
  prompts, answers = [], []
  for context, answer in job['pairs']:
    begin, whole = encode(context), encode(context + answer)
    prompts.append(whole[: len(begin)])
    answers.append(whole[len(begin) :])
  scores.of_answers(params, prompts[:2], answers[:2], config)  # compiles
  start = cpu()
  found = scores.of_answers(params, prompts, answers, config)
  return {'seconds': cpu() - start, 'logps': [float(x) for x in found]}


if __name__ == '__main__':
  job = json.load(sys.stdin)
  work = dict(decode=decode, rectangle=rectangle, queue=queue, samples=samples)
  work['likelihood'] = likelihood
  print(json.dumps(work[job['work']](job)))
