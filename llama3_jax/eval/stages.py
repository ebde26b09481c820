"""Runs stages in turn, each in its folder: skips finished ones, measures the others."""

import contextlib
import pathlib
import resource
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping

import jax
import ml_collections
from absl import logging

from llama3_jax import config as configs
from llama3_jax.base import files
from llama3_jax.base import processes

# What `spent` says of a stage.
SPENT = ('user_s', 'system_s', 'compile_s', 'compiled', 'recalled')


class Stages:
  """Runs stages under `folder` and keeps their results.

  results: {name: what main returned}, in order; costs: {name: {'seconds', those of
  `spent`, 'memory_bytes', 'resumed', 'final' (it wrote parameters)}}, of the process
  that finished the stage. `total` is the number of all stages, to estimate the time
  left.
  """

  def __init__(self, folder: pathlib.Path, total: int) -> None:
    self.folder, self.total = pathlib.Path(folder), total
    self.results, self.costs, self.configs = {}, {}, {}
    self._done, self._left = 0.0, 0.0

  def at(self, name: str) -> str:
    """Folder of a stage: `sft/1` is sft_1."""
    return str(self.folder / name.replace('/', '_'))

  def stage(
    self, name: str, main: Callable, config: ml_collections.ConfigDict, changes: Mapping
  ) -> dict:
    """Results of main(config with `changes`, the stage's folder)."""
    folder = pathlib.Path(self.at(name))
    config = configs.edit(config, changes)
    self.configs[name] = config
    label = f'[{len(self.results) + 1}/{self.total}] {name}'
    if not _finished(folder):
      logging.info('%s: start; %s', label, self._progress())
      cost = _measured(main, config, folder)
      processes.write_json(folder / 'cost.json', cost)
    self.results[name] = files.read_json(folder / 'results.json')
    self.costs[name] = files.read_json(folder / 'cost.json')
    cost = self.costs[name]
    took = f'{cost["seconds"]:.0f} s, {_cpu(cost)}{cost["memory_bytes"] / 1e9:.2f} GB'
    logging.info('%s: done (%s)', label, took)
    return self.results[name]

  def _progress(self):
    spent = sum(cost['seconds'] for cost in self.costs.values())
    if not self.costs:
      return f'{self.total} stages'
    left = spent / len(self.costs) * (self.total - len(self.costs))
    return f'{spent / 60:.1f} min so far, about {left / 60:.1f} min left'


def _finished(folder):
  """Whether a stage is finished and its parameters, if any, still exist."""
  if not (folder / 'results.json').exists() or not (folder / 'cost.json').exists():
    return False
  cost = files.read_json(folder / 'cost.json')
  return not cost.get('final') or (folder / 'final').exists()


def _measured(main, config, folder):
  resumed = folder.exists()
  start = time.perf_counter()
  reset_peak()
  with spent() as cost:
    main(config, str(folder))
  cost |= {'seconds': time.perf_counter() - start, 'memory_bytes': peak()}
  return {**cost, 'resumed': resumed, 'final': (folder / 'final').exists()}


def _cpu(cost):
  """The processor's time of a stage in words; '' where it was not measured."""
  if 'user_s' not in cost:
    return ''
  return f'CPU {cost["user_s"]:.0f} s and {cost["system_s"]:.0f} s of system, '


@contextlib.contextmanager
def spent() -> Iterator[dict]:
  """Yields a dict that has, afterwards, what the block took of the processor.

  'user_s', 'system_s': CPU-seconds of this process and of its children that ended;
  'compile_s': seconds in the compiler, 'compiled': programs that were compiled,
  'recalled': programs that came from the compilation cache instead.
  """
  cost = dict.fromkeys(SPENT, 0)

  def timed(event, seconds, **_):
    if event.endswith('/backend_compile_duration'):
      cost['compile_s'] += seconds
      cost['compiled'] += 1

  def counted(event, **_):
    if event.endswith('/cache_hits'):
      cost['compiled'] -= 1
      cost['recalled'] += 1

  jax.monitoring.register_event_duration_secs_listener(timed)
  jax.monitoring.register_event_listener(counted)
  before = _processor()
  try:
    yield cost
  finally:
    jax.monitoring.unregister_event_duration_listener(timed)
    jax.monitoring.unregister_event_listener(counted)
    after = _processor()
    cost |= {k: after[k] - before[k] for k in before}


def _processor():
  """CPU-seconds of this process and its ended children so far."""
  kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
  used = [resource.getrusage(kind) for kind in kinds]
  return {
    'user_s': sum(u.ru_utime for u in used),
    'system_s': sum(u.ru_stime for u in used),
  }


def reset_peak() -> None:
  """Starts a new measurement of `peak`, where the system can (Linux)."""
  try:
    pathlib.Path('/proc/self/clear_refs').write_text('5')
  except OSError:
    pass


def peak() -> int:
  """Peak resident memory of this process, without children, bytes, since `reset_peak`;
  of its whole life where the system cannot measure that."""
  try:
    for line in pathlib.Path('/proc/self/status').read_text().split('\n'):
      if line.startswith('VmHWM:'):
        return int(line.split()[1]) * 1024
  except OSError:
    pass
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
