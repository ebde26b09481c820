"""A server of a toy model in a process of its own."""

import dataclasses
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import urllib.request

import children
import jax
import numpy as np
import openai
import post_examples as toy

from llama3_jax.train import final

ROOT = pathlib.Path(__file__).resolve().parents[2]
LETTERS = np.arange(32, 127)  # bytes that the model prefers to say


def folder(root):
  """A model whose answers are printable, so that their text can be looked at."""
  tokenizer, params = toy.tokenizer(root), toy.model()
  liked = np.zeros(toy.CONFIG.vocab_size, np.float32)
  liked[LETTERS] = 6
  params = params.replace(head=jax.numpy.asarray(params.head * liked))
  final.save(root / 'toy' / 'final', params, toy.CONFIG, tokenizer)
  return root / 'toy'


@dataclasses.dataclass
class Server:
  """A process that serves; `log` is the file of its output."""

  process: subprocess.Popen
  log: pathlib.Path
  url: str = ''

  def client(self, key='-', **options):
    """The client of openai, which does not try again."""
    how = dict(max_retries=0, timeout=60) | options
    return openai.OpenAI(base_url=f'{self.url}/v1', api_key=key, **how)

  def get(self, path):
    """The text of a page."""
    with urllib.request.urlopen(self.url + path, timeout=10) as answer:
      return answer.read().decode()

  def metric(self, name):
    """The value of a metric without labels."""
    return float(re.search(rf'^llama3_{name} (\S+)$', self.get('/metrics'), re.M)[1])

  def until(self, name, value, seconds=10):
    """Waits until a metric has a value; whether it came to it."""
    end = time.monotonic() + seconds
    while self.metric(name) != value:
      if time.monotonic() > end:
        return False
      time.sleep(0.05)
    return True

  def end(self):
    """SIGTERM; returns the exit status."""
    self.process.send_signal(signal.SIGTERM)
    return self.process.wait(timeout=30)

  def rows(self):
    """Rows of the log of requests."""
    lines = self.log.read_text().splitlines()
    return [json.loads(line) for line in lines if line.startswith('{')]


def start(model, log, cache, **fields):
  """A Server that answers; the file `log` gets what it writes."""
  fields = dict(port=0, length=1024, rows=(4, 16), chunks=(64,), log=True) | fields
  flags = [f'--config.{name}={value}' for name, value in fields.items()]
  command = [sys.executable, '-m', 'experiment', '--config=serve']
  with log.open('w') as file:
    process = subprocess.Popen(
      [*command, f'--init_from={model}', *flags],
      cwd=ROOT,
      env=os.environ | children.variables(cache),
      stdout=file,
      stderr=subprocess.STDOUT,
    )
  server = Server(process, log)
  for _ in range(1_200):
    match = re.search(r'serves at (http://\S+)', log.read_text())
    if match:
      server.url = match[1]
      return server
    if process.poll() is not None:
      break
    time.sleep(0.1)
  process.kill()
  raise AssertionError(log.read_text())
