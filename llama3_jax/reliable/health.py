"""Slow processes and corrupt devices, found during training (section 3.3.4)."""

import functools
import os
import socket
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

from llama3_jax import axes
from llama3_jax.base.errors import UserError

SLOW = 0.2  # of a step's time, by which a host may be slower than the median one
# Flags of XLA with which a GPU gives the same bits every time.
ORDERED = ('--xla_gpu_deterministic_ops', '--xla_gpu_exclude_nondeterministic_ops')
WEAK = 1.5  # times the median time of the probe; slower devices are reported


class Stragglers:
  """Finds the process that slows the others; in lock step all look equally slow.

  So two things are measured that a process does alone: the time it spends on the host
  in a step (data, dispatch), and a matmul on each of its devices.
  """

  def __init__(self) -> None:
    self.host, self.steps, self.since = 0.0, 0, time.perf_counter()
    self.hosts = _names() if jax.process_count() > 1 else [socket.gethostname()]

  def put(self, seconds: float) -> None:
    """Adds a step of which `seconds` were spent on the host."""
    self.host, self.steps = self.host + seconds, self.steps + 1

  def gather(self, asked: bool = False) -> tuple[dict[str, object], bool]:
    """(row for the metrics, whether any process was `asked`); all processes call it.

    The row has, of each process, seconds a step on the host and seconds of the probe,
    and the slowest process if there is one.
    """
    seconds = (time.perf_counter() - self.since) / max(self.steps, 1)
    own = [self.host / max(self.steps, 1), _probe(), float(asked)]
    rows = multihost_utils.process_allgather(np.array(own, np.float32))
    host, probe, wishes = np.asarray(rows, np.float64).T.tolist()
    row = {'host_seconds': host, 'probe_seconds': probe}
    self.host, self.steps, self.since = 0.0, 0, time.perf_counter()
    index = int(np.argmax(host))
    if host[index] - statistics.median_low(host) > SLOW * seconds:
      row['slowest_process'] = index
      self._warn(index, 'is slow outside its devices', host)
    index = int(np.argmax(probe))
    if probe[index] > WEAK * statistics.median_low(probe):
      row['slowest_device_of'] = index
      self._warn(index, 'has a slow device', probe)
    return row, any(wishes)

  def _warn(self, index, what, times):
    usual = statistics.median_low(times)
    logging.warning(
      'process %d (%s) %s: %.3g s, the others %.3g s',
      *(index, self.hosts[index], what, times[index], usual),
    )


def _names():
  """The host name of every process."""
  name = socket.gethostname().encode()[:64].ljust(64)
  names = multihost_utils.process_allgather(np.frombuffer(name, np.uint8))
  return [bytes(row).decode().strip() for row in np.asarray(names, np.uint8)]


def _probe():
  """Seconds of a matmul, best of three, on the slowest device of this process."""
  slowest = 0.0
  n = 256 if jax.default_backend() == 'cpu' else 4096
  for device in jax.local_devices():
    with jax.set_mesh(jax.sharding.Mesh([device], ('here',))):
      x = jax.device_put(np.ones((n, n), np.float32), device)
      _square(x).block_until_ready()
      times = []
      for _ in range(3):
        start = time.perf_counter()
        _square(x).block_until_ready()
        times.append(time.perf_counter() - start)
    slowest = max(slowest, min(times))
  return slowest


@jax.jit
def _square(x):
  return x @ x


def check(every: int) -> None:
  """Raises UserError when train.replay_every=`every` would accuse sound GPUs.

  The order of their sums varies unless a flag of XLA fixes it: two runs may differ.
  """
  flags = os.environ.get('XLA_FLAGS', '').split()
  ordered = {f'{flag}{end}' for flag in ORDERED for end in ('', '=true', '=True', '=1')}
  if every and jax.default_backend() == 'gpu' and not ordered & set(flags):
    raise UserError(
      f'train.replay_every={every} compares bits, and the sums of GPUs come in any '
      f'order: start with XLA_FLAGS={ORDERED[0]}=true, or leave replay_every at 0'
    )


def replay(
  state: object, batch: object, train_step: Callable[[object, object], object]
) -> None:
  """Runs one step twice from the same values and compares every bit of the results.

  Only a sum of the results is kept on every device, so it needs the memory of one step.
  Raises UserError that names the devices that differ.
  """
  once, again = (np.asarray(sums(state, batch, train_step)) for _ in range(2))
  if (once == again).all():
    return
  wrong = np.flatnonzero((once != again).any(1))
  mesh = jax.sharding.get_mesh()
  devices = list(mesh.devices.flat) if not mesh.empty else jax.devices()[:1]
  owners = sorted({devices[i].process_index for i in wrong})
  raise UserError(
    f'step {int(state.step) + 1} gave other bits when it was run again, on '
    f'{len(wrong)} of {len(devices)} devices ({_few([devices[i].id for i in wrong])}, '
    f'of process {_few(owners)}): take that machine out and run the same command'
  )


def _few(values):
  values = list(map(str, values))
  return ', '.join(values[:8]) + (', ...' if len(values) > 8 else '')


@functools.partial(jax.jit, static_argnums=2)
def sums(
  state: object, batch: object, train_step: Callable[[object, object], object]
) -> jax.Array:
  """Sums of the bits of all arrays after a step: uint32 [devices, arrays]."""
  return axes.each(_bits, train_step(state, batch))


def _bits(x):
  width = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[x.dtype.itemsize]
  bits = jax.lax.bitcast_convert_type(x, width)
  return jnp.sum(bits, dtype=jnp.uint32)
