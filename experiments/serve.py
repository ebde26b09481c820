"""Serve a model to programs of the OpenAI API, and a page to chat with it.

  python -m experiment --config=serve --init_from=runs/herd/average_2

Expected: lines on the programs that are compiled, then `serves at http://127.0.0.1:8000`,
where a browser finds the page and `OpenAI(base_url='http://127.0.0.1:8000/v1',
api_key='-')` the API. SIGTERM or Ctrl-C: new requests are refused, running ones end,
exit status 0. Writes nothing but, where a workdir is given, config.json there.
"""

import importlib.util
import pathlib
import random

from llama3_jax import workdir as workdirs
from llama3_jax.base.errors import UserError
from llama3_jax.generate.engine import Engine
from llama3_jax.generate.group import Sizes
from llama3_jax.model import rowwise
from llama3_jax.train import belongs
from llama3_jax.train import models

ALONE = True  # one process serves
NO_WORKDIR = True  # --workdir may be left out
WAITS = True  # for requests: its log may be silent


def main(config, workdir=None):
  """Serves until it is told to end; returns {'tokens'} that were sampled."""
  if any(importlib.util.find_spec(n) is None for n in ('starlette', 'uvicorn')):
    raise UserError("serve needs starlette and uvicorn: pip install -e '.[serve]'")
  from llama3_jax.serve import server
  from llama3_jax.serve import warm
  from llama3_jax.serve.gate import Limits
  from llama3_jax.serve.generation import Served
  from llama3_jax.serve.metrics import Metrics
  from llama3_jax.serve.worker import Worker

  if workdir:
    workdirs.claim(config, workdir)
  rowwise.check(config.weights)
  keys, sizes = _keys(config.key_file), _sizes(config)
  tokenizer = belongs.tokenizer(config.tokenizer, config.init_from)
  model = models.config(config.init_from)
  door = server.bound(config.host, config.port)  # taken ports are told of at once
  params, _ = models.load(config.init_from)
  engine = Engine(params, model, sizes, config.weights)
  del params
  warm.start(engine)
  worker = Worker(engine, config.queue)
  limits = Limits(config.body_bytes, config.arrival_s, config.timeout_s)
  served = Served(
    worker,
    tokenizer,
    model,
    pathlib.PurePath(config.init_from).name,
    Metrics(worker),
    random.Random(config.seed),
    config.timeout_s,
  )
  gate = server.application(served, limits, keys, config.log)
  server.run(gate, served, limits, door)
  return {'tokens': engine.decoded}


def _keys(path):
  """Keys of a file, one a line; () without one."""
  if not path:
    return ()
  try:
    lines = pathlib.Path(path).read_bytes().splitlines()
  except OSError as error:
    raise UserError(f'key_file={path}: {error.strerror}') from None
  keys = tuple(line.strip() for line in lines if line.strip())
  if not keys:
    raise UserError(f'key_file={path} holds no key: write one a line')
  return keys


def _sizes(config):
  given = tuple(config.rows), tuple(config.chunks), config.length
  own = dict(pages=config.pages, steps=config.steps)
  return Sizes(*given, **own, microbatches=config.microbatches)
