"""Compile for absent hardware in a child process; stop it once memory is assigned.

Buffer assignment gives the scheduled program, its memory and its collectives after a
few seconds; the code generation that follows takes minutes and adds the compiler's
cycle estimates (`full`).
"""

import dataclasses
import json
import os
import pathlib
import pickle
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterable
from collections.abc import Mapping

from llama3_jax.base.errors import UserError
from llama3_jax.plan import hlo

# Keeps libtpu from looking for a TPU, and from locking other processes out.
ENVIRONMENT = {
  'JAX_PLATFORMS': 'cpu',
  'TPU_SKIP_MDS_QUERY': '1',
  'TPU_WORKER_HOSTNAMES': 'localhost',
  'TPU_ACCELERATOR_TYPE': 'v5litepod-4',
  'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
  'TPU_MIN_LOG_LEVEL': '0',
  'TPU_STDERR_LOG_LEVEL': '0',
  'TF_CPP_MIN_LOG_LEVEL': '0',
}
SCHEDULED = 'after_optimizations.txt'
MEMORY = 'memory-usage-report.txt'
BUFFERS = 'after_optimizations-buffer-assignment.txt'
LIVE = 'live-range.txt'


class OutOfMemory(Exception):
  """The compiler refused the program; needed and available bytes, 0 where unknown."""

  def __init__(self, text: str, needed: float = 0, available: float = 0) -> None:
    super().__init__(text)
    self.needed, self.available = needed, available


@dataclasses.dataclass(frozen=True)
class Compiled:
  """Output of the compiler: texts (empty for steps it did not reach) and costs."""

  program: dict  # axis sizes and device places, see child.describe
  hlo: str
  memory: str  # the memory-usage report
  buffers: str  # the buffer assignment
  live: str  # live ranges at the peak
  stats: dict  # compiled.memory_analysis(), of a full compile
  log: str
  full: bool
  seconds: float
  child_memory: int  # bytes of host memory the compiling process used at most


def run(
  build: str,
  config: object,
  folder: str | os.PathLike,
  options: Mapping[str, bool | int | str],
  full: bool = False,
  timeout: float = 900,
  env: Mapping[str, str] | Iterable[tuple[str, str]] = (),
) -> Compiled:
  """Compile build(config) -> (lowered, mesh) under compiler `options`.

  Args: build: 'module:function', importable; config: picklable; folder: for
  intermediate files; options: {name: bool, int or str}; timeout: seconds; env: further
  environment variables. Raises UserError (from `build`), OutOfMemory, or RuntimeError
  with the message of the compiler.
  """
  folder = pathlib.Path(folder)
  dump = folder / 'dump'
  dump.mkdir(parents=True, exist_ok=True)
  options = {**options, 'xla_dump_to': str(dump), 'xla_dump_hlo_as_text': True}
  request = {'build': build, 'config': config, 'options': options}
  (folder / 'request.pkl').write_bytes(pickle.dumps(request))
  start = time.monotonic()
  (folder / 'error.json').unlink(missing_ok=True)  # of an earlier plan
  process = _start(folder, dict(env))
  try:
    memory = _wait(process, folder, dump, full, start + timeout)
  finally:
    if process.poll() is None:
      process.kill()
    process.wait()
  seconds = time.monotonic() - start
  log = (folder / 'log.txt').read_text(errors='replace')
  hlo = _read(folder, 'hlo.txt') if full else ''
  hlo = hlo or _read(dump, SCHEDULED) or _read(folder, 'hlo.txt')
  error = _read(folder, 'error.json')
  # A program that is too large has been laid out nevertheless, and can be read.
  if error and not (hlo and 'RESOURCE_EXHAUSTED' in error and _read(dump, MEMORY)):
    _raise(json.loads(error))
  if not hlo:
    raise RuntimeError(f'the compiler ended without an answer: {_last(log)}')
  stats = _read(folder, 'compiled.json')
  return Compiled(
    program=json.loads(_read(folder, 'program.json')),
    hlo=hlo,
    memory=_read(dump, MEMORY),
    buffers=_read(dump, BUFFERS),
    live=_read(dump, LIVE),
    stats=json.loads(stats) if stats else {},
    log=log,
    full=bool(stats),
    seconds=seconds,
    child_memory=memory,
  )


def _start(folder, env):
  path = os.pathsep.join([os.getcwd(), *[p for p in sys.path if p]])
  with open(folder / 'log.txt', 'w') as log:
    return subprocess.Popen(
      [sys.executable, '-m', 'llama3_jax.plan.child', str(folder)],
      env={**os.environ, **ENVIRONMENT, **env, 'PYTHONPATH': path},
      stdin=subprocess.DEVNULL,
      stdout=log,
      stderr=log,
    )


def _wait(process, folder, dump, full, deadline):
  """Waits until the child ends or, unless `full`, has assigned its buffers; returns its
  peak memory in bytes."""
  most = 0
  while process.poll() is None:
    most = max(most, _resident(process.pid))
    if not full and _finished(dump):
      break
    if time.monotonic() > deadline:
      raise UserError(
        'the compiler took too long (plan.timeout_s): raise it, or leave out plan.full'
      )
    time.sleep(0.1)
  usage = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
  return most or usage


def _resident(pid):
  try:
    text = pathlib.Path(f'/proc/{pid}/status').read_text()
  except OSError:
    return 0
  match = re.search(r'VmHWM:\s+(\d+) kB', text)
  return int(match.group(1)) * 1024 if match else 0


def _finished(dump):
  """Whether the memory report, written after the program, is complete: it has stopped
  growing."""
  files = list(dump.glob(f'*{MEMORY}'))
  if not files:
    return False
  size = files[0].stat().st_size
  time.sleep(0.1)
  return bool(size) and files[0].stat().st_size == size


def _read(folder, end):
  files = sorted(pathlib.Path(folder).glob(f'*{end}'))
  return files[0].read_text(errors='replace') if files else ''


def _last(log):
  lines = [line for line in log.splitlines() if line.strip()]
  return lines[-1][:300] if lines else 'no output'


def _raise(error):
  if error['kind'] == 'user':
    raise UserError(error['text'])
  if error['kind'] == 'memory':
    match = re.search(
      r'\(([\d.]+)([KMGT]?)\) exceeds available \w+ \(([\d.]+)([KMGT]?)\)',
      error['text'],
    )
    match = match or re.search(
      r'Used ([\d.]+)([KMGT]?) of ([\d.]+)([KMGT]?) hbm', error['text']
    )
    if match:
      needed, a, available, b = match.groups()
      needed, available = float(needed) * hlo.UNITS[a], float(available) * hlo.UNITS[b]
      raise OutOfMemory(error['text'], needed, available)
    raise OutOfMemory(error['text'])
  raise RuntimeError(error['trace'])
