"""Damage to files on disk: it must be named, or change nothing."""

import base64
import functools
import pathlib
import random
import shutil
import tempfile

import jax
import jax.numpy as jnp
import numpy as np

from llama3_jax.base.errors import UserError
from llama3_jax.config import ModelConfig
from llama3_jax.model import llama
from llama3_jax.text.tokenizer import Tokenizer
from llama3_jax.train import checkpoint
from llama3_jax.train import final
from llama3_jax.train import models

C = ModelConfig(2, 16, 2, 2, 8, 24, vocab_size=40, dtype='float32')


def params(seed=0, dtype=jnp.float32):
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda t: jnp.asarray(rng.normal(0, 0.5, t.shape), dtype), llama.abstract(C)
  )


def abstract(tree):
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree
  )


def same(a, b):
  a, b = jax.tree.leaves(a), jax.tree.leaves(b)
  return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def harm(folder, rng):
  """One random corruption of one random file, often the one of the arrays."""
  files = sorted(p for p in folder.rglob('*') if p.is_file())
  file = rng.choice(files + [max(files, key=lambda p: p.stat().st_size)] * len(files))
  content = bytearray(file.read_bytes())
  kind = rng.choice(['flip', 'cut', 'gone', 'zeros']) if content else 'gone'
  i = rng.randrange(len(content)) if content else 0
  if kind == 'gone':
    file.unlink()
  elif kind == 'cut':
    file.write_bytes(content[:i])
  else:
    n = 1 if kind == 'flip' else 64
    new = bytes([content[i] ^ 1 << rng.randrange(8)]) if n == 1 else bytes(n)
    content[i : i + n] = new[: len(content) - i]
    file.write_bytes(content)
  return f'{kind} {file.relative_to(folder)} at {i}'


def trial(seed, folder):
  """(outcome, what was done) of one corruption: 'named', 'harmless' or 'silent'."""
  rng = random.Random(seed)
  shutil.rmtree(folder, ignore_errors=True)
  state, data = (
    {'params': params(), 'step': jnp.int32(7)},
    {'index': [1, 2.5], 'x': 'y'},
  )
  if stage := seed % 3 == 0:
    final.save(folder / 'final', params(), C, byte_tokenizer())
    done = harm(folder / 'final', rng)
  else:
    saves = checkpoint.Checkpoints(folder)
    saves.save(7, state, data)
    saves.close()
    done = harm(folder / 'checkpoints' / '7', rng)
  try:
    if stage:
      found, model = models.load(folder)
      who, path = models.identity(folder), models.tokenizer(folder)
      whole = same(found, params()) and model == C and path is not None
      whole = whole and Tokenizer.load(path).fingerprint == who['vocabulary']
    else:
      saves = checkpoint.Checkpoints(folder)
      if saves.latest() is None:
        return 'named', done  # not a finished save, as after a crash
      found, then = saves.restore(abstract(state))
      whole = same(found, state) and then == data
  except UserError as e:
    assert '\n' not in str(e) and str(folder) in str(e), e
    return 'named', done
  return ('harmless' if whole else 'silent'), done


def attack(n, folder):
  """{outcome: how often} of n random corruptions, and what passed in silence."""
  counts, passed = dict(named=0, harmless=0, silent=0), []
  for seed in range(n):
    outcome, done = trial(seed, folder / 'harmed')
    counts[outcome] += 1
    passed += [done] if outcome == 'silent' else []
  return counts, passed


@functools.cache
def byte_tokenizer():
  """A tokenizer of the 256 bytes."""
  lines = (base64.b64encode(bytes([i])) + b' %d\n' % i for i in range(256))
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder, 'bytes.model')
    path.write_bytes(b''.join(lines))
    return Tokenizer.load(path)
