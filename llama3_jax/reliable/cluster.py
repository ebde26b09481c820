"""Which processes a run has: told by flags, or by the cluster (section 3.3)."""

import os
import signal
import sys

from llama3_jax.base.errors import UserError


def join(flags):
  """The Peers of this process when there are several; else None."""
  import jax

  from llama3_jax.reliable import peers

  for name in ('processes', 'process'):
    if name in flags and 'coordinator' not in flags:
      raise UserError(f'--{name} needs --coordinator=HOST:PORT, the same on all')
  address = flags.get('coordinator', 'auto' if several() else None)
  # A process that waits for its peers inside jax would not hear of SIGTERM; with peers
  # jax listens to it itself.
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


def several():
  """Whether the environment names other processes; on TPU VMs it does not."""
  counts = (
    os.environ.get(n, '1') for n in ('SLURM_STEP_NUM_TASKS', 'MEGASCALE_NUM_SLICES')
  )
  hosts = ',' in os.environ.get('TPU_WORKER_HOSTNAMES', '')
  return hosts or any(n.isdigit() and int(n) > 1 for n in counts)


def started(config, flags):
  """UserError for a training of several tasks that Slurm gave but srun did not start;
  what needs one process runs."""
  tasks = os.environ.get('SLURM_NTASKS', '1')
  inside = 'SLURM_STEP_NUM_TASKS' in os.environ or 'coordinator' in flags
  if 'mesh' in config and tasks.isdigit() and int(tasks) > 1 and not inside:
    raise UserError(
      f'SLURM_NTASKS={tasks}, but this process was not started by srun: write srun '
      'python -m experiment ..., or --coordinator=none to run in this process alone'
    )


def _lost(line):
  """Ends this process: it would wait for the lost one for ever."""
  sys.__stderr__.write(f'experiment: {line}; the same command resumes\n')
  sys.__stderr__.flush()
  os._exit(1)
