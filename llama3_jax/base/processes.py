"""Several processes of one run: one of them writes, and all wait for it."""

import pathlib
import sys

from llama3_jax.base import files


def first():
  """Whether this process is the one of several that writes files."""
  jax = sys.modules.get('jax')  # not imported here: no device is touched for this
  return jax is None or not jax.distributed.is_initialized() or not jax.process_index()


def meet(name):
  """Waits for all processes; each calls it at the same place."""
  jax = sys.modules.get('jax')
  if jax and jax.distributed.is_initialized() and jax.process_count() > 1:
    from jax.experimental import multihost_utils

    multihost_utils.sync_global_devices(name)


def write_json(path, value):
  """files.write_json by the first process; none goes on before it has."""
  if first():
    files.write_json(path, value)
  meet(pathlib.Path(path).name)
