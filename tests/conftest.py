"""Eight virtual CPU devices, the shared assets, meshes, and a cache of compilations."""

import collections
import gc
import importlib
import os
import pathlib
import subprocess
import sys
from importlib import metadata

FLAG = '--xla_force_host_platform_device_count=8'
# Compiling is most of a test's time. A flag that XLA does not know ends the process.
FAST = '--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1'
if metadata.version('jaxlib').startswith('0.10.'):
  FAST += ' --xla_cpu_use_fusion_emitters=false'
os.environ.setdefault('JAX_PLATFORMS', 'cpu')  # libtpu may be there, a TPU is not
if FLAG not in os.environ.get('XLA_FLAGS', ''):
  os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {FAST} {FLAG}'.strip()

import children  # noqa: E402
import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

from llama3_jax import axes  # noqa: E402
from llama3_jax import mesh as meshes  # noqa: E402
from llama3_jax.data import tokenise  # noqa: E402
from llama3_jax.text import tokenizer  # noqa: E402
from llama3_jax.text import vocabulary  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[1]
jax.config.update('jax_compilation_cache_dir', str(ROOT / '.pytest_cache/compiled'))
# Of small programs too: there are many, and reading one is half of compiling it.
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
# What follows compiling is tracing: without a stack for each operation, and without
# looking for cycles among its objects every 700 allocations.
jax.config.update('jax_traceback_in_locations_limit', 0)
gc.set_threshold(100_000, 50, 100)


def pytest_configure(config):
  """Compiles the extraction of text here, once: each of the workers of xdist would."""
  if not hasattr(config, 'workerinput') and config.getoption('numprocesses', None):
    importlib.import_module('llama3_jax.curate.extraction.extract')


def pytest_collection_finish():
  gc.freeze()  # modules stay: no collection looks at them again


EVENTS = collections.Counter()  # of tracing and compiling
jax.monitoring.register_event_duration_secs_listener(
  lambda event, *_, **__: EVENTS.update([event])
)


@pytest.fixture(autouse=True, scope='module')
def forget():
  """Compiled programs of a file end with it: a process may map only so many of them
  (vm.max_map_count), and the one too many is a segmentation fault."""
  yield
  if EVENTS:  # a file that compiles nothing has nothing to forget
    EVENTS.clear()
    jax.clear_caches()
    gc.collect()


@pytest.fixture(scope='session')
def root():
  """The folder of the repository."""
  return ROOT


@pytest.fixture(scope='session')
def assets():
  """The folder of data that is not in the repository; the test is skipped without."""
  folder = (ROOT / '../shared/assets').resolve()
  if not folder.is_dir():
    pytest.skip(f'no reference data beside the repository ({folder})')
  return folder


@pytest.fixture(scope='session')
def mesh():
  """mesh(fsdp=4, tensor=2): an explicit mesh of the first devices; axes left out: 1."""

  def create(**sizes):
    sizes = {axis: sizes.get(axis, 1) for axis in axes.AXES}
    n = 1
    for size in sizes.values():
      n *= size
    return meshes.create(sizes, jax.devices()[:n])

  return create


class Documents:
  """Eighty random documents of 5 to 60 tokens below 64: a source for pipeline.Rows."""

  fingerprint = 'toy'

  def __init__(self):
    rng = np.random.default_rng(0)
    self.lengths = rng.integers(5, 60, 80).astype(np.uint32)

  def __len__(self):
    return len(self.lengths)

  def __getitem__(self, i):
    rng = np.random.default_rng(i)
    return rng.integers(0, 64, self.lengths[i]).astype(np.uint32)


@pytest.fixture(scope='session')
def documents():
  """A fresh in-memory source of token documents."""
  return Documents()


TOY = """'''A toy run on the shards of the tests; argument: steps.'''

import pathlib

from configs import pretrain

HERE = pathlib.Path(__file__).parent


def get_config(steps='80'):
  c = pretrain.get_config('tiny')
  sizes = dict(n_layers=2, d_model=32, n_heads=4, n_kv_heads=2, d_head=8, d_ff=48)
  c.model.update(dict(sizes, vocab_size=512, attention='dense'))
  c.train.update(dict(steps=int(steps), batch=8, length=32, loss_chunk=0, log_every=1))
  c.train.update(dict(save_every=10, eval_every=20))
  c.data.root, c.data.eval_batches, c.data.changes = str(HERE), 1, ()
  del c.data.mix
  c.data.mix = dict(web=1.0)
  return c


def sweep():
  for peak in (1e-3, 2e-3):
    yield {'optim.peak': peak, 'train.steps': 2}
"""


@pytest.fixture(scope='session')
def toy(tmp_path_factory):
  """A folder with token shards of one source, and toy.py, the config to train on it."""
  folder = tmp_path_factory.mktemp('toy')
  vocabulary.write([bytes([i]) for i in range(256)], folder / 'bytes.model')
  bytes_ = tokenizer.Tokenizer.load(folder / 'bytes.model')
  rng = np.random.default_rng(0)
  texts = [' '.join(map(str, rng.integers(0, 99, 20))) for _ in range(60)]
  tokenise.write(
    [{'text': t} for t in texts],
    bytes_,
    folder / 'web',
    heldout=0.1,
    vocabulary=folder / 'bytes.model',
  )
  (folder / 'toy.py').write_text(TOY)
  return folder


class Launcher:
  """`python -m experiment` in processes of its own, on one CPU device."""

  def __init__(self, cache):
    self.cache = cache

  def start(self, *arguments, env=()):
    """Popen whose output comes as one text."""
    return subprocess.Popen(
      [sys.executable, '-m', 'experiment', *map(str, arguments)],
      cwd=ROOT,
      env=os.environ | children.variables(self.cache) | dict(env),
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )

  def run(self, *arguments, env=()):
    """(exit status, output)."""
    process = self.start(*arguments, env=env)
    text, _ = process.communicate(timeout=240)
    return process.returncode, text


@pytest.fixture(scope='session')
def launcher():
  return Launcher(str(ROOT / '.pytest_cache/launcher'))
