"""The processes of a run, as flags or the cluster name them (section 3.3)."""

import os
import signal
import sys
from collections.abc import Mapping

from ml_collections import ConfigDict

from llama3_jax.base.errors import UserError


def join(flags: Mapping[str, object]) -> object:
  """Connects the processes of a run; the peers.Peers of this one, None if alone."""
  import jax

  from llama3_jax.reliable import peers

  for name in ('processes', 'process'):
    if name in flags and 'coordinator' not in flags:
      raise UserError(f'--{name} needs --coordinator=HOST:PORT, the same on all')
  address = flags.get('coordinator', 'auto' if several() else None)
  # Python handles no SIGTERM while this process waits for its peers inside jax; with
  # peers jax handles it.
  before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
  try:
    if address == 'auto':
      peers.join()
    elif address not in (None, 'none'):
      for name in ('processes', 'process'):
        if name not in flags:
          raise UserError(f'--{name} is missing: --coordinator={address} needs it')
      peers.join(address, flags['processes'], flags['process'])
  finally:
    if not jax.distributed.is_initialized():
      signal.signal(signal.SIGTERM, before)
  if not jax.distributed.is_initialized() or jax.process_count() == 1:
    signal.signal(signal.SIGTERM, before)
    return None
  return peers.Peers(_lost).watch()


def several() -> bool:
  """Whether the environment names other processes; on TPU VMs it does not."""
  counts = (
    os.environ.get(n, '1') for n in ('SLURM_STEP_NUM_TASKS', 'MEGASCALE_NUM_SLICES')
  )
  hosts = ',' in os.environ.get('TPU_WORKER_HOSTNAMES', '')
  return hosts or any(n.isdigit() and int(n) > 1 for n in counts)


def started(config: ConfigDict, flags: Mapping[str, object]) -> None:
  """Raises UserError for a training whose Slurm tasks were not started by srun.

  Experiments that need only one process may run.
  """
  tasks = os.environ.get('SLURM_NTASKS', '1')
  inside = 'SLURM_STEP_NUM_TASKS' in os.environ or 'coordinator' in flags
  if 'mesh' in config and tasks.isdigit() and int(tasks) > 1 and not inside:
    raise UserError(
      f'SLURM_NTASKS={tasks}, but this process was not started by srun: write srun '
      'python -m experiment ..., or --coordinator=none to run in this process alone'
    )


def _lost(line):
  """Ends this process, which would wait for the lost one forever."""
  sys.__stderr__.write(f'experiment: {line}; the same command resumes\n')
  sys.__stderr__.flush()
  os._exit(1)
